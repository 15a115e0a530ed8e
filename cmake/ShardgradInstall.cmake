# cmake --install puts headers below include/shardgrad, so that outside projects include
# "core/tensor.h" as we do, and a package that find_package(shardgrad) finds.
include(CMakePackageConfigHelpers)
set(sg_package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/shardgrad")

foreach(room IN LISTS sg_rooms)
  install(TARGETS sg_${room} EXPORT shardgrad-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS RELATIVE "${PROJECT_SOURCE_DIR}"
       "${PROJECT_SOURCE_DIR}/${room}/*.h" "${PROJECT_SOURCE_DIR}/${room}/*.inc")
  list(FILTER headers EXCLUDE REGEX "/kernels/isa/")  # they need SG_ISA, and its flags
  list(FILTER headers EXCLUDE REGEX "^dist/cli/")        # a program's own
  list(FILTER headers EXCLUDE REGEX "^dist/processes/")  # of a job, which stands for them
  list(FILTER headers EXCLUDE REGEX "/nccl_(group|library)")  # they need NCCL's
  if(NOT sg_cuda)  # the toolkit's headers are needed for all but these
    set(without_toolkit ${headers})
    list(FILTER without_toolkit INCLUDE REGEX "^core/cuda/(cuda|graph|lanes)\\.h$")
    list(FILTER headers EXCLUDE REGEX "/cuda/")
    list(APPEND headers ${without_toolkit})
  endif()
  foreach(header IN LISTS headers)
    get_filename_component(folder "${header}" DIRECTORY)
    install(FILES "${PROJECT_SOURCE_DIR}/${header}"
            DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/shardgrad/${folder}")
  endforeach()
endforeach()
install(TARGETS sg_all EXPORT shardgrad-targets)
install(EXPORT shardgrad-targets NAMESPACE shardgrad:: DESTINATION "${sg_package_dir}")

configure_package_config_file(
  "${CMAKE_CURRENT_LIST_DIR}/shardgrad-config.cmake.in"
  "${PROJECT_BINARY_DIR}/shardgrad-config.cmake"
  INSTALL_DESTINATION "${sg_package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/shardgrad-config-version.cmake"
  COMPATIBILITY SameMinorVersion)
install(FILES
  "${PROJECT_BINARY_DIR}/shardgrad-config.cmake"
  "${PROJECT_BINARY_DIR}/shardgrad-config-version.cmake"
  "${CMAKE_CURRENT_LIST_DIR}/FindDNNL.cmake"
  DESTINATION "${sg_package_dir}")

# The test that an outside project can find_package(shardgrad); run.cmake does it.
if(SHARDGRAD_INSTALL)
  set(args -G "${CMAKE_GENERATOR}")
  foreach(variable CMAKE_CXX_COMPILER CMAKE_BUILD_TYPE CMAKE_CXX_FLAGS CMAKE_MAKE_PROGRAM DNNL_ROOT)
    if(${variable})
      list(APPEND args "-D${variable}=${${variable}}")
    endif()
  endforeach()
  if(SHARDGRAD_SANITIZE)
    list(APPEND args "-DCMAKE_CXX_FLAGS=${CMAKE_CXX_FLAGS} -fsanitize=${SHARDGRAD_SANITIZE}")
  endif()
  add_test(NAME install.outside_project
    COMMAND ${CMAKE_COMMAND}
      "-DBUILD_DIR=${CMAKE_BINARY_DIR}"
      "-DSOURCE_DIR=${PROJECT_SOURCE_DIR}"
      "-DWORK_DIR=${CMAKE_BINARY_DIR}/install_test"
      "-DPROGRAMS=outside_core;outside"
      "-DARGS=${args}"
      -P "${CMAKE_CURRENT_LIST_DIR}/run.cmake")
  set_tests_properties(install.outside_project PROPERTIES TIMEOUT 300 LABELS install)
endif()

# sg_room(name LINKS rooms...): the static library sg_<name>, exported as shardgrad::<name>, of every
# .cpp below the room's folder. A new file needs no edit here. A room without a .cpp is headers only.
set(sg_rooms "")

function(sg_room name)
  cmake_parse_arguments(arg "" "" "LINKS" ${ARGN})
  set(root "${PROJECT_SOURCE_DIR}")
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${root}/${name}/*.cpp")
  if(name STREQUAL "dist")
    list(FILTER sources EXCLUDE REGEX "/dist/cli/")  # a program; dist/cli/CMakeLists.txt builds it
  endif()
  if(name STREQUAL "dist" AND NOT sg_gloo)
    list(FILTER sources EXCLUDE REGEX "/dist/processes/")  # ranks are threads alone
  endif()
  if(sg_cuda)
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS "${root}/${name}/*.cu")
    list(APPEND sources ${cuda_sources})
    if(SHARDGRAD_CUDA STREQUAL "FAKE")
      set_source_files_properties(${cuda_sources} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
      if(name STREQUAL "core")
        list(FILTER sources EXCLUDE REGEX "/core/cuda/blas\\.cpp$")
        list(APPEND sources "${root}/tests/fake_cuda/fake_blas.cpp"
          "${root}/tests/fake_cuda/fake_cuda.cpp")
      endif()
    endif()
  else()
    list(FILTER sources EXCLUDE REGEX "/cuda/")
  endif()
  set(isa_sources "${sources}")
  list(FILTER sources EXCLUDE REGEX "/kernels/isa/[^/]*$")
  list(FILTER isa_sources INCLUDE REGEX "/kernels/isa/[^/]*$")

  set(target sg_${name})
  if(sources OR isa_sources)
    add_library(${target} STATIC ${sources})
    set(visibility PUBLIC)
    sg_compile_flags(${target})
  else()
    add_library(${target} INTERFACE)
    set(visibility INTERFACE)
    target_compile_features(${target} INTERFACE cxx_std_20)
  endif()
  add_library(shardgrad::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} ${visibility}
    $<BUILD_INTERFACE:${root}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/shardgrad>)
  list(TRANSFORM arg_LINKS PREPEND sg_)
  target_link_libraries(${target} ${visibility} ${arg_LINKS})
  if(name STREQUAL "core")
    if(SHARDGRAD_CUDA STREQUAL "FAKE")
      target_include_directories(${target} BEFORE PUBLIC
        $<BUILD_INTERFACE:${root}/tests/fake_cuda>)
    endif()
    target_compile_definitions(${target} ${visibility}
      SG_CUDA=${sg_cuda} SG_FAULTS=${sg_faults} SG_ONEDNN=${sg_onednn} SG_OPENMP=${sg_openmp} SG_ISA_X86=${sg_isa_x86})
    # Templates of ours that are instantiated in a user's file must round as they do here.
    target_compile_options(${target} INTERFACE -ffp-contract=off)
  endif()

  if(isa_sources)
    foreach(isa IN LISTS sg_isas)
      set(objects ${target}_isa_${isa})
      add_library(${objects} OBJECT ${isa_sources})
      sg_compile_flags(${objects})
      # -Wno-psabi: vector arguments never leave a file, so their calling convention is no concern.
      # -Wno-pass-failed: clang warns of every simd loop that it leaves scalar for an older processor.
      target_compile_options(${objects} PRIVATE
        ${sg_isa_optimize} ${sg_isa_flags_${isa}} -Wno-psabi
        $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-pass-failed>)
      target_compile_definitions(${objects} PRIVATE SG_ISA=${isa})
      foreach(property INCLUDE_DIRECTORIES COMPILE_DEFINITIONS COMPILE_OPTIONS)
        set(inherited "$<TARGET_PROPERTY:${target},INTERFACE_${property}>")
        set_property(TARGET ${objects} APPEND PROPERTY ${property} "${inherited}")
      endforeach()
      if(sg_openmp)
        target_link_libraries(${objects} PRIVATE OpenMP::OpenMP_CXX)
      endif()
      target_link_libraries(${objects} PRIVATE fmt::fmt Threads::Threads)
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
    endforeach()
  endif()
  set(sg_rooms ${sg_rooms} ${name} PARENT_SCOPE)
endfunction()

# sg_room_uses(room PUBLIC|PRIVATE libraries...): a room without a .cpp passes PUBLIC ones on.
function(sg_room_uses room visibility)
  get_target_property(type sg_${room} TYPE)
  if(NOT type STREQUAL "INTERFACE_LIBRARY")
    target_link_libraries(sg_${room} ${visibility} ${ARGN})
  elseif(visibility STREQUAL "PUBLIC")
    target_link_libraries(sg_${room} INTERFACE ${ARGN})
  endif()
endfunction()

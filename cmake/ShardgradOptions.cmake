# What a user may choose. A part that is AUTO is used where it is found; ON makes its absence an
# error; OFF never looks.
function(sg_part name default help)
  set(values AUTO ON OFF ${ARGN})
  set(${name} "${default}" CACHE STRING "${help} (${values})")
  set_property(CACHE ${name} PROPERTY STRINGS ${values})
  if(NOT "${${name}}" IN_LIST values)
    list(POP_BACK values last)
    list(JOIN values ", " expected)
    message(FATAL_ERROR "${name} is '${${name}}'; expected ${expected} or ${last}")
  endif()
endfunction()

sg_part(SHARDGRAD_ONEDNN AUTO "oneDNN for matrix products and convolutions")
sg_part(SHARDGRAD_OPENMP AUTO "OpenMP as the compute thread pool of a rank")

sg_part(SHARDGRAD_CUDA AUTO "GPUs (CUDA 12 or later). FAKE: a stand-in on the CPU, for tests" FAKE)
sg_part(SHARDGRAD_NCCL AUTO "NCCL 2.18 or later between GPUs, one rank a GPU; needs SHARDGRAD_CUDA")

sg_part(SHARDGRAD_FAULTS AUTO "Faults on demand for tests, SHARDGRAD_FAULT (AUTO: not in Release)")
sg_part(SHARDGRAD_GLOO AUTO "Gloo (and OpenSSL) for ranks that are processes")

set(SHARDGRAD_ARCH "" CACHE STRING "One -march for the kernels, such as native (empty: on x86-64 \
those of v2, v3 and v4 are built and chosen from at run time)")

option(SHARDGRAD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
option(SHARDGRAD_CLI "Build the command-line program shardgrad" ${PROJECT_IS_TOP_LEVEL})
option(SHARDGRAD_EXAMPLES "Build the example programs" ${PROJECT_IS_TOP_LEVEL})
option(SHARDGRAD_BENCH "Build the measurements (microbench where Google Benchmark is found)"
       ${PROJECT_IS_TOP_LEVEL})
option(SHARDGRAD_INSTALL "Make install rules" ${PROJECT_IS_TOP_LEVEL})
option(SHARDGRAD_UNITY "Compile the sources of tests and programs by batches, which halves their time" ON)
option(SHARDGRAD_CCACHE "Compile through ccache where it is found" ${PROJECT_IS_TOP_LEVEL})
option(SHARDGRAD_FUZZ "Build the fuzzers of tests/fuzz with clang's libFuzzer" OFF)
option(SHARDGRAD_WERROR "Warnings are errors" OFF)
set(SHARDGRAD_SANITIZE "" CACHE STRING "Sanitizers for -fsanitize=, such as address,undefined")

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()

set(sg_faults 0)
if(SHARDGRAD_FAULTS STREQUAL "ON" OR
   (SHARDGRAD_FAULTS STREQUAL "AUTO" AND NOT CMAKE_BUILD_TYPE STREQUAL "Release"))
  set(sg_faults 1)
endif()

if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
endif()

if(SHARDGRAD_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  find_program(SHARDGRAD_CCACHE_PROGRAM ccache)
  mark_as_advanced(SHARDGRAD_CCACHE_PROGRAM)
  if(SHARDGRAD_CCACHE_PROGRAM)
    # It caches what was compiled with a precompiled header only when told so.
    set(sloppiness pch_defines,time_macros)
    if(NOT "$ENV{CCACHE_SLOPPINESS}" STREQUAL "")
      string(APPEND sloppiness ",$ENV{CCACHE_SLOPPINESS}")
    endif()
    set(CMAKE_CXX_COMPILER_LAUNCHER "${CMAKE_COMMAND}" -E env
        "CCACHE_SLOPPINESS=${sloppiness}" "${SHARDGRAD_CCACHE_PROGRAM}")
  endif()
endif()

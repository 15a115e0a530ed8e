# Compile flags of everything in this project, and the instruction sets of the kernels.
if(NOT CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
  message(FATAL_ERROR "shardgrad uses GCC's and clang's vector extensions; "
    "${CMAKE_CXX_COMPILER_ID} is neither. Set CMAKE_CXX_COMPILER to g++ (>= 12) or clang++ (>= 14).")
endif()

# Values must not depend on how the compiler contracts or reorders floating point: the loss of every
# plan is equal to the last bit. These two give up only errno and exception flags, which nobody
# reads: sqrt becomes one instruction, and loops with comparisons vectorize. No value changes.
set(sg_flags -Wall -Wextra -ffp-contract=off -fno-math-errno -fno-trapping-math -fopenmp-simd)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # False alarms of GCC 12 inside std::sort and std::string at -O3 (its bugs 105329, 107852); clang
  # and later versions of GCC watch for these.
  list(APPEND sg_flags -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow)
endif()
if(SHARDGRAD_WERROR)
  list(APPEND sg_flags -Werror)
endif()
if(SHARDGRAD_SANITIZE)
  set(sg_sanitized_fast -O0)
  set(sg_sanitize -fsanitize=${SHARDGRAD_SANITIZE} -fno-sanitize-recover=all)
  list(APPEND sg_flags ${sg_sanitize} -fno-omit-frame-pointer)
else()
  set(sg_sanitize "")
  set(sg_sanitized_fast "")
endif()

# Kernels round as the CPU's do, too. 186: a comparison with 0 that a functor makes for every type.
# (-std by hand: CMake 3.25 knows no CUDA_STANDARD 20.)
set(sg_cuda_flags -std=c++20 -fmad=false --expt-relaxed-constexpr -diag-suppress=186
  -Xcompiler=-ffp-contract=off)
if(SHARDGRAD_WERROR)
  list(APPEND sg_cuda_flags -Werror=all-warnings)
endif()

function(sg_compile_flags target)
  target_compile_features(${target} PUBLIC cxx_std_20)
  set_target_properties(${target} PROPERTIES CXX_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE
    "$<$<COMPILE_LANGUAGE:CXX>:${sg_flags}>" "$<$<COMPILE_LANGUAGE:CUDA>:${sg_cuda_flags}>")
  if(sg_sanitize)
    target_link_options(${target} PUBLIC ${sg_sanitize})
  endif()
endfunction()

# What tests and programs compute is in the libraries; their own code need not be fast, but be
# compiled fast (under a sanitizer not optimising it takes a third of the time). It is many small
# files that read the same headers: five of them as one translation unit cost little more than one.
# What files of a batch keep to themselves must differ in name.
function(sg_compile_fast target)
  set_target_properties(${target} PROPERTIES
    UNITY_BUILD ${SHARDGRAD_UNITY} UNITY_BUILD_BATCH_SIZE 5)
  target_compile_options(${target} PRIVATE
    $<$<CONFIG:Release>:-O1> ${sg_sanitized_fast}
    # GCC would look for garbage several times; a batch makes little, and takes under 1 GB in all.
    $<$<CXX_COMPILER_ID:GNU>:--param=ggc-min-heapsize=1000000>)
endfunction()

# sg_precompile_headers(target owner [headers...]): half the time of compiling a file is reading what
# is below. The owner is the first target with the flags of a group; the others use what it made. A
# file still includes what it uses: -DCMAKE_DISABLE_PRECOMPILE_HEADERS=ON builds without.
function(sg_precompile_headers target owner)
  if(TARGET ${owner} AND NOT target STREQUAL owner)
    target_precompile_headers(${target} REUSE_FROM ${owner})
  else()
    target_precompile_headers(${target} PRIVATE <fmt/format.h> <algorithm> <array> <atomic> <chrono>
      <condition_variable> <cstring> <functional> <map> <memory> <mutex> <optional> <span> <string>
      <string_view> <thread> <utility> <vector> ${ARGN})
  endif()
endfunction()

# <room>/kernels/isa/*.cpp is compiled once for each of these, in namespace sg::kernels::SG_ISA; the
# rest of the program is plain code for the oldest processor, and isa.h chooses at run time.
# They are kernels in every build type: at -O1 nothing vectorizes, and inline functions of the
# standard library would be left out of line in AVX code, where the linker may pick them for all.
# SHARDGRAD_ARCH, and other processors, have kernels of one kind.
if(SHARDGRAD_ARCH)
  set(sg_isa_x86 0)
  set(sg_isas generic)
  set(sg_isa_flags_generic -march=${SHARDGRAD_ARCH})
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND CMAKE_SIZEOF_VOID_P EQUAL 8)
  set(sg_isa_x86 1)
  set(sg_isas v2 v3 v4)
  set(sg_isa_flags_v2 -march=x86-64-v2 -mtune=generic)
  set(sg_isa_flags_v3 -march=x86-64-v3 -mtune=haswell)
  # Both compilers otherwise keep to 256 bits on the first AVX-512 processors.
  set(sg_isa_flags_v4 -march=x86-64-v4 -mtune=icelake-server -mprefer-vector-width=512)
else()
  set(sg_isa_x86 0)
  set(sg_isas generic)
  set(sg_isa_flags_generic "")
endif()
set(sg_isa_optimize $<IF:$<CONFIG:Release>,-O3,-O2>)

function(sg_isa_flags target isa)
  sg_compile_flags(${target})
  # -Wno-psabi: vector arguments never leave a file, so their calling convention is no concern.
  # -Wno-pass-failed: clang warns of every simd loop that it leaves scalar for an older processor.
  target_compile_options(${target} PRIVATE
    ${sg_isa_optimize} ${sg_isa_flags_${isa}} -Wno-psabi
    $<$<CXX_COMPILER_ID:Clang,AppleClang>:-Wno-pass-failed>)
  target_compile_definitions(${target} PRIVATE SG_ISA=${isa})
endfunction()

# Finds what the library, the programs and the tests need. A missing part is an error that names
# the Debian package, unless the part is AUTO.
set(sg_found "")  # "name|what" lines for the configure summary

function(sg_note name what)
  set(sg_found "${sg_found};${name}|${what}" PARENT_SCOPE)
endfunction()

macro(sg_require package target debian for)
  find_package(${package} QUIET CONFIG)
  if(NOT TARGET ${target})
    message(FATAL_ERROR "${package} is missing, and ${for} needs it.\n"
      "Debian and Ubuntu: apt-get install ${debian}\n"
      "Installed elsewhere: set CMAKE_PREFIX_PATH or ${package}_DIR.")
  endif()
  sg_note(${package} "${${package}_VERSION}")
endmacro()

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
sg_require(fmt fmt::fmt libfmt-dev "every room")
sg_require(nlohmann_json nlohmann_json::nlohmann_json nlohmann-json3-dev "reading and writing JSON")
if(SHARDGRAD_EXAMPLES OR SHARDGRAD_TESTS)
  sg_require(CLI11 CLI11::CLI11 libcli11-dev "the example programs (SHARDGRAD_EXAMPLES)")
endif()
if(SHARDGRAD_TESTS)
  sg_require(GTest GTest::gtest_main libgtest-dev "SHARDGRAD_TESTS")
endif()
if(SHARDGRAD_BENCH)
  find_package(benchmark QUIET CONFIG)
  if(TARGET benchmark::benchmark)
    sg_note(benchmark "${benchmark_VERSION}")
  else()
    sg_note(benchmark "missing (libbenchmark-dev): no microbenchmarks")
  endif()
endif()

set(sg_openmp 0)
if(SHARDGRAD_OPENMP STREQUAL "OFF")
  sg_note(OpenMP "off: one compute thread a rank")
else()
  find_package(OpenMP QUIET COMPONENTS CXX)
  if(OpenMP_CXX_FOUND)
    set(sg_openmp 1)
    sg_note(OpenMP "${OpenMP_CXX_VERSION}")
  elseif(SHARDGRAD_OPENMP STREQUAL "ON")
    message(FATAL_ERROR "SHARDGRAD_OPENMP is ON, but ${CMAKE_CXX_COMPILER} finds no OpenMP.\n"
      "Debian and Ubuntu: g++ has it built in; for clang++ apt-get install libomp-dev")
  else()
    sg_note(OpenMP "missing (clang++: libomp-dev): one compute thread a rank")
  endif()
endif()

set(sg_onednn 0)
if(SHARDGRAD_ONEDNN STREQUAL "OFF")
  sg_note(oneDNN "off: portable kernels")
else()
  find_package(DNNL MODULE QUIET)
  if(DNNL_FOUND)
    set(sg_onednn 1)
    sg_note(oneDNN "${DNNL_VERSION} (threads: ${DNNL_THREADING})")
    if(NOT DNNL_THREADING MATCHES "^(OMP|SEQ)$")
      message(WARNING "This oneDNN runs its own ${DNNL_THREADING} threads, whatever --threads says; "
        "one built for OpenMP keeps to it (Debian's libdnnl-dev is).")
    endif()
  elseif(SHARDGRAD_ONEDNN STREQUAL "ON")
    message(FATAL_ERROR "SHARDGRAD_ONEDNN is ON, but oneDNN is missing.\n"
      "Debian and Ubuntu: apt-get install libdnnl-dev\n"
      "Installed elsewhere: set DNNL_ROOT to its prefix.")
  else()
    sg_note(oneDNN "missing (libdnnl-dev): portable kernels")
  endif()
endif()

# Which room uses what. The rooms' own edges are in the root CMakeLists.txt.
function(sg_link_dependencies)
  sg_room_uses(core PUBLIC fmt::fmt Threads::Threads)
  if(sg_openmp)
    sg_room_uses(core PUBLIC OpenMP::OpenMP_CXX)  # headers hold parallel loops
  endif()
  if(sg_onednn)
    sg_room_uses(core PRIVATE DNNL::dnnl)
  endif()
  sg_room_uses(nn PRIVATE nlohmann_json::nlohmann_json)
  sg_room_uses(dist PRIVATE nlohmann_json::nlohmann_json)
endfunction()

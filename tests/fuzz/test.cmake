# The store's fuzzer; store_fuzz.cpp says how to run it. It compiles the store's sources itself: the
# sanitizers are to see into them, whatever the library is built with.
if(SHARDGRAD_FUZZ AND NOT (sg_gloo AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang"))
  message(FATAL_ERROR "SHARDGRAD_FUZZ needs libFuzzer, which clang has (set CMAKE_CXX_COMPILER to "
    "clang++; Debian and Ubuntu: apt-get install clang libclang-rt-14-dev), and Gloo and OpenSSL.")
endif()
if(sg_gloo)
  set(corpus "")
  set(store "${PROJECT_SOURCE_DIR}/dist/processes")
  add_executable(store_fuzz "${CMAKE_CURRENT_LIST_DIR}/store_fuzz.cpp"
    "${store}/store_protocol.cpp" "${store}/store_proof.cpp" "${store}/store_session.cpp"
    "${store}/store_job.cpp")
  sg_compile_flags(store_fuzz)
  sg_compile_fast(store_fuzz)
  set_target_properties(store_fuzz PROPERTIES UNITY_BUILD OFF)  # the library's files are none of a batch
  target_include_directories(store_fuzz PRIVATE "${PROJECT_SOURCE_DIR}")
  target_link_libraries(store_fuzz PRIVATE fmt::fmt OpenSSL::Crypto Threads::Threads)
  if(SHARDGRAD_FUZZ)
    set(flags -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
    target_compile_options(store_fuzz PRIVATE ${flags})
    target_link_options(store_fuzz PRIVATE ${flags})
    set(corpus "${CMAKE_CURRENT_BINARY_DIR}/fuzz_corpus")
    file(MAKE_DIRECTORY "${corpus}")
    set(arguments -max_total_time=5 -max_len=4096 "${corpus}")
  else()
    target_sources(store_fuzz PRIVATE "${CMAKE_CURRENT_LIST_DIR}/driver.cpp")
    set(arguments 5)
  endif()
  add_test(NAME fuzz.store COMMAND store_fuzz ${arguments})
  set_tests_properties(fuzz.store PROPERTIES TIMEOUT 60 LABELS fuzz
    ENVIRONMENT "SHARDGRAD_FUZZ_SEEDS=${corpus}" WORKING_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
endif()

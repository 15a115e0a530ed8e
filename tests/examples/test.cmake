# Programs whose ranks do not have equally much to do, or are not ready for a stop signal at the
# same time; faults_test.cpp runs them.
if(TARGET examples_test)
  foreach(program uneven_data late_for_signals)
    add_executable(${program} "${CMAKE_CURRENT_LIST_DIR}/${program}.cc")
    sg_compile_flags(${program})
    sg_compile_fast(${program})
    target_link_libraries(${program} PRIVATE sg_example_common)
    add_dependencies(examples_test ${program})
  endforeach()
endif()

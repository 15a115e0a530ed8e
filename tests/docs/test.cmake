# Programs that the pages show whole, and the library with the plan of docs/extending.md added to its table.
add_executable(first_program "${CMAKE_CURRENT_LIST_DIR}/first_program.cc")
target_link_libraries(first_program PRIVATE sg_all)
add_dependencies(docs_test first_program)  # pages_test.cpp runs it

# A definition in the program comes before the library's: the same table with one more row.
set(table "${PROJECT_SOURCE_DIR}/dist/plan.cpp")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS
  "${table}" "${CMAKE_CURRENT_LIST_DIR}/new_plan.txt")
file(READ "${table}" text)
file(READ "${CMAKE_CURRENT_LIST_DIR}/new_plan.txt" row)
string(REGEX MATCH "\n    {\"zero3\"[^\n]*\n" last_row "${text}")
if(NOT last_row)
  message(FATAL_ERROR "tests/docs/test.cmake finds no row zero3 in ${table}")
endif()
string(REPLACE "${last_row}" "${last_row}${row}" text "${text}")
file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/docs/plan.cpp" CONTENT "${text}" @ONLY)
add_executable(new_plan_test "${CMAKE_CURRENT_LIST_DIR}/new_plan.cc"
  "${CMAKE_CURRENT_BINARY_DIR}/docs/plan.cpp")
sg_compile_flags(new_plan_test)
target_link_libraries(new_plan_test PRIVATE sg_all sg_test_support GTest::gtest_main)
gtest_discover_tests(new_plan_test TEST_PREFIX docs. DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 120
  PROPERTIES TIMEOUT 300 LABELS docs)

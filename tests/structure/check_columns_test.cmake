# Plants lines in an invented tree and asks check_columns.cmake about it: one of 100 columns must
# pass, one of 101 must fail and be named, in every kind of file.
#   cmake -DWORK_DIR= -P check_columns_test.cmake
cmake_minimum_required(VERSION 3.25)
include("${CMAKE_CURRENT_LIST_DIR}/support.cmake")

function(expect_columns file columns allowed)
  string(REPEAT "x" ${columns} line)
  expect_check(check_columns.cmake "a line of ${columns} columns in ${file}" "${file}"
               "// a[0]; a list\n\n${line}\n" ${allowed} "${file}:3: ${columns} columns")
endfunction()

foreach(file IN ITEMS core/a.h core/cuda/a.cu dist/comm/a.cpp tests/docs/a.cc)
  expect_columns("${file}" 100 TRUE)
  expect_columns("${file}" 101 FALSE)
endforeach()

# Plants lines in an invented tree and asks check_columns.cmake about it: one of 100 columns must
# pass, one of 101 must fail and be named, in every kind of file.
#   cmake -DWORK_DIR= -P check_columns_test.cmake
cmake_minimum_required(VERSION 3.25)

function(expect_columns file columns allowed)
  set(tree "${WORK_DIR}/columns")
  file(REMOVE_RECURSE "${tree}")
  string(REPEAT "x" ${columns} line)
  file(WRITE "${tree}/${file}" "// a[0]; a list\n\n${line}\n")
  execute_process(
    COMMAND ${CMAKE_COMMAND} "-DROOT=${tree}" -P "${CMAKE_CURRENT_LIST_DIR}/check_columns.cmake"
    RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(allowed AND NOT result EQUAL 0)
    message(SEND_ERROR "${columns} columns in ${file} are allowed, but:\n${out}")
  elseif(NOT allowed AND (result EQUAL 0 OR NOT out MATCHES "${file}:3: ${columns} columns"))
    message(SEND_ERROR "${columns} columns in ${file} were not reported:\n${out}")
  endif()
endfunction()

foreach(file IN ITEMS core/a.h core/cuda/a.cu dist/comm/a.cpp tests/docs/a.cc)
  expect_columns("${file}" 100 TRUE)
  expect_columns("${file}" 101 FALSE)
endforeach()

# Configures the project with ARGS; passes if it ends as WORKS says and prints what TEXT matches.
#   cmake -DSOURCE_DIR= -DWORK_DIR= -DARGS= -DWORKS=TRUE|FALSE -DTEXT=regex -P expect.cmake
cmake_minimum_required(VERSION 3.25)
file(REMOVE_RECURSE "${WORK_DIR}")
execute_process(
  COMMAND ${CMAKE_COMMAND} -S "${SOURCE_DIR}" -B "${WORK_DIR}" -DSHARDGRAD_TESTS=OFF
    -DSHARDGRAD_CLI=OFF -DSHARDGRAD_EXAMPLES=OFF -DSHARDGRAD_BENCH=OFF ${ARGS}
  RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
message("${out}")
if(WORKS AND NOT result EQUAL 0)
  message(FATAL_ERROR "configuring with ${ARGS} failed")
elseif(NOT WORKS AND result EQUAL 0)
  message(FATAL_ERROR "configuring with ${ARGS} did not fail")
elseif(NOT out MATCHES "${TEXT}")
  message(FATAL_ERROR "nothing of that matches: ${TEXT}")
endif()

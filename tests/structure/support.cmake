# What the checks of the tree, and the tests of those checks, end with.

# `checked` files of a kind were looked at, the rest of the arguments are what is wrong with them.
function(end_check checked kind title fine)
  if(checked EQUAL 0)
    message(FATAL_ERROR "no ${kind} below ${ROOT}")
  endif()
  if(ARGN)
    list(JOIN ARGN "\n" wrong)
    message(FATAL_ERROR "${title}:\n${wrong}")
  endif()
  message("${checked} files: ${fine}")
endfunction()

# Runs a check on a tree of one file with that text. It must pass, or fail with `complaint`.
function(expect_check script what file text allowed complaint)
  set(tree "${WORK_DIR}/${script}")
  file(REMOVE_RECURSE "${tree}")
  file(WRITE "${tree}/${file}" "${text}")
  execute_process(
    COMMAND ${CMAKE_COMMAND} "-DROOT=${tree}" -P "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${script}"
    RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(allowed AND NOT result EQUAL 0)
    message(SEND_ERROR "${what} is allowed, but:\n${out}")
  elseif(NOT allowed AND (result EQUAL 0 OR NOT out MATCHES "${complaint}"))
    message(SEND_ERROR "${what} was not reported:\n${out}")
  endif()
endfunction()

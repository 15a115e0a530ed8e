# Plants one include in each room of an invented tree and asks check_includes.cmake about it: every
# allowed arrow must pass, every other must fail and name the file.
#   cmake -DWORK_DIR= -P check_includes_test.cmake
cmake_minimum_required(VERSION 3.25)
set(rooms core autograd nn optim data dist)
set(allowed_arrows
  autograd:core nn:core nn:autograd optim:core data:core
  dist:core dist:autograd dist:nn dist:optim dist:data)

function(expect_arrow room include_line allowed)
  set(tree "${WORK_DIR}/tree")
  file(REMOVE_RECURSE "${tree}")
  file(WRITE "${tree}/${room}/sub/planted.cpp" "// a file\n  #  include ${include_line}  // why\n")
  execute_process(
    COMMAND ${CMAKE_COMMAND} "-DROOT=${tree}" -P "${CMAKE_CURRENT_LIST_DIR}/check_includes.cmake"
    RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  if(allowed AND NOT result EQUAL 0)
    message(SEND_ERROR "${room} including ${include_line} is allowed, but:\n${out}")
  elseif(NOT allowed AND (result EQUAL 0 OR NOT out MATCHES "${room}/sub/planted.cpp: includes"))
    message(SEND_ERROR "${room} including ${include_line} was not reported:\n${out}")
  endif()
endfunction()

foreach(from IN LISTS rooms)
  foreach(to IN LISTS rooms)
    set(allowed FALSE)
    if(from STREQUAL to OR "${from}:${to}" IN_LIST allowed_arrows)
      set(allowed TRUE)
    endif()
    expect_arrow(${from} "\"${to}/thing.h\"" ${allowed})
  endforeach()
endforeach()
expect_arrow(nn "<dist/unit.h>" FALSE)
expect_arrow(dist "<dist/unit.h>" TRUE)
expect_arrow(core "<vector>" TRUE)
expect_arrow(core "<fmt/core.h>" TRUE)
expect_arrow(dist "\"tests/support/thing.h\"" FALSE)
expect_arrow(dist "\"../core/tensor.h\"" FALSE)
expect_arrow(core "\"tensor.h\"" FALSE)

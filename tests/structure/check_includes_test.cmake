# Plants one include in each room of an invented tree and asks check_includes.cmake about it: every
# allowed arrow must pass, every other must fail and name the file.
#   cmake -DWORK_DIR= -P check_includes_test.cmake
cmake_minimum_required(VERSION 3.25)
include("${CMAKE_CURRENT_LIST_DIR}/support.cmake")
set(rooms core autograd nn optim data dist)
set(allowed_arrows
  autograd:core nn:core nn:autograd optim:core data:core
  dist:core dist:autograd dist:nn dist:optim dist:data)

function(expect_arrow room include_line allowed)
  expect_check(check_includes.cmake "${room} including ${include_line}" "${room}/sub/planted.cpp"
               "// a file\n  #  include ${include_line}  // why\n" ${allowed}
               "${room}/sub/planted.cpp: includes")
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

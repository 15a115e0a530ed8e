# No line of code is longer than 100 columns, .clang-format's limit: a longer one is either not
# formatted or a comment that the next formatting will break. (A column is a byte here.)
#   cmake -DROOT=<repository> -P check_columns.cmake
# Exit status 1, and one line for each line that is too long.
cmake_minimum_required(VERSION 3.25)
include("${CMAKE_CURRENT_LIST_DIR}/support.cmake")
set(wrong "")
set(checked 0)
string(REPEAT "[^\n]" 101 long)
foreach(folder IN ITEMS core autograd nn optim data dist examples bench tests)
  file(GLOB_RECURSE files RELATIVE "${ROOT}" "${ROOT}/${folder}/*.h" "${ROOT}/${folder}/*.cpp"
       "${ROOT}/${folder}/*.cc" "${ROOT}/${folder}/*.cu")
  foreach(file IN LISTS files)
    math(EXPR checked "${checked} + 1")
    file(READ "${ROOT}/${file}" text)
    # Brackets and semicolons would mean something in a list.
    string(REGEX REPLACE "[][;]" "_" text "${text}")
    if(NOT text MATCHES "${long}")
      continue()
    endif()
    string(REPLACE "\n" ";" lines "${text}")
    set(number 0)
    foreach(line IN LISTS lines)
      math(EXPR number "${number} + 1")
      string(LENGTH "${line}" columns)
      if(columns GREATER 100)
        list(APPEND wrong "${file}:${number}: ${columns} columns")
      endif()
    endforeach()
  endforeach()
endforeach()

end_check(${checked} "source file" "lines longer than 100 columns"
          "no line is longer than 100 columns" ${wrong})

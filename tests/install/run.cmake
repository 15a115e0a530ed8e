# Installs the build into a fresh prefix, moves the prefix (a package must not remember where it was
# made), and configures, builds and runs the outside project against it.
#   cmake -DBUILD_DIR= -DSOURCE_DIR= -DWORK_DIR= -DPROGRAMS= -DARGS= -P run.cmake
cmake_minimum_required(VERSION 3.25)
function(run what)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE out ERROR_VARIABLE out)
  message("${out}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "${what} failed (${result}): ${ARGN}")
  endif()
endfunction()

set(prefix "${WORK_DIR}/prefix")
file(REMOVE_RECURSE "${WORK_DIR}")
run("install" ${CMAKE_COMMAND} --install "${BUILD_DIR}" --prefix "${WORK_DIR}/first")
file(RENAME "${WORK_DIR}/first" "${prefix}")

file(GLOB_RECURSE package_files "${prefix}/*.cmake")
if(NOT package_files)
  message(FATAL_ERROR "no package files were installed below ${prefix}")
endif()
foreach(file IN LISTS package_files)
  file(READ "${file}" text)
  foreach(path "${SOURCE_DIR}" "${BUILD_DIR}" "${WORK_DIR}/first")
    string(FIND "${text}" "${path}/" at)
    if(NOT at EQUAL -1)
      message(FATAL_ERROR "${file} names ${path}: the package cannot be moved")
    endif()
  endforeach()
endforeach()

# A copy: nothing of this tree is beside it.
file(COPY "${SOURCE_DIR}/tests/install/" DESTINATION "${WORK_DIR}/outside")
run("configuring the outside project" ${CMAKE_COMMAND} -S "${WORK_DIR}/outside"
    -B "${WORK_DIR}/build" "-DCMAKE_PREFIX_PATH=${prefix}" ${ARGS})
run("building the outside project" ${CMAKE_COMMAND} --build "${WORK_DIR}/build")
foreach(program IN LISTS PROGRAMS)
  run("running the outside project" "${WORK_DIR}/build/${program}")
endforeach()

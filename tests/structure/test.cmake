# The rooms' law on includes, the kernels' on symbols, and the length of lines; each check is also
# shown to fail.
add_test(NAME structure.includes
  COMMAND ${CMAKE_COMMAND} "-DROOT=${PROJECT_SOURCE_DIR}"
    -P "${CMAKE_CURRENT_LIST_DIR}/check_includes.cmake")
add_test(NAME structure.wrong_includes_are_found
  COMMAND ${CMAKE_COMMAND} "-DWORK_DIR=${CMAKE_CURRENT_BINARY_DIR}/structure"
    -P "${CMAKE_CURRENT_LIST_DIR}/check_includes_test.cmake")
add_test(NAME structure.columns
  COMMAND ${CMAKE_COMMAND} "-DROOT=${PROJECT_SOURCE_DIR}"
    -P "${CMAKE_CURRENT_LIST_DIR}/check_columns.cmake")
add_test(NAME structure.long_lines_are_found
  COMMAND ${CMAKE_COMMAND} "-DWORK_DIR=${CMAKE_CURRENT_BINARY_DIR}/structure"
    -P "${CMAKE_CURRENT_LIST_DIR}/check_columns_test.cmake")
set(structure_tests structure.includes structure.wrong_includes_are_found structure.columns
  structure.long_lines_are_found)

# Sanitizers and -O0 keep inline functions out of line, in binaries that stay on their machine.
if(sg_isa_x86 AND NOT SHARDGRAD_SANITIZE AND NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  foreach(isa IN LISTS sg_isas)
    set(objects "")
    foreach(room IN LISTS sg_rooms)
      if(TARGET sg_${room}_isa_${isa})
        list(APPEND objects "$<TARGET_OBJECTS:sg_${room}_isa_${isa}>")
      endif()
    endforeach()
    if(objects)
      add_test(NAME structure.isa_symbols_${isa}
        COMMAND ${CMAKE_COMMAND} "-DNM=${CMAKE_NM}" -DISA=${isa} "-DOBJECTS=${objects}"
          -P "${CMAKE_CURRENT_LIST_DIR}/check_isa_symbols.cmake")
      list(APPEND structure_tests structure.isa_symbols_${isa})
    endif()
  endforeach()
  if(TARGET core_test)  # ordinary objects, full of shared inline functions
    add_test(NAME structure.shared_isa_symbols_are_found
      COMMAND ${CMAKE_COMMAND} "-DNM=${CMAKE_NM}" -DISA=v4
        "-DOBJECTS=$<FILTER:$<TARGET_OBJECTS:core_test>,EXCLUDE,/cmake_pch>"
        -P "${CMAKE_CURRENT_LIST_DIR}/check_isa_symbols.cmake")
    set_tests_properties(structure.shared_isa_symbols_are_found PROPERTIES
      PASS_REGULAR_EXPRESSION "functions compiled for v4 that other code may end up calling")
    list(APPEND structure_tests structure.shared_isa_symbols_are_found)
  endif()
endif()
set_tests_properties(${structure_tests} PROPERTIES TIMEOUT 60 LABELS structure)

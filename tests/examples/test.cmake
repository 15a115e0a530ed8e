# A program whose ranks do not have equally much to do; processes_test.cpp runs it.
if(TARGET examples_test)
  add_executable(uneven_data "${CMAKE_CURRENT_LIST_DIR}/uneven_data.cc")
  sg_compile_flags(uneven_data)
  sg_compile_fast(uneven_data)
  target_link_libraries(uneven_data PRIVATE sg_all)
  add_dependencies(examples_test uneven_data)
endif()

# OpenMP may grant fewer threads than a rank asks for: every op must give the same values then.
if(TARGET autograd_test AND sg_openmp)
  foreach(setting OMP_THREAD_LIMIT=1 OMP_DYNAMIC=true)
    string(REGEX REPLACE "=.*" "" name "${setting}")
    add_test(NAME autograd.${name}
      COMMAND autograd_test --gtest_filter=Golden*:Gradcheck*-*EveryCase*:*InReverse:*EverySecond*)
    set_tests_properties(autograd.${name} PROPERTIES ENVIRONMENT "${setting};OMP_NUM_THREADS=2"
      TIMEOUT 300 LABELS autograd)
  endforeach()
endif()

# A part that is ON and missing is an error that names the Debian package; AUTO goes on without it.
function(sg_configure_test name works text)
  add_test(NAME configure.${name}
    COMMAND ${CMAKE_COMMAND}
      "-DSOURCE_DIR=${PROJECT_SOURCE_DIR}" "-DWORK_DIR=${CMAKE_CURRENT_BINARY_DIR}/configure/${name}"
      "-DARGS=-G;${CMAKE_GENERATOR};-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER};${ARGN}"
      -DWORKS=${works} "-DTEXT=${text}"
      -P "${CMAKE_CURRENT_FUNCTION_LIST_DIR}/expect.cmake")
  set_tests_properties(configure.${name} PROPERTIES TIMEOUT 120 LABELS configure)
endfunction()

if(NOT SHARDGRAD_SANITIZE)  # once is enough
  sg_configure_test(onednn_on_and_missing FALSE "apt-get install libdnnl-dev"
    -DSHARDGRAD_ONEDNN=ON -DCMAKE_DISABLE_FIND_PACKAGE_DNNL=ON)
  sg_configure_test(openmp_on_and_missing FALSE "libomp-dev"
    -DSHARDGRAD_OPENMP=ON -DCMAKE_DISABLE_FIND_PACKAGE_OpenMP=ON)
  sg_configure_test(gloo_on_and_missing FALSE "apt-get install libgloo-dev"
    -DSHARDGRAD_GLOO=ON -DCMAKE_DISABLE_FIND_PACKAGE_OpenSSL=ON)
  sg_configure_test(gloo_off TRUE "Gloo +off" -DSHARDGRAD_GLOO=OFF)
  sg_configure_test(required_and_missing FALSE "apt-get install libfmt-dev"
    -DCMAKE_DISABLE_FIND_PACKAGE_fmt=ON)
  sg_configure_test(auto_and_missing TRUE "oneDNN +missing .libdnnl-dev.: portable kernels"
    -DSHARDGRAD_ONEDNN=AUTO -DCMAKE_DISABLE_FIND_PACKAGE_DNNL=ON)
  sg_configure_test(nccl_on_without_cuda FALSE "SHARDGRAD_NCCL is ON, but this build has no CUDA"
    -DSHARDGRAD_NCCL=ON -DSHARDGRAD_CUDA=OFF)
  sg_configure_test(nccl_off TRUE "NCCL +off: ranks share one GPU"
    -DSHARDGRAD_NCCL=OFF -DSHARDGRAD_CUDA=FAKE)
  sg_configure_test(part_with_a_wrong_value FALSE "SHARDGRAD_ONEDNN is 'maybe'. expected AUTO, ON or OFF"
    -DSHARDGRAD_ONEDNN=maybe)
endif()

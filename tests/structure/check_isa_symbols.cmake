# Kernels for newer processors must leave no shared inline function behind: of equal weak functions
# the linker keeps any one, and were that an AVX-512 one, every processor would run it (and an older
# one would die). So the only weak functions of an object compiled for an instruction set are those
# in its own namespace.
#   cmake -DNM=nm -DISA=v4 -DOBJECTS=a.o;b.o -P check_isa_symbols.cmake
cmake_minimum_required(VERSION 3.25)
set(shared "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND "${NM}" -C --defined-only "${object}"
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[0-9a-f]+ [Ww] [^\n]+" weak "${symbols}")
  get_filename_component(name "${object}" NAME)
  foreach(symbol IN LISTS weak)
    string(REGEX REPLACE "^[0-9a-f]+ [Ww] " "" symbol "${symbol}")
    if(NOT symbol MATCHES "sg::kernels::${ISA}::|\\(anonymous namespace\\)")
      list(APPEND shared "${name}: ${symbol}")
    endif()
  endforeach()
endforeach()
if(shared)
  list(JOIN shared "\n" shared)
  message(FATAL_ERROR "functions compiled for ${ISA} that other code may end up calling:\n${shared}")
endif()
message("${ISA}: no function outside sg::kernels::${ISA} is shared")

# oneDNN by its header and library: DNNL::dnnl, DNNL_VERSION, DNNL_THREADING (OMP, TBB, SEQ, ...).
# Not by its own dnnl-config.cmake: Debian's insists on OpenCL's development files, which
# libdnnl-dev only recommends and nothing here uses. DNNL_ROOT, dnnl_DIR and CMAKE_PREFIX_PATH are
# searched before the system.
set(sg_hints ${DNNL_ROOT} $ENV{DNNL_ROOT} $ENV{DNNLROOT})
if(dnnl_DIR)
  list(APPEND sg_hints "${dnnl_DIR}/../../.." "${dnnl_DIR}/../../../..")
endif()
find_path(DNNL_INCLUDE_DIR oneapi/dnnl/dnnl.hpp HINTS ${sg_hints} PATH_SUFFIXES include)
find_library(DNNL_LIBRARY dnnl HINTS ${sg_hints} PATH_SUFFIXES lib lib64)
mark_as_advanced(DNNL_INCLUDE_DIR DNNL_LIBRARY)

set(DNNL_VERSION "")
foreach(header dnnl_version.h dnnl_version_hash.h)  # 2.x and 3.x keep the numbers apart or not
  if(DNNL_INCLUDE_DIR AND EXISTS "${DNNL_INCLUDE_DIR}/oneapi/dnnl/${header}")
    file(STRINGS "${DNNL_INCLUDE_DIR}/oneapi/dnnl/${header}" lines
         REGEX "#define DNNL_VERSION_(MAJOR|MINOR|PATCH) +[0-9]+")
    foreach(part MAJOR MINOR PATCH)
      if("${lines}" MATCHES "DNNL_VERSION_${part} +([0-9]+)")
        set(DNNL_VERSION_${part} "${CMAKE_MATCH_1}")
      endif()
    endforeach()
  endif()
endforeach()
if(DEFINED DNNL_VERSION_MAJOR)
  set(DNNL_VERSION "${DNNL_VERSION_MAJOR}.${DNNL_VERSION_MINOR}.${DNNL_VERSION_PATCH}")
endif()

set(DNNL_THREADING "")
if(DNNL_INCLUDE_DIR AND EXISTS "${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_config.h")
  file(STRINGS "${DNNL_INCLUDE_DIR}/oneapi/dnnl/dnnl_config.h" lines
       REGEX "#define DNNL_CPU_THREADING_RUNTIME +DNNL_RUNTIME_")
  if("${lines}" MATCHES "DNNL_RUNTIME_([A-Z]+)")
    set(DNNL_THREADING "${CMAKE_MATCH_1}")
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(DNNL
  REQUIRED_VARS DNNL_LIBRARY DNNL_INCLUDE_DIR DNNL_VERSION
  VERSION_VAR DNNL_VERSION)

if(DNNL_FOUND AND NOT TARGET DNNL::dnnl)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES
    IMPORTED_LOCATION "${DNNL_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${DNNL_INCLUDE_DIR}")
endif()

#include "dist/comm/nccl_library.h"

#include <dlfcn.h>

#include <string>

#include "core/check.h"

namespace sg::dist {
namespace {

#if defined(SG_FAKE_NCCL)

NcclLibrary load() {
  NcclLibrary functions;
#define SG_NCCL_FIND(name) functions.name = &nccl##name;
  SG_NCCL_FUNCTIONS(SG_NCCL_FIND)
#undef SG_NCCL_FIND
  return functions;
}

#else

NcclLibrary load() {
  void* handle = nullptr;
  std::string why;
  for (const char* name : {"libnccl.so.2", "libnccl.so"}) {
    handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    if (why.empty()) why = dlerror();
  }
  SG_CHECK(handle != nullptr,
           "[nccl] NCCL, which connects GPUs, cannot be loaded: {}; install libnccl2 or put its "
           "folder on LD_LIBRARY_PATH",
           why);
  NcclLibrary functions;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(handle, name));
    SG_CHECK(function != nullptr,
             "[nccl] the NCCL that was loaded has no {}; install 2.18 or later", name);
  };
#define SG_NCCL_FIND(name) find(functions.name, "nccl" #name);
  SG_NCCL_FUNCTIONS(SG_NCCL_FIND)
#undef SG_NCCL_FIND
  int version = 0;
  SG_CHECK(functions.GetVersion(&version) == ncclSuccess && version >= kLeastNccl,
           "[nccl] the NCCL that was loaded is {}.{}.{}; install 2.18 or later", version / 10000,
           version / 100 % 100, version % 100);
  return functions;
}

#endif

}  // namespace

const NcclLibrary& nccl() {
  static const NcclLibrary loaded = load();
  return loaded;
}

}  // namespace sg::dist

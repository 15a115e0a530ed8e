// What a fuzzer of the store runs, and what it starts from.
#pragma once

#include <string>
#include <vector>

#include "dist/processes/store_protocol.h"

namespace sg::dist {

/// Aborts if the store does what it must not with this input.
void fuzz_store(store::Bytes in);
/// Valid inputs that reach everything.
std::vector<std::string> store_seeds();

}  // namespace sg::dist

#pragma once

#include "autograd/ops.h"
#include "core/rng.h"
#include "nn/module.h"

namespace sg::nn {

/// In training, zeroes elements with probability p and scales the rest by 1 / (1 - p) (Srivastava
/// et al., 2014). The mask is a function of (seed, step, position in the global batch, the module's
/// full name, element), so it is the same for any number of ranks. Two places of a model need two
/// Dropouts: one that is used twice in a forward draws one mask.
class Dropout : public Module {
 public:
  /// `site` keys the mask of a Dropout that no module has as a child; without one it is refused in
  /// training.
  explicit Dropout(double p = 0.5, std::string site = {}) : p(p), site(std::move(site)) {
    SG_CHECK(p >= 0 && p <= 1, "[Dropout] p must be within [0, 1], got {}", p);
  }
  Var forward(const Var& x) override {
    if (!is_training() || p == 0) return x;
    const std::string& key = site.empty() ? name() : site;
    SG_CHECK(!key.empty(),
             "[Dropout] has no name to key its mask by: make it a child, child(\"drop\", "
             "nn::Dropout({0})), or give it one, nn::Dropout({0}, \"drop\")",
             p);
    return dropout(x, p, name_key(key));
  }

  const double p;
  const std::string site;
};

}  // namespace sg::nn

// ZeRO-3's parameter: a Source that gathers its unit whenever somebody wants to read it. Autograd
// sees only the Source; what was gathered for forward is not kept for backward, as a saved view of
// it is the recipe, not the bytes.
#pragma once

#include "autograd/source.h"
#include "dist/prefetch.h"
#include "dist/unit.h"

namespace sg::dist {

class ShardedSource final : public Source {
 public:
  ShardedSource(Unit& unit, Prefetcher& prefetcher)
      : unit_(&unit), prefetcher_(&prefetcher), name_("unit " + unit.name) {}
  std::shared_ptr<Storage> get() override {
    SG_CHECK(unit_ != nullptr,
             "[engine] {} was sharded by an engine that is gone; save_weights() before it ends",
             name_);
    return prefetcher_->use(unit_->index);
  }
  /// The shard's: it changes with every step.
  std::uint64_t version() const override {
    return unit_ != nullptr ? unit_->version : last_version_;
  }
  std::string name() const override { return name_; }

  /// The engine ends. Parameters and graphs may live on and hold this source.
  void close() {
    last_version_ = version();
    unit_ = nullptr;
  }

 private:
  Unit* unit_;
  Prefetcher* prefetcher_;
  std::string name_;
  std::uint64_t last_version_ = 0;
};

}  // namespace sg::dist

// ZeRO-3's parameter: a Source that gathers its unit whenever somebody wants to read it. Autograd sees only the Source;
// what was gathered for forward is not kept for backward, as a saved view of it is the recipe, not the bytes.
#pragma once

#include "autograd/source.h"
#include "dist/prefetch.h"
#include "dist/unit.h"

namespace sg::dist {

class ShardedSource final : public Source {
 public:
  ShardedSource(Unit& unit, Prefetcher& prefetcher) : unit_(unit), prefetcher_(prefetcher) {}
  void begin() override { prefetcher_.begin(unit_.index); }
  std::shared_ptr<Storage> get() override { return prefetcher_.use(unit_.index); }
  /// The shard's: it changes with every step.
  std::uint64_t version() const override { return unit_.version; }
  std::string name() const override { return "unit " + unit_.name; }

 private:
  Unit& unit_;
  Prefetcher& prefetcher_;
};

}  // namespace sg::dist

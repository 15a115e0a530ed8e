// Test accuracy, computed by all ranks together.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "dist/engine.h"

namespace sg::cifar {

struct Accuracy {
  std::vector<std::string> classes;
  std::vector<std::int64_t> correct, images;  ///< by class

  double overall() const;
  /// Of one class; 0 if it has no image.
  double of(std::size_t label) const;
  /// Lines for people; without `by_class` only the first.
  std::string text(bool by_class) const;
};

/// Every image of `set` counts once, whatever the number of ranks. Collective.
Accuracy evaluate(dist::Engine& engine, const data::DatasetPtr& set, DType dtype);

}  // namespace sg::cifar

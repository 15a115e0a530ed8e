// Golden values from PyTorch: the cases of tests/golden/data/ops.json.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace sg::test {

struct GoldenCase {
  std::string op;
  nlohmann::json args;
  std::vector<Tensor> inputs;  ///< f64, exact in bf16
  nlohmann::json extra;       ///< indices, a condition, class probabilities: {shape, data}, or null
  Tensor output;              ///< f64
  Tensor seed;                ///< gradient of the output
  std::vector<Tensor> grads;  ///< of the inputs
  std::string text() const { return op + " " + args.dump(); }
};

std::vector<GoldenCase> load_golden(const std::string& file);
/// {shape, data} as a tensor.
Tensor tensor_of(const nlohmann::json& packed, DType dtype);
Dims dims_of(const nlohmann::json& list);

}  // namespace sg::test

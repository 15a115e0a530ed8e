#include "tests/support/golden.h"

#include <fstream>

namespace sg::test {

Dims dims_of(const nlohmann::json& list) {
  Dims dims;
  for (const auto& value : list) dims.push_back(value.get<std::int64_t>());
  return dims;
}

Tensor tensor_of(const nlohmann::json& packed, DType dtype) {
  return Tensor::from(packed.at("data").get<std::vector<double>>(), dims_of(packed.at("shape")))
      .to(dtype);
}

std::vector<GoldenCase> load_golden(const std::string& file) {
  const std::string path = std::string(SG_TEST_DATA) + "/" + file;
  std::ifstream in(path);
  SG_CHECK(in.good(), "[test] cannot read {}", path);
  std::vector<GoldenCase> cases;
  for (const auto& c : nlohmann::json::parse(in)) {
    GoldenCase g;
    g.op = c.at("op").get<std::string>();
    g.args = c.at("args");
    for (const auto& x : c.at("inputs")) g.inputs.push_back(tensor_of(x, DType::f64));
    g.extra = c.at("extra");
    g.output = tensor_of(c.at("output"), DType::f64);
    g.seed = tensor_of(c.at("seed"), DType::f64);
    for (const auto& x : c.at("grads")) g.grads.push_back(tensor_of(x, DType::f64));
    cases.push_back(std::move(g));
  }
  return cases;
}

}  // namespace sg::test

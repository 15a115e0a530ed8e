#include "tests/autograd/golden_ops.h"

#include <fstream>
#include <functional>
#include <map>
#include <regex>
#include <utility>

#include "autograd/elementwise.h"
#include "autograd/ops.h"

namespace sg::test {
namespace {

using Json = nlohmann::json;
using Inputs = std::span<const Var>;
using Run = std::function<Var(Inputs, const Json&, const Tensor& extra)>;

Reduction reduction_of(const Json& a) {
  const auto name = a.at("reduction").get<std::string>();
  return name == "none" ? Reduction::none : name == "sum" ? Reduction::sum : Reduction::mean;
}

// The functions of autograd/ops.h by their names, in the place of the lists' own nodes.
void add_named_elementwise(std::map<std::string, Run>& t) {
  const std::pair<const char*, Var (*)(const Var&)> unary[] = {
      {"neg", neg},         {"abs", abs},     {"exp", exp},           {"log", log},
      {"sqrt", sqrt},       {"rsqrt", rsqrt}, {"square", square},     {"reciprocal", reciprocal},
      {"sin", sin},         {"cos", cos},     {"tanh", tanh},         {"erf", erf},
      {"sigmoid", sigmoid}, {"relu", relu},   {"gelu", gelu},         {"gelu_tanh", gelu_tanh},
      {"silu", silu},       {"elu", elu},     {"softplus", softplus},
  };
  for (const auto& [name, f] : unary)
    t.at(name) = [f = f](Inputs x, const Json&, const Tensor&) { return f(x[0]); };
  const std::pair<const char*, Var (*)(const Var&, const Var&)> binary[] = {
      {"add", add}, {"sub", sub},         {"mul", mul},
      {"div", div}, {"maximum", maximum}, {"minimum", minimum},
  };
  for (const auto& [name, f] : binary)
    t.at(name) = [f = f](Inputs x, const Json&, const Tensor&) { return f(x[0], x[1]); };
  const std::pair<const char*, Var (*)(const Var&, double)> with_number[] = {
      {"leaky_relu", leaky_relu}, {"pow", pow}, {"add_scalar", add}, {"mul_scalar", mul}};
  for (const auto& [name, f] : with_number)
    t.at(name) = [f = f](Inputs x, const Json& a, const Tensor&) { return f(x[0], a.at("a")); };
  t.at("clamp") = [](Inputs x, const Json& a, const Tensor&) {
    return clamp(x[0], a.at("a"), a.at("b"));
  };
}

std::map<std::string, Run> make_table() {
  std::map<std::string, Run> t;
  // Elementwise ops by the lists themselves.
  ew::for_each(ew::Unary{}, [&]<class Op>(Op) {
    t[Op::name] = [](Inputs x, const Json& a, const Tensor&) {
      return elementwise<Op>(x[0], a.value("a", 0.0), a.value("b", 0.0));
    };
  });
  ew::for_each(ew::Binary{}, [&]<class Op>(Op) {
    t[Op::name] = [](Inputs x, const Json&, const Tensor&) { return elementwise<Op>(x[0], x[1]); };
  });
  add_named_elementwise(t);
  t["where"] = [](Inputs x, const Json&, const Tensor& extra) { return where(extra, x[0], x[1]); };

  const auto reduction = [&](const char* name, Var (*f)(const Var&, const Dims&, bool)) {
    t[name] = [f](Inputs x, const Json& a, const Tensor&) {
      return f(x[0], dims_of(a.at("dims")), a.at("keep"));
    };
  };
  reduction("sum", sum);
  reduction("mean", mean);
  reduction("amax", amax);
  reduction("amin", amin);
  t["var"] = [](Inputs x, const Json& a, const Tensor&) {
    return var(x[0], dims_of(a.at("dims")), a.at("correction"), a.at("keep"));
  };

  t["matmul"] = [](Inputs x, const Json&, const Tensor&) { return matmul(x[0], x[1]); };
  t["linear"] = [](Inputs x, const Json& a, const Tensor&) {
    return linear(x[0], x[1], x.size() > 2 ? x[2] : Var(), a.at("relu"));
  };

  t["reshape"] = [](Inputs x, const Json& a, const Tensor&) {
    return reshape(x[0], dims_of(a.at("shape")));
  };
  t["flatten"] = [](Inputs x, const Json& a, const Tensor&) {
    return flatten(x[0], a.at("start"));
  };
  t["transpose"] = [](Inputs x, const Json& a, const Tensor&) {
    return transpose(x[0], a.at("a"), a.at("b"));
  };
  t["permute"] = [](Inputs x, const Json& a, const Tensor&) {
    return permute(x[0], dims_of(a.at("order")));
  };
  t["expand"] = [](Inputs x, const Json& a, const Tensor&) {
    return expand(x[0], dims_of(a.at("shape")));
  };
  t["unsqueeze"] = [](Inputs x, const Json& a, const Tensor&) {
    return unsqueeze(x[0], a.at("dim"));
  };
  t["squeeze"] = [](Inputs x, const Json& a, const Tensor&) { return squeeze(x[0], a.at("dim")); };
  t["contiguous"] = [](Inputs x, const Json& a, const Tensor&) {
    return contiguous(a.contains("a") ? transpose(x[0], a.at("a"), a.at("b")) : x[0]);
  };
  t["cast"] = [](Inputs x, const Json& a, const Tensor&) {  // there and back
    return cast(cast(x[0], dtype_named(a.at("to"))), x[0].dtype());
  };
  t["slice"] = [](Inputs x, const Json& a, const Tensor&) {
    return slice(x[0], a.at("dim"), a.at("start"), a.at("length"), a.at("step"));
  };
  t["select"] = [](Inputs x, const Json& a, const Tensor&) {
    return select(x[0], a.at("dim"), a.at("index"));
  };
  t["cat"] = [](Inputs x, const Json& a, const Tensor&) { return cat(x, a.at("dim")); };
  t["stack"] = [](Inputs x, const Json& a, const Tensor&) { return stack(x, a.at("dim")); };
  t["pad"] = [](Inputs x, const Json& a, const Tensor&) {
    return pad(x[0], dims_of(a.at("widths")), a.at("value"));
  };

  t["softmax"] = [](Inputs x, const Json& a, const Tensor&) { return softmax(x[0], a.at("dim")); };
  t["log_softmax"] = [](Inputs x, const Json& a, const Tensor&) {
    return log_softmax(x[0], a.at("dim"));
  };
  t["layer_norm"] = [](Inputs x, const Json& a, const Tensor&) {
    return layer_norm(x[0], dims_of(a.at("normalized")), x.size() > 1 ? x[1] : Var(),
                      x.size() > 2 ? x[2] : Var());
  };
  t["embedding"] = [](Inputs x, const Json& a, const Tensor& extra) {
    return embedding(extra, x[0], a.at("padding"));
  };
  t["cross_entropy"] = [](Inputs x, const Json& a, const Tensor& extra) {
    return cross_entropy(
        x[0], extra,
        {.reduction = reduction_of(a), .label_smoothing = a.at("label_smoothing").get<double>()});
  };
  t["mse_loss"] = [](Inputs x, const Json& a, const Tensor&) {
    return mse_loss(x[0], x[1], reduction_of(a));
  };
  return t;
}

// Indices are i64, conditions u8, class probabilities as the inputs.
Tensor extra_of(const GoldenCase& c, const Var& like) {
  if (c.extra.is_null()) return {};
  const DType dtype = c.op == "where"           ? DType::u8
                      : c.args.contains("soft") ? like.dtype()
                                                : DType::i64;
  const Tensor extra = tensor_of(c.extra, dtype);
  const Device device = like.value().device();
  return device.is_meta() ? Tensor::empty(extra.shape(), dtype, device) : extra;
}

}  // namespace

std::set<std::string> public_functions(const std::string& header) {
  std::ifstream in(std::string(SG_SOURCE_DIR) + "/" + header);
  SG_CHECK(in.good(), "[test] cannot read {}", header);
  const std::regex declaration(R"(^(?:[\w:<>&*]+ )+(\w+)\((.*))");
  std::set<std::string> names;
  std::smatch match;
  for (std::string line; std::getline(in, line);) {
    if (!std::regex_search(line, match, declaration)) continue;
    const bool number = match[2].str().starts_with("const Var& a, double b)");
    names.insert(match[1].str() + (number ? "_scalar" : ""));
  }
  return names;
}

DType dtype_named(const std::string& name) {
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16})
    if (name == name_of(dtype)) return dtype;
  fail("[test] unknown dtype {}", name);
}

Var run_case(const GoldenCase& c, std::span<const Var> x) {
  static const std::map<std::string, Run> table = make_table();
  const auto it = table.find(c.op);
  SG_CHECK(it != table.end(), "[test] golden case of an unknown op {}", c.op);
  return it->second(x, c.args, extra_of(c, x[0]));
}

}  // namespace sg::test

#include "tests/autograd/golden_ops.h"

#include <functional>
#include <map>

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
    return cross_entropy(x[0], extra, reduction_of(a), -100, a.at("label_smoothing"));
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

Var run_case(const GoldenCase& c, std::span<const Var> x) {
  static const std::map<std::string, Run> table = make_table();
  const auto it = table.find(c.op);
  SG_CHECK(it != table.end(), "[test] golden case of an unknown op {}", c.op);
  return it->second(x, c.args, extra_of(c, x[0]));
}

}  // namespace sg::test

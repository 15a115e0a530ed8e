// Small networks, each with something that a plan could get wrong, and their data.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "core/rng.h"
#include "nn/nn.h"

namespace sg::dist {

/// Numbers in [-1, 1) by (stream, sample, element): the same however a batch is cut.
inline double sample_value(std::uint64_t stream, std::int64_t sample, std::int64_t element) {
  const auto words =
      philox(stream, static_cast<std::uint64_t>(sample), static_cast<std::uint64_t>(element));
  return 2 * uniform_double(words[0], words[1]) - 1;
}

/// Rows [first, first + count) of a stream, each of `shape`.
inline Tensor sample_rows(std::uint64_t stream, std::int64_t first, std::int64_t count,
                          const Shape& shape, DType dtype) {
  Shape full{count};
  for (const std::int64_t size : shape) full.push_back(size);
  const std::int64_t n = numel(shape);
  std::vector<double> values;
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t k = 0; k < n; ++k) values.push_back(sample_value(stream, first + i, k));
  return Tensor::from(values, full).to(dtype);
}

struct TestNet {
  std::string name;
  std::function<nn::ModulePtr()> make;
  Shape input;               ///< of one sample
  std::int64_t outputs = 3;  ///< of one sample
  bool indices = false;      ///< the input is of indices below 11
  bool batch_statistics =
      false;  ///< the mean over micro-batches is another function than the whole batch
  bool rough = false;  ///< has parameters in bf16

  /// Inputs and targets of samples [first, first + count) of a step.
  std::pair<Tensor, Tensor> batch(std::int64_t step, std::int64_t first, std::int64_t count,
                                  DType dtype) const {
    const auto stream = static_cast<std::uint64_t>(1000 + step);
    Tensor x = sample_rows(stream, first, count, input, indices ? DType::f64 : dtype);
    if (indices) {
      std::vector<std::int64_t> ids;
      for (const double v : x.to_doubles()) ids.push_back(static_cast<std::int64_t>((v + 1) * 5.5));
      x = Tensor::from(ids, x.shape());
    }
    return {x, sample_rows(stream + 500, first, count, {outputs}, dtype)};
  }
};

inline void PrintTo(const TestNet& net, std::ostream* out) { *out << net.name; }

/// y = x w^T + b by two tied layers around one of their own; the second is the transpose of an
/// embedding.
struct TiedEmbedding : nn::Module {
  nn::Embedding embed = child("embed", nn::Embedding(11, 6));
  nn::Linear fc = child("fc", nn::Linear(6, 6));
  nn::Parameter head = parameter("head", embed.weight);
  Var forward(const Var& ids) override { return linear(tanh(fc(mean(embed(ids), 1))), head); }
};

struct TiedLinears : nn::Module {
  nn::Linear first = child("first", nn::Linear(6, 6));
  nn::Linear middle = child("middle", nn::Linear(6, 6));
  nn::Linear last = child("last", nn::Linear(6, 6));
  TiedLinears() { last.weight.tie(first.weight); }
  Var forward(const Var& x) override { return last(tanh(middle(tanh(first(x))))); }
};

struct Frozen : nn::Module {
  nn::Linear before = child("before", nn::Linear(7, 9));
  nn::Linear one = child("one", nn::Linear(9, 8));
  nn::Linear between = child("between", nn::Linear(8, 6));
  nn::Linear two = child("two", nn::Linear(6, 3));
  Frozen() {
    before.requires_grad_(false);
    between.requires_grad_(false);
    two.bias.requires_grad_(false);
  }
  Var forward(const Var& x) override { return two(tanh(between(tanh(one(relu(before(x))))))); }
};

struct Unused : nn::Module {
  nn::Parameter bare = parameter("bare", {70}, nn::normal());
  nn::Linear one = child("one", nn::Linear(7, 5));
  nn::Linear never = child("never", nn::Linear(5, 30));
  nn::Parameter never_bias = never.bias;
  nn::Linear two = child("two", nn::Linear(5, 3));
  Var forward(const Var& x) override { return linear(tanh(one(x)), two.weight); }  // nor two.bias
};

struct ZeroSized : nn::Module {
  nn::Parameter used = parameter("used", {0, 4}, nn::normal());
  nn::Linear one = child("one", nn::Linear(5, 4));
  nn::Parameter unused = parameter("unused", {3, 0}, nn::normal());
  nn::Linear two = child("two", nn::Linear(4, 3));
  Var forward(const Var& x) override { return two(tanh(one(x))) + sum(used); }
};

/// One layer several times, with another between: its unit is read in several stretches.
struct Reused : nn::Module {
  nn::Linear a = child("a", nn::Linear(6, 6));
  nn::Linear b = child("b", nn::Linear(6, 6));
  Var forward(const Var& x) override { return a(tanh(b(tanh(a(tanh(a(x))))))) + a.bias; }
};

/// Fewer elements than ranks.
struct Scalar : nn::Module {
  nn::Parameter scale = parameter("scale", {}, nn::constant(0.5));
  Var forward(const Var& x) override { return x * scale; }
};

/// An op that reads three units at once, and saves views of gathered weights.
struct Views : nn::Module {
  nn::Linear a = child("a", nn::Linear(6, 5));
  nn::Linear b = child("b", nn::Linear(6, 5));
  nn::LayerNorm norm = child("norm", nn::LayerNorm(5));
  nn::Linear out = child("out", nn::Linear(5, 3));
  Var forward(const Var& x) override {
    const Var w = transpose(a.weight, 0, 1) * 0.5 + transpose(b.weight, 0, 1);
    const Var y = matmul(x, transpose(a.weight, 0, 1)) + matmul(x, w) + select(b.weight, 1, 2);
    return out(norm(y));
  }
};

/// Units of three dtypes.
struct MixedDtypes : nn::Module {
  nn::Linear narrow = child("narrow", nn::Linear(7, 6));
  nn::Linear half = child("half", nn::Linear(6, 6));
  nn::Linear wide = child("wide", nn::Linear(6, 5));
  nn::Linear out = child("out", nn::Linear(5, 3));
  MixedDtypes() {
    half.to(DType::bf16);
    wide.to(DType::f64);
  }
  Var forward(const Var& x) override {
    const Var y = tanh(half(cast(narrow(x), half.weight.dtype())));
    const Var z = tanh(wide(cast(y, wide.weight.dtype())));
    return out(cast(z, out.weight.dtype()));
  }
};

inline nn::Sequential checkpointed(int segments) {
  auto net =
      nn::sequential(nn::Linear(6, 10), nn::ReLU(), nn::Dropout(0.25), nn::Linear(10, 8),
                     nn::Tanh(), nn::Linear(8, 8), nn::Tanh(), nn::Dropout(0.5), nn::Linear(8, 3));
  net.checkpoint(segments);
  return net;
}

inline nn::Sequential small_convnet() {
  return nn::sequential(nn::Conv2d(2, 3, 3, {.padding = 1, .bias = false}), nn::BatchNorm2d(3),
                        nn::ReLU(), nn::MaxPool2d(2), nn::Dropout(0.3), nn::Conv2d(3, 5, 3),
                        nn::ReLU(), nn::Flatten(), nn::Linear(5, 3));
}

template <class M>
std::function<nn::ModulePtr()> maker() {
  return [] { return std::make_shared<M>(); };
}

inline const std::vector<TestNet>& test_nets() {
  static const std::vector<TestNet> nets = {
      {"mlp",
       [] {
         return nn::share(nn::sequential(nn::Linear(7, 13), nn::ReLU(), nn::Linear(13, 5, false),
                                         nn::Tanh(), nn::Linear(5, 3)));
       },
       {7}},
      {"convnet", [] { return nn::share(small_convnet()); }, {2, 6, 6}, 3, false, true},
      {"tied_embedding", maker<TiedEmbedding>(), {4}, 11, true},
      {"tied_linears", maker<TiedLinears>(), {6}, 6},
      {"frozen", maker<Frozen>(), {7}},
      {"unused", maker<Unused>(), {7}},
      {"zero_sized", maker<ZeroSized>(), {5}},
      {"reused", maker<Reused>(), {6}, 6},
      {"scalar", maker<Scalar>(), {3}},
      {"views", maker<Views>(), {6}},
      {"mixed_dtypes", maker<MixedDtypes>(), {7}, 3, false, false, true},
      {"checkpointed", [] { return nn::share(checkpointed(3)); }, {6}},
  };
  return nets;
}

inline const TestNet& test_net(const std::string& name) {
  for (const TestNet& net : test_nets())
    if (net.name == name) return net;
  fail("there is no test net {}", name);
}

}  // namespace sg::dist

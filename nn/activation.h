// Elementwise activations and softmax as modules, for nn::sequential; the functions are in
// autograd/ops.h, with edge cases and errors. Results have x's shape.
#pragma once

#include "autograd/ops.h"
#include "nn/module.h"

namespace sg::nn {

/// x as it is: a place that may hold a layer.
struct Identity : Module {
  Var forward(const Var& x) override { return x; }
};
/// max(x, 0).
struct ReLU : Module {
  Var forward(const Var& x) override { return relu(x); }
};
/// x sigmoid(x).
struct SiLU : Module {
  Var forward(const Var& x) override { return silu(x); }
};
/// The hyperbolic tangent.
struct Tanh : Module {
  Var forward(const Var& x) override { return tanh(x); }
};
/// 1 / (1 + e^-x).
struct Sigmoid : Module {
  Var forward(const Var& x) override { return sigmoid(x); }
};
/// x for x > 0, else e^x - 1.
struct ELU : Module {
  Var forward(const Var& x) override { return elu(x); }
};
/// log(1 + e^x); x itself above 20.
struct Softplus : Module {
  Var forward(const Var& x) override { return softplus(x); }
};

/// x Phi(x), exact, by erf, or its approximation by tanh.
struct GELU : Module {
  explicit GELU(bool approximate = false) : approximate(approximate) {}
  Var forward(const Var& x) override { return approximate ? gelu_tanh(x) : gelu(x); }
  const bool approximate;
};

/// x for x > 0, else slope x.
struct LeakyReLU : Module {
  explicit LeakyReLU(double slope = 0.01) : slope(slope) {}
  Var forward(const Var& x) override { return leaky_relu(x, slope); }
  const double slope;
};

/// exp(x) / sum(exp(x)) along a dimension.
struct Softmax : Module {
  explicit Softmax(std::int64_t dim) : dim(dim) {}
  Var forward(const Var& x) override { return softmax(x, dim); }
  const std::int64_t dim;
};

/// x - log(sum(exp(x))) along a dimension.
struct LogSoftmax : Module {
  explicit LogSoftmax(std::int64_t dim) : dim(dim) {}
  Var forward(const Var& x) override { return log_softmax(x, dim); }
  const std::int64_t dim;
};

}  // namespace sg::nn

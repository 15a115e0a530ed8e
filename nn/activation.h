// Elementwise activations and softmax as modules, for nn::sequential; the functions are in
// autograd/ops.h.
#pragma once

#include "autograd/ops.h"
#include "nn/module.h"

namespace sg::nn {

struct Identity : Module {
  Var forward(const Var& x) override { return x; }
};
struct ReLU : Module {
  Var forward(const Var& x) override { return relu(x); }
};
struct SiLU : Module {
  Var forward(const Var& x) override { return silu(x); }
};
struct Tanh : Module {
  Var forward(const Var& x) override { return tanh(x); }
};
struct Sigmoid : Module {
  Var forward(const Var& x) override { return sigmoid(x); }
};
struct ELU : Module {
  Var forward(const Var& x) override { return elu(x); }
};
struct Softplus : Module {
  Var forward(const Var& x) override { return softplus(x); }
};

/// Exact, by erf, or its approximation by tanh.
struct GELU : Module {
  explicit GELU(bool approximate = false) : approximate(approximate) {}
  Var forward(const Var& x) override { return approximate ? gelu_tanh(x) : gelu(x); }
  const bool approximate;
};

struct LeakyReLU : Module {
  explicit LeakyReLU(double slope = 0.01) : slope(slope) {}
  Var forward(const Var& x) override { return leaky_relu(x, slope); }
  const double slope;
};

struct Softmax : Module {
  explicit Softmax(std::int64_t dim) : dim(dim) {}
  Var forward(const Var& x) override { return softmax(x, dim); }
  const std::int64_t dim;
};

struct LogSoftmax : Module {
  explicit LogSoftmax(std::int64_t dim) : dim(dim) {}
  Var forward(const Var& x) override { return log_softmax(x, dim); }
  const std::int64_t dim;
};

}  // namespace sg::nn

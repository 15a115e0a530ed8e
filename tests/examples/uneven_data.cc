// A mistake that people make: every rank walks through its own share of the data, and the shares
// are not equally long.
#include <fmt/format.h>

#include <cstdio>

#include "dist/engine.h"
#include "dist/job.h"
#include "nn/nn.h"
#include "optim/sgd.h"

using namespace sg;

int main() {
  try {
    dist::Job job(3, {.threads = 1});
    job.run([](const Rank& rank) {
      auto engine =
          dist::initialize(nn::share(nn::Linear(4, 2)), optim::sgd({.lr = 0.1}), {.plan = "zero3"});
      const int batches = rank.index == 1 ? 5 : 8;
      for (int i = 0; i < batches; ++i) {
        const Var outputs = (*engine)(Tensor::full({2, 4}, i));
        engine->backward(nn::mse_loss(outputs, Tensor::zeros({2, 2})));
        engine->step();
      }
    });
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
  return 0;
}

// Two programs of somebody else's in one: y = 2 a - b by gradient descent (tensors, autograd, an
// optimizer), and a net on two ranks under ZeRO-3 (modules, data, engine), whose every byte is as
// predicted.
#include <cmath>
#include <cstdio>
#include <vector>

#include "autograd/ops.h"
#include "core/tensor.h"
#include "data/data.h"
#include "dist/dist.h"
#include "nn/nn.h"
#include "optim/adam.h"
#include "optim/sgd.h"

namespace {

bool fits_a_line() {
  const sg::Tensor x = sg::Tensor::from<float>({1, 0, 0, 1, 1, 1, 2, -1}, {4, 2});
  const sg::Tensor y = sg::Tensor::from<float>({2, -1, 1, 5}, {4, 1});
  const sg::Var weight(sg::Tensor::zeros({1, 2}), true);
  const sg::optim::OptimizerPtr optimizer = sg::optim::sgd({.lr = 0.1});
  for (int step = 1; step <= 200; ++step) {
    sg::mse_loss(sg::linear(x, weight), y).backward();
    optimizer->update({weight.value().data<float>(), 2}, {weight.grad().data<float>(), 2}, {},
                      optimizer->defaults(), {.step = step});
    weight.zero_grad();
  }
  const std::vector<double> w = weight.value().to_doubles();
  std::printf("weight %.4f %.4f\n", w[0], w[1]);
  return std::abs(w[0] - 2) < 1e-3 && std::abs(w[1] + 1) < 1e-3;
}

bool trains_on_two_ranks() {
  const auto set = sg::data::synthetic({.train = 128, .test = 10}).train;
  bool learns = false, as_predicted = false;
  sg::dist::launch_ranks(2, [&](sg::Rank& rank) {
    auto net = sg::nn::sequential(sg::nn::Flatten(), sg::nn::Linear(3072, 16), sg::nn::ReLU(),
                                  sg::nn::Linear(16, 10));
    auto engine = sg::dist::initialize(net, sg::optim::adam({.lr = 1e-3}), {.plan = "zero3"});
    sg::data::Loader loader(set, {.batch_size = 32});
    std::vector<double> losses;
    for (int epoch = 0; epoch < 5; ++epoch)
      for (auto [images, labels] : loader.epoch(epoch)) {
        engine->backward(sg::nn::cross_entropy((*engine)(images), labels));
        engine->step();
        losses.push_back(engine->loss());
      }
    const auto report = engine->report();
    if (rank.index != 0) return;
    learns = losses.back() < losses.front();
    as_predicted = report.matches();
    std::printf("loss %.3f, then %.3f\n%s", losses.front(), losses.back(), report.text().c_str());
  });
  return learns && as_predicted;
}

}  // namespace

int main() { return fits_a_line() && trains_on_two_ranks() ? 0 : 1; }

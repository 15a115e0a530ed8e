// Fits y = 2 a - b by gradient descent: tensors, autograd and an optimizer from the installed
// package.
#include <cstdio>
#include <vector>

#include "autograd/ops.h"
#include "core/tensor.h"
#include "data/synthetic.h"
#include "optim/sgd.h"

int main() {
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
  const auto images = sg::data::synthetic({.train = 20, .test = 10}).train->size();
  std::printf("weight %.4f %.4f, %d images\n", w[0], w[1], static_cast<int>(images));
  const bool fits = w[0] > 1.999 && w[0] < 2.001 && w[1] > -1.001 && w[1] < -0.999;
  return fits && images == 20 ? 0 : 1;
}

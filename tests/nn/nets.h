// The four example networks, as PyTorch's in bench/pytorch/nets.py: their names and order are
// compared.
#pragma once

#include "nn/nn.h"

namespace sg::nn {

inline Sequential tutorial_net() {
  return sequential(named("conv1", Conv2d(3, 6, 5)), ReLU(), MaxPool2d(2),
                    named("conv2", Conv2d(6, 16, 5)), ReLU(), MaxPool2d(2), Flatten(),
                    named("fc1", Linear(400, 120)), ReLU(), named("fc2", Linear(120, 84)), ReLU(),
                    named("fc3", Linear(84, 10)));
}

struct Mlp : Module {
  Linear fc1 = child("fc1", Linear(3072, 512));
  Linear fc2 = child("fc2", Linear(512, 512));
  Linear fc3 = child("fc3", Linear(512, 10));
  Var forward(const Var& x) override {
    return fc3(fc2.forward_relu(fc1.forward_relu(flatten(x, 1))));
  }
};

inline Sequential vgg_net() {
  Sequential net;
  const std::int64_t widths[] = {3, 32, 32, 64, 64, 128, 128};
  for (int i = 0; i < 6; ++i) {
    net.append(fmt::format("conv{}", i + 1), Conv2d(widths[i], widths[i + 1], 3, {.padding = 1}));
    net.append(ReLU());
    if (i % 2 == 1) net.append(MaxPool2d(2));
  }
  net.append(Flatten());
  net.append("fc1", Linear(2048, 256));
  net.append(ReLU());
  net.append("fc2", Linear(256, 10));
  return net;
}

struct BasicBlock : Module {
  BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride)
      : conv1(child("conv1", Conv2d(in, out, 3, {.stride = stride, .padding = 1, .bias = false}))),
        bn1(child("bn1", BatchNorm2d(out))),
        conv2(child("conv2", Conv2d(out, out, 3, {.padding = 1, .bias = false}))),
        bn2(child("bn2", BatchNorm2d(out))) {
    if (in == out) return;
    downsample.append(Conv2d(in, out, 1, {.stride = stride, .bias = false}));
    downsample.append(BatchNorm2d(out));
    add_child("downsample", downsample);
  }
  Var forward(const Var& x) override {
    return relu(bn2(conv2(bn1.forward_relu(conv1(x)))) + downsample(x));
  }
  Conv2d conv1;
  BatchNorm2d bn1;
  Conv2d conv2;
  BatchNorm2d bn2;
  Sequential downsample;  // of nothing: the identity
};

struct ResNet20 : Module {
  Conv2d conv1 = child("conv1", Conv2d(3, 16, 3, {.padding = 1, .bias = false}));
  BatchNorm2d bn1 = child("bn1", BatchNorm2d(16));
  Sequential layer1 = child("layer1", stage(16, 16, 1));
  Sequential layer2 = child("layer2", stage(16, 32, 2));
  Sequential layer3 = child("layer3", stage(32, 64, 2));
  Linear fc = child("fc", Linear(64, 10));
  Var forward(const Var& x) override {
    return fc(flatten(global_avg_pool2d(layer3(layer2(layer1(bn1.forward_relu(conv1(x)))))), 1));
  }
  static Sequential stage(std::int64_t in, std::int64_t out, std::int64_t stride) {
    return sequential(BasicBlock(in, out, stride), BasicBlock(out, out, 1),
                      BasicBlock(out, out, 1));
  }
};

}  // namespace sg::nn

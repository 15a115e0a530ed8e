#include "examples/cifar/nets.h"

#include <optional>

#include "autograd/checkpoint.h"
#include "nn/nn.h"

namespace sg::cifar {
namespace {

using nn::BatchNorm2d, nn::Conv2d, nn::Flatten, nn::Linear, nn::MaxPool2d, nn::named, nn::ReLU,
    nn::Sequential, nn::sequential;

/// PyTorch's "Training a classifier" and DeepSpeed's CIFAR-10 tutorial.
nn::ModulePtr tutorial(bool checkpoint) {
  Sequential net = sequential(                                 //
      named("conv1", Conv2d(3, 6, 5)), ReLU(), MaxPool2d(2),   // 32 -> 28 -> 14
      named("conv2", Conv2d(6, 16, 5)), ReLU(), MaxPool2d(2),  // 14 -> 10 -> 5
      Flatten(),                                               //
      named("fc1", Linear(16 * 5 * 5, 120)), ReLU(),           //
      named("fc2", Linear(120, 84)), ReLU(),                   //
      named("fc3", Linear(84, 10)));
  if (checkpoint) net.checkpoint(3);
  return nn::share(net);
}

nn::ModulePtr mlp(bool checkpoint) {
  Sequential net = sequential(                         //
      Flatten(),                                       //
      named("fc1", Linear(3 * 32 * 32, 512)), ReLU(),  //
      named("fc2", Linear(512, 512)), ReLU(),          //
      named("fc3", Linear(512, 10)));
  if (checkpoint) net.checkpoint(3);
  return nn::share(net);
}

/// In the manner of Simonyan and Zisserman, "Very deep convolutional networks", 2015, for small
/// images.
nn::ModulePtr vgg(bool checkpoint) {
  const auto conv = [](std::int64_t in, std::int64_t out) {
    return Conv2d(in, out, 3, {.padding = 1});
  };
  Sequential net = sequential(                               //
      named("conv1", conv(3, 32)), ReLU(),                   //
      named("conv2", conv(32, 32)), ReLU(), MaxPool2d(2),    // 32 -> 16
      named("conv3", conv(32, 64)), ReLU(),                  //
      named("conv4", conv(64, 64)), ReLU(), MaxPool2d(2),    // 16 -> 8
      named("conv5", conv(64, 128)), ReLU(),                 //
      named("conv6", conv(128, 128)), ReLU(), MaxPool2d(2),  // 8 -> 4
      Flatten(),                                             //
      named("fc1", Linear(128 * 4 * 4, 256)), ReLU(),        //
      named("fc2", Linear(256, 10)));
  if (checkpoint) net.checkpoint(4);
  return nn::share(net);
}

/// He et al., "Deep residual learning for image recognition", 2015, section 4.2; where the width
/// changes, option B.
class BasicBlock : public nn::Module {
 public:
  BasicBlock(std::int64_t in, std::int64_t out, std::int64_t stride, bool checkpoint)
      : conv1_(child("conv1", Conv2d(in, out, 3, {.stride = stride, .padding = 1, .bias = false}))),
        bn1_(child("bn1", BatchNorm2d(out))),
        conv2_(child("conv2", Conv2d(out, out, 3, {.padding = 1, .bias = false}))),
        bn2_(child("bn2", BatchNorm2d(out))),
        checkpoint_(checkpoint) {
    if (in == out) return;
    const Conv2d projection(in, out, 1, {.stride = stride, .bias = false});
    downsample_.emplace(child("downsample", sequential(projection, BatchNorm2d(out))));
  }

  Var forward(const Var& x) override {
    if (!checkpoint_) return block(x);
    return checkpoint([this](const Var& input) { return block(input); }, x);
  }

 private:
  Var block(const Var& x) {
    const Var y = bn2_(conv2_(bn1_.forward_relu(conv1_(x))));
    return relu(y + (downsample_ ? (*downsample_)(x) : x));
  }

  Conv2d conv1_;
  BatchNorm2d bn1_;
  Conv2d conv2_;
  BatchNorm2d bn2_;
  std::optional<Sequential> downsample_;
  bool checkpoint_;
};

nn::ModulePtr resnet20(bool checkpoint) {
  const auto layer = [&](std::int64_t in, std::int64_t out, std::int64_t stride) {
    return sequential(BasicBlock(in, out, stride, checkpoint), BasicBlock(out, out, 1, checkpoint),
                      BasicBlock(out, out, 1, checkpoint));
  };
  return nn::share(sequential(                                          //
      named("conv1", Conv2d(3, 16, 3, {.padding = 1, .bias = false})),  //
      named("bn1", BatchNorm2d(16)), ReLU(),                            //
      named("layer1", layer(16, 16, 1)),                                // 32
      named("layer2", layer(16, 32, 2)),                                // 16
      named("layer3", layer(32, 64, 2)),                                // 8
      nn::GlobalAvgPool2d(), Flatten(),                                 //
      named("fc", Linear(64, 10))));
}

constexpr std::string_view kNames[] = {"tutorial", "mlp", "vgg", "resnet20"};

}  // namespace

std::span<const std::string_view> net_names() { return kNames; }

nn::ModulePtr make_net(const std::string& name, bool checkpoint, DType dtype) {
  nn::ModulePtr net;
  if (name == "tutorial") net = tutorial(checkpoint);
  if (name == "mlp") net = mlp(checkpoint);
  if (name == "vgg") net = vgg(checkpoint);
  if (name == "resnet20") net = resnet20(checkpoint);
  SG_CHECK(net, "[cifar] there is no net '{}'; use tutorial, mlp, vgg or resnet20", name);
  if (dtype != DType::f32) net->to(dtype);
  return net;
}

}  // namespace sg::cifar

#include "data/data.h"
#include "dist/dist.h"
#include "nn/nn.h"
#include "optim/adam.h"
using namespace sg;
int main() {
  auto set = data::synthetic({.train = 6400, .test = 10}).train;
  dist::launch_ranks(4, [&](Rank& rank) {
    auto net = nn::sequential(nn::Conv2d(3, 6, 5), nn::ReLU(), nn::MaxPool2d(2), nn::Flatten(),
                              nn::Linear(1176, 10));
    auto engine = dist::initialize(net, optim::adam({.lr = 1e-3}), {.plan = "zero3"});
    data::Loader loader(set, {.batch_size = 64});
    for (auto [images, labels] : loader.epoch(0)) {
      engine->backward(nn::cross_entropy((*engine)(images), labels));
      engine->step();
      if (rank.index == 0 && engine->steps() % 25 == 0)
        fmt::print("step {:3}  loss {:.3f}\n", engine->steps(), engine->loss());
    }
    auto report = engine->report();  // memory and traffic of all ranks, predicted and measured
    if (rank.index == 0) fmt::print("\n{}", report.text());
  });
}

#include "nn/sequential.h"

#include <algorithm>
#include <functional>
#include <typeinfo>

#include "autograd/checkpoint.h"
#include "nn/activation.h"
#include "nn/batch_norm.h"
#include "nn/conv2d.h"
#include "nn/linear.h"

namespace sg::nn {

// One module or several that are run as one.
struct Sequential::Step {
  std::function<Var(const Var&)> run;
};

struct Sequential::List {
  std::vector<ModulePtr> modules;
  std::vector<Step> steps;
  int segments = 0;
};

Sequential::Sequential() : list_(std::make_shared<List>()) {}

int Sequential::size() const { return static_cast<int>(list_->modules.size()); }

Module& Sequential::operator[](int place) const {
  SG_CHECK(place >= 0 && place < size(), "[Sequential] there is no module {} among {}", place,
           size());
  return *list_->modules[static_cast<std::size_t>(place)];
}

void Sequential::append_shared(const std::string& name, ModulePtr module) {
  SG_CHECK(module != nullptr, "[Sequential] module {} is null", name);
  add_child(name, *module);
  list_->modules.push_back(std::move(module));
  list_->steps = fuse(list_->modules);
}

void Sequential::checkpoint(int segments) {
  SG_CHECK(segments >= 0, "[Sequential] the number of segments must not be negative, got {}",
           segments);
  list_->segments = segments;
}

// The peephole, in one place. What is fused, each to one op of the same function:
//   Conv2d ReLU MaxPool2d     forward_relu_max_pool
//   Conv2d ReLU               forward_relu
//   BatchNorm2d ReLU          forward_relu
//   Linear ReLU               forward_relu
// Only these very types: a class derived from one may compute something else.
std::vector<Sequential::Step> Sequential::fuse(const std::vector<ModulePtr>& modules) {
  // The module at a place if it is an M, else null.
  const auto as = [&]<class M>(std::size_t place, std::type_identity<M>) -> std::shared_ptr<M> {
    if (place >= modules.size()) return nullptr;
    const Module& module = *modules[place];
    return typeid(module) == typeid(M) ? std::static_pointer_cast<M>(modules[place]) : nullptr;
  };
  std::vector<Step> steps;
  for (std::size_t i = 0; i < modules.size();) {
    const auto conv = as(i, std::type_identity<Conv2d>());
    const auto norm = as(i, std::type_identity<BatchNorm2d>());
    const auto linear = as(i, std::type_identity<Linear>());
    const bool relu = as(i + 1, std::type_identity<ReLU>()) != nullptr;
    const auto pool = as(i + 2, std::type_identity<MaxPool2d>());
    if (conv != nullptr && relu && pool != nullptr) {
      steps.push_back(
          {[conv, pool](const Var& x) { return conv->forward_relu_max_pool(x, *pool); }});
      i += 3;
    } else if (conv != nullptr && relu) {
      steps.push_back({[conv](const Var& x) { return conv->forward_relu(x); }});
      i += 2;
    } else if (norm != nullptr && relu) {
      steps.push_back({[norm](const Var& x) { return norm->forward_relu(x); }});
      i += 2;
    } else if (linear != nullptr && relu) {
      steps.push_back({[linear](const Var& x) { return linear->forward_relu(x); }});
      i += 2;
    } else {
      steps.push_back({[module = modules[i]](const Var& x) { return (*module)(x); }});
      i += 1;
    }
  }
  return steps;
}

Var Sequential::run(const Var& x, std::size_t begin, std::size_t end) const {
  Var y = x;
  for (std::size_t i = begin; i < end; ++i) y = list_->steps[i].run(y);
  return y;
}

Var Sequential::forward(const Var& x) {
  const std::size_t count = list_->steps.size();
  const std::size_t segments =
      std::clamp<std::size_t>(list_->segments, 1, std::max<std::size_t>(count, 1));
  Var y = x;
  for (std::size_t s = 0; s < segments; ++s) {
    const std::size_t begin = count * s / segments, end = count * (s + 1) / segments;
    if (s + 1 == segments) {
      y = run(y, begin, end);
    } else {
      y = sg::checkpoint(
          [self = *this, begin, end](const Var& v) { return self.run(v, begin, end); }, y);
    }
  }
  return y;
}

}  // namespace sg::nn

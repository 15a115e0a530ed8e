// Modules one after the other:
//
//   auto a = nn::sequential(nn::Conv2d(3, 6, 5), nn::ReLU(), nn::Flatten(), nn::Linear(4704, 10));
//   auto b = nn::sequential(nn::named("conv1", nn::Conv2d(3, 6, 5)), nn::ReLU(), ...);
//
// Children are named by their place, "0", "1", ..., as in PyTorch, or as given. Neighbours that
// make one function are run as one op (fuse() in sequential.cpp lists them); names, parameters and
// values are those of the modules by themselves.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "nn/module.h"

namespace sg::nn {

class Sequential : public Module {
 public:
  Sequential();
  /// Adds a module after the last, under its place's number.
  template <class M>
  void append(const M& module) {
    append(std::to_string(size()), module);
  }
  template <class M>
  void append(const std::string& name, const M& module) {
    append_shared(name, share(module));
  }
  Var forward(const Var& x) override;

  int size() const;
  /// The module at a place; throws outside [0, size()).
  Module& operator[](int place) const;
  /// Activations within each of `segments` stretches of about equal length are computed again in
  /// backward instead of being kept (sg::checkpoint); the last stretch, whose backward comes first,
  /// keeps its own. 0: all are kept.
  void checkpoint(int segments);

 private:
  struct Step;
  struct List;
  void append_shared(const std::string& name, ModulePtr module);
  static std::vector<Step> fuse(const std::vector<ModulePtr>& modules);
  Var run(const Var& x, std::size_t begin, std::size_t end) const;
  std::shared_ptr<List> list_;  // shared by copies, as all state of a module
};

/// A module and its name within a sequential().
template <class M>
struct Named {
  std::string name;
  M module;
};
template <class M>
Named<M> named(std::string name, M module) {
  return {std::move(name), std::move(module)};
}

namespace detail {
template <class M>
void append_to(Sequential& s, const M& module) {
  s.append(module);
}
template <class M>
void append_to(Sequential& s, const Named<M>& module) {
  s.append(module.name, module.module);
}
}  // namespace detail

/// Modules, named() modules and ModulePtrs, in the order of their application.
template <class... Ms>
Sequential sequential(const Ms&... modules) {
  Sequential s;
  (detail::append_to(s, modules), ...);
  return s;
}

}  // namespace sg::nn

// Module: named parameters, buffers and children, in PyTorch's names and order. A layer of your
// own, whole:
//
//   struct RMSNorm : nn::Module {
//     std::int64_t size;
//     double eps = 1e-6;
//     nn::Parameter weight = parameter("weight", {size}, nn::ones);
//     explicit RMSNorm(std::int64_t size) : size(size) {}
//     Var forward(const Var& x) override {
//       return x * rsqrt(mean(square(x), -1, keep) + eps) * weight;
//     }
//   };
//
//   struct Block : nn::Module {
//     RMSNorm norm = child("norm", RMSNorm(64));
//     nn::Linear fc = child("fc", nn::Linear(64, 64));  // "fc.weight", "fc.bias"
//     Var forward(const Var& x) override { return x + fc(norm(x)); }
//   };
//
// A module is a handle, like Tensor and Var: copying one copies no parameter, and the copy is the
// same module. So children are plain members, taken and given by value. It knows no rank, no plan
// and has no hooks.
#pragma once

#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "nn/parameter.h"

namespace sg::nn {

/// A tensor of the module's state that is not trained (running statistics). A handle.
class Buffer {
 public:
  /// No buffer: its value is an undefined tensor.
  Buffer() : Buffer(Tensor()) {}
  explicit Buffer(Tensor value) : value_(std::make_shared<Tensor>(std::move(value))) {}
  const Tensor& value() const { return *value_; }
  operator const Tensor&() const { return *value_; }  // NOLINT: a buffer is a tensor
  /// Replaces the tensor in every copy of this handle.
  void set(Tensor value) const { *value_ = std::move(value); }

 private:
  std::shared_ptr<Tensor> value_;
};

struct NamedParameter {
  std::string name;
  Parameter parameter;
  std::vector<std::string> aliases;  ///< the other names of a tied parameter
};

struct NamedBuffer {
  std::string name;
  Buffer buffer;
};

class Module {
 public:
  Module();
  virtual ~Module();
  Module& operator=(const Module&) = delete;

  /// forward(x); an error from within says in which module.
  Var operator()(const Var& x);
  /// The computation. Modules of other arguments leave it and define an operator() of their own.
  virtual Var forward(const Var& x);

  /// All parameters, depth first: a module's own in the order of their declaration, then its
  /// children's. One that is reached twice (tied, or of a module that two parents share) is listed
  /// once, under its first name.
  std::vector<NamedParameter> named_parameters() const;
  std::vector<NamedBuffer> named_buffers() const;
  /// The parameter of that name or alias; throws, and lists the names there are, if there is none.
  Parameter parameter_named(const std::string& name) const;
  /// Number of elements of all parameters, tied ones counted once.
  std::int64_t parameter_count() const;

  /// Training mode (the default) or evaluation, of this module and all below it.
  void train(bool training = true);
  void eval() { train(false); }
  bool is_training() const;
  /// is_training() of this module and all below it, depth first.
  std::vector<bool> modes() const;
  /// Freezes (false) or frees all parameters below this module.
  void requires_grad_(bool required = true);
  void zero_grad();
  /// Changes the dtype of all parameters and floating buffers; declarations stay declarations.
  void to(DType dtype);
  /// Full name within its model: "layer1.0.conv1"; empty for the outermost module.
  const std::string& name() const;

 protected:
  /// By derived classes only: a bare Module would have lost its forward().
  Module(const Module&) = default;

  /// Declares a parameter; nothing is allocated. Names are not empty, have no dots and occur once
  /// in a module.
  Parameter parameter(const std::string& name, const Shape& shape, Init init,
                      DType dtype = DType::f32);
  /// Registers a parameter of another module here, too.
  Parameter parameter(const std::string& name, const Parameter& tied);
  /// Registers a tensor as state; its bytes are booked as buffers.
  Buffer buffer(const std::string& name, Tensor value);
  /// Registers a module and gives it back.
  template <class M>
  requires std::is_base_of_v<Module, M> M child(const std::string& name, M module) {
    add_child(name, module);
    return module;
  }
  template <class M>
  requires std::is_base_of_v<Module, M> std::shared_ptr<M> child(const std::string& name,
                                                                 std::shared_ptr<M> module) {
    add_child(name, *module);
    return module;
  }
  void add_child(const std::string& name, const Module& module);
  /// Runs f() and adds this module's name to an error from within; for entrances other than
  /// operator().
  template <class F>
  auto named_errors(F&& f) {
    try {
      return f();
    } catch (const Error& error) {
      rethrow_named(error);
    }
  }

 private:
  struct State;
  [[noreturn]] void rethrow_named(const Error& error) const;
  std::shared_ptr<State> state_;
};

using ModulePtr = std::shared_ptr<Module>;

/// The module behind a pointer that hides its type.
template <class M>
requires std::is_base_of_v<Module, M> ModulePtr share(const M& module) {
  return std::make_shared<M>(module);
}
inline ModulePtr share(ModulePtr module) { return module; }

}  // namespace sg::nn

#include "nn/module.h"

#include <algorithm>
#include <functional>
#include <typeinfo>
#include <unordered_map>
#include <unordered_set>

namespace sg::nn {

// What all copies of a module share.
struct Module::State {
  struct Child {
    std::string name;
    std::shared_ptr<State> state;
  };
  std::string name;
  bool training = true;
  std::vector<std::pair<std::string, Parameter>> parameters;
  std::vector<std::pair<std::string, Buffer>> buffers;
  std::vector<Child> children;

  // Calls f(state, prefix) for this and all below, parents first, each module once; `prefix` is ""
  // or ends with a dot.
  void visit(const std::string& prefix, const std::function<void(State&, const std::string&)>& f) {
    std::unordered_set<const State*> seen;
    visit(prefix, f, seen);
  }

  // Full names of modules and parameters below this one, whose own is known.
  void name_all() {
    std::unordered_set<const void*> named;
    visit(prefix_of(name), [&](State& state, const std::string& prefix) {
      state.name = prefix.substr(0, prefix.empty() ? 0 : prefix.size() - 1);
      for (const auto& [own, parameter] : state.parameters) {
        if (named.insert(parameter.id()).second) parameter.rename(prefix + own);
      }
    });
  }

  void check_new(const std::string& own) const {
    SG_CHECK(!own.empty() && own.find('.') == std::string::npos,
             "[module] \"{}\" is no name for a parameter, buffer or module: it must not be empty "
             "or contain a dot",
             own);
    const auto is_it = [&](const auto& item) { return item.first == own; };
    const bool taken = std::any_of(parameters.begin(), parameters.end(), is_it) ||
                       std::any_of(buffers.begin(), buffers.end(), is_it) ||
                       std::any_of(children.begin(), children.end(),
                                   [&](const Child& c) { return c.name == own; });
    SG_CHECK(!taken, "[module] the name {} is taken within {}", own,
             name.empty() ? "this module" : name);
  }

  static std::string prefix_of(const std::string& name) { return name.empty() ? "" : name + "."; }

 private:
  void visit(const std::string& prefix, const std::function<void(State&, const std::string&)>& f,
             std::unordered_set<const State*>& seen) {
    if (!seen.insert(this).second) return;
    f(*this, prefix);
    for (const Child& child : children) child.state->visit(prefix + child.name + ".", f, seen);
  }
};

namespace {

// An error that says already in which module it arose.
class ModuleError : public Error {
 public:
  using Error::Error;
};

}  // namespace

Module::Module() : state_(std::make_shared<State>()) {}
Module::~Module() = default;

Var Module::operator()(const Var& x) {
  return named_errors([&] { return forward(x); });
}

Var Module::forward(const Var&) {
  fail("[module] this module has no forward(const Var&); call the one it has by name");
}

void Module::rethrow_named(const Error& error) const {
  // Errors of other types carry more than a text.
  if (state_->name.empty() || typeid(error) != typeid(Error)) throw;
  throw ModuleError(fmt::format("{} (in {})", error.what(), state_->name));
}

std::vector<NamedParameter> Module::named_parameters() const {
  std::vector<NamedParameter> result;
  std::unordered_map<const void*, std::size_t> seen;
  state_->visit("", [&](State& state, const std::string& prefix) {
    for (const auto& [own, parameter] : state.parameters) {
      const auto [found, first] = seen.emplace(parameter.id(), result.size());
      if (first) {
        result.push_back({prefix + own, parameter, {}});
      } else {
        result[found->second].aliases.push_back(prefix + own);
      }
    }
  });
  return result;
}

std::vector<NamedBuffer> Module::named_buffers() const {
  std::vector<NamedBuffer> result;
  state_->visit("", [&](State& state, const std::string& prefix) {
    for (const auto& [own, buffer] : state.buffers) result.push_back({prefix + own, buffer});
  });
  return result;
}

Parameter Module::parameter_named(const std::string& name) const {
  std::string known;
  for (const NamedParameter& p : named_parameters()) {
    if (p.name == name || std::count(p.aliases.begin(), p.aliases.end(), name) > 0)
      return p.parameter;
    known += (known.empty() ? "" : " ") + p.name;
  }
  fail("[module] there is no parameter {}; there are: {}", name, known.empty() ? "none" : known);
}

std::int64_t Module::parameter_count() const {
  std::int64_t count = 0;
  for (const NamedParameter& p : named_parameters()) count += p.parameter.numel();
  return count;
}

void Module::train(bool training) {
  state_->visit("", [&](State& state, const std::string&) { state.training = training; });
}

bool Module::is_training() const { return state_->training; }

std::vector<bool> Module::modes() const {
  std::vector<bool> all;
  state_->visit("", [&](State& state, const std::string&) { all.push_back(state.training); });
  return all;
}

void Module::requires_grad_(bool required) {
  for (const NamedParameter& p : named_parameters()) p.parameter.requires_grad_(required);
}

void Module::zero_grad() {
  for (const NamedParameter& p : named_parameters()) p.parameter.zero_grad();
}

void Module::to(DType dtype) {
  for (const NamedParameter& p : named_parameters()) p.parameter.to(dtype);
  const Scoped kind(current_rank().kind, Kind::buffers);
  for (const NamedBuffer& b : named_buffers())
    if (is_floating(b.buffer.value().dtype())) b.buffer.set(b.buffer.value().to(dtype));
}

const std::string& Module::name() const { return state_->name; }

Parameter Module::parameter(const std::string& name, const Shape& shape, Init init, DType dtype) {
  state_->check_new(name);
  Parameter parameter(State::prefix_of(state_->name) + name, shape, std::move(init), dtype);
  state_->parameters.emplace_back(name, parameter);
  return parameter;
}

Parameter Module::parameter(const std::string& name, const Parameter& tied) {
  state_->check_new(name);
  state_->parameters.emplace_back(name, tied);
  state_->name_all();
  return tied;
}

Buffer Module::buffer(const std::string& name, Tensor value) {
  state_->check_new(name);
  SG_CHECK(value.defined(), "[module] buffer {} is undefined", name);
  value.storage()->set_kind(Kind::buffers);
  Buffer buffer(std::move(value));
  state_->buffers.emplace_back(name, buffer);
  return buffer;
}

void Module::add_child(const std::string& name, const Module& module) {
  state_->check_new(name);
  bool cycle = false;
  module.state_->visit("", [&](State& s, const std::string&) { cycle |= &s == state_.get(); });
  SG_CHECK(!cycle, "[module] {} contains the module it is added to", name);
  state_->children.push_back({name, module.state_});
  state_->name_all();
}

}  // namespace sg::nn

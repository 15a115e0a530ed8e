#include "optim/optimizer.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include <fmt/format.h>

#include "core/check.h"
#include "optim/spans.h"

namespace sg::optim {
namespace {

template <class T>
struct Option {
  std::string_view name;
  std::optional<T> GroupOptions::*asked;
  T Hyper::*value;
};

constexpr Option<double> kNumbers[] = {
    {"lr", &GroupOptions::lr, &Hyper::lr},
    {"momentum", &GroupOptions::momentum, &Hyper::momentum},
    {"dampening", &GroupOptions::dampening, &Hyper::dampening},
    {"weight_decay", &GroupOptions::weight_decay, &Hyper::weight_decay},
    {"beta1", &GroupOptions::beta1, &Hyper::beta1},
    {"beta2", &GroupOptions::beta2, &Hyper::beta2},
    {"eps", &GroupOptions::eps, &Hyper::eps},
};
constexpr Option<bool> kFlags[] = {{"nesterov", &GroupOptions::nesterov, &Hyper::nesterov}};

template <class T>
void set(const Optimizer& optimizer, const Option<T>& option, const GroupOptions& asked,
         Hyper& hyper) {
  if (!(asked.*option.asked)) return;
  const auto& names = optimizer.hyper_names();
  SG_CHECK(std::find(names.begin(), names.end(), option.name) != names.end(),
           "[{}] a parameter group sets {}, but {} has only {}", optimizer.name(), option.name,
           optimizer.name(), fmt::join(names, ", "));
  hyper.*option.value = *(asked.*option.asked);
}

template <class P, class T>
void check_spans(const Optimizer& optimizer, std::span<P> param, std::span<const T> grad,
                 States<T> state, const StepValues& values) {
  SG_CHECK(grad.size() == param.size(), "[{}] {} gradients for {} parameters", optimizer.name(),
           grad.size(), param.size());
  const auto& names = optimizer.state_names();
  SG_CHECK(state.size() == names.size(), "[{}] needs {} states ({}), got {}", optimizer.name(),
           names.size(), fmt::join(names, ", "), state.size());
  for (std::size_t i = 0; i < state.size(); ++i)
    SG_CHECK(state[i].size() == param.size(), "[{}] state {} has {} elements for {} parameters",
             optimizer.name(), names[i], state[i].size(), param.size());
  SG_CHECK(values.step >= 1, "[{}] steps count from 1, got {}", optimizer.name(), values.step);
  SG_CHECK(values.grad_divisor > 0, "[{}] grad_divisor must be > 0, got {}", optimizer.name(),
           values.grad_divisor);
}

}  // namespace

Optimizer::Optimizer(const char* name, std::vector<std::string> hyper_names,
                     std::vector<std::string> state_names, const Hyper& defaults)
    : name_(name),
      hyper_names_(std::move(hyper_names)),
      state_names_(std::move(state_names)),
      defaults_(defaults) {}

Hyper Optimizer::group(const GroupOptions& options) const {
  Hyper hyper = defaults_;
  for (const auto& option : kNumbers) set(*this, option, options, hyper);
  for (const auto& option : kFlags) set(*this, option, options, hyper);
  check(hyper);
  return hyper;
}

void Optimizer::update(std::span<float> param, std::span<const float> grad, States<float> state,
                       const Hyper& hyper, const StepValues& values) const {
  check_spans(*this, param, grad, state, values);
  if (!values.skip && !param.empty()) run(param, grad, state, hyper, values);
}

void Optimizer::update(std::span<double> param, std::span<const double> grad, States<double> state,
                       const Hyper& hyper, const StepValues& values) const {
  check_spans(*this, param, grad, state, values);
  if (!values.skip && !param.empty()) run(param, grad, state, hyper, values);
}

void Optimizer::update(std::span<bf16> param, std::span<const float> grad, States<float> state,
                       const Hyper& hyper, const StepValues& values) const {
  check_spans(*this, param, grad, state, values);
  if (!values.skip && !param.empty()) run_in_tiles(param, grad, state, hyper, values);
}

void Optimizer::coefficients(DType, const Hyper&, const StepValues&,
                             std::vector<std::byte>&) const {
  fail("[{}] has no kernel for a GPU", name_);
}

}  // namespace sg::optim

#include "optim/sgd.h"

#include <algorithm>

#include "core/check.h"
#include "optim/spans.h"

namespace sg::optim {
namespace {

class Sgd final : public TypedOptimizer<Sgd> {
 public:
  explicit Sgd(const Hyper& defaults)
      : TypedOptimizer("sgd", {"lr", "momentum", "dampening", "weight_decay", "nesterov"},
                       defaults.momentum != 0 ? std::vector<std::string>{"momentum_buffer"}
                                              : std::vector<std::string>{},
                       defaults) {
    check(defaults);
  }
  kernels::Rule rule() const override { return kernels::Rule::sgd; }
  void coefficients(DType dtype, const Hyper& hyper, const StepValues& values,
                    std::vector<std::byte>& to) const override {
    if (dtype == DType::f64)
      append_bytes(coefficients_of<double>(hyper, values), to);
    else
      append_bytes(coefficients_of<float>(hyper, values), to);
  }

 protected:
  void check(const Hyper& h) const override {
    SG_CHECK(h.lr >= 0, "[sgd] lr must be >= 0, got {}", h.lr);
    SG_CHECK(h.momentum >= 0, "[sgd] momentum must be >= 0, got {}", h.momentum);
    SG_CHECK(h.weight_decay >= 0, "[sgd] weight_decay must be >= 0, got {}", h.weight_decay);
    SG_CHECK(!h.nesterov || (h.momentum > 0 && h.dampening == 0),
             "[sgd] nesterov needs momentum > 0 and dampening 0, got momentum {} and dampening {}",
             h.momentum, h.dampening);
    SG_CHECK(h.momentum == 0 || defaults().momentum != 0,
             "[sgd] a parameter group sets momentum {}, but the optimizer was made without and has "
             "no state for it; give sgd itself a momentum",
             h.momentum);
  }

 private:
  friend TypedOptimizer<Sgd>;
  template <class T>
  kernels::SgdCoefficients<T> coefficients_of(const Hyper& hyper, const StepValues& values) const {
    const bool first = values.step == 1;
    return {.scale = gradient_scale<T>(values.grad_divisor, values.clip_scale),
            .step_size = static_cast<T>(hyper.lr * values.lr_factor),
            .l2 = static_cast<T>(hyper.weight_decay),
            .momentum = static_cast<T>(hyper.momentum),
            .keep = static_cast<T>(first ? 0 : hyper.momentum),
            .take = static_cast<T>(first ? 1 : 1 - hyper.dampening),
            .nesterov = hyper.nesterov};
  }
  template <class T>
  void apply(std::span<T> param, std::span<const T> grad, States<T> state, const Hyper& hyper,
             const StepValues& values) const {
    const kernels::SgdCoefficients<T> c = coefficients_of<T>(hyper, values);
    T* buffer = hyper.momentum != 0 ? state[0].data() : nullptr;
    for_each_part(std::ssize(param), [&](std::int64_t begin, std::int64_t end) {
      update_loops<T>().sgd(param.data() + begin, grad.data() + begin,
                            buffer == nullptr ? nullptr : buffer + begin, end - begin, c);
    });
  }
};

}  // namespace

OptimizerPtr sgd(const SgdOptions& o) {
  return std::make_shared<Sgd>(Hyper{.lr = o.lr,
                                     .momentum = o.momentum,
                                     .dampening = o.dampening,
                                     .weight_decay = o.weight_decay,
                                     .nesterov = o.nesterov});
}

}  // namespace sg::optim

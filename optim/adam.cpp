#include "optim/adam.h"

#include <cmath>

#include "core/check.h"
#include "optim/spans.h"

namespace sg::optim {
namespace {

class Adam final : public TypedOptimizer<Adam> {
 public:
  Adam(const char* name, bool decoupled, const Hyper& defaults)
      : TypedOptimizer(name, {"lr", "beta1", "beta2", "eps", "weight_decay"},
                       {"exp_avg", "exp_avg_sq"}, defaults),
        decoupled_(decoupled) {
    check(defaults);
  }
  kernels::Rule rule() const override { return kernels::Rule::adam; }
  void coefficients(DType dtype, const Hyper& hyper, const StepValues& values,
                    std::vector<std::byte>& to) const override {
    if (dtype == DType::f64)
      append_bytes(coefficients_of<double>(hyper, values), to);
    else
      append_bytes(coefficients_of<float>(hyper, values), to);
  }

 protected:
  void check(const Hyper& h) const override {
    SG_CHECK(h.lr >= 0, "[{}] lr must be >= 0, got {}", name(), h.lr);
    SG_CHECK(h.beta1 >= 0 && h.beta1 < 1, "[{}] beta1 must be in [0, 1), got {}", name(), h.beta1);
    SG_CHECK(h.beta2 >= 0 && h.beta2 < 1, "[{}] beta2 must be in [0, 1), got {}", name(), h.beta2);
    SG_CHECK(h.eps >= 0, "[{}] eps must be >= 0, got {}", name(), h.eps);
    SG_CHECK(h.weight_decay >= 0, "[{}] weight_decay must be >= 0, got {}", name(), h.weight_decay);
  }

 private:
  friend TypedOptimizer<Adam>;
  template <class T>
  kernels::AdamCoefficients<T> coefficients_of(const Hyper& hyper, const StepValues& values) const {
    // Corrections in double, on the caller's thread: 1 - beta2^step loses half of a float's digits
    // in step 1.
    const double step = static_cast<double>(values.step);
    const double correction1 = 1 - std::pow(hyper.beta1, step);
    const double correction2 = 1 - std::pow(hyper.beta2, step);
    const double lr = hyper.lr * values.lr_factor;
    return {.scale = gradient_scale<T>(values.grad_divisor, values.clip_scale),
            .step_size = static_cast<T>(lr / correction1),
            .decay = static_cast<T>(decoupled_ ? 1 - lr * hyper.weight_decay : 1),
            .l2 = static_cast<T>(decoupled_ ? 0 : hyper.weight_decay),
            .beta1 = static_cast<T>(hyper.beta1),
            .rest1 = static_cast<T>(1 - hyper.beta1),
            .beta2 = static_cast<T>(hyper.beta2),
            .rest2 = static_cast<T>(1 - hyper.beta2),
            .root_scale = static_cast<T>(1 / std::sqrt(correction2)),
            .eps = static_cast<T>(hyper.eps)};
  }
  template <class T>
  void apply(std::span<T> param, std::span<const T> grad, States<T> state, const Hyper& hyper,
             const StepValues& values) const {
    const kernels::AdamCoefficients<T> c = coefficients_of<T>(hyper, values);
    T *m = state[0].data(), *v = state[1].data();
    for_each_part(std::ssize(param), [&](std::int64_t begin, std::int64_t end) {
      update_loops<T>().adam(param.data() + begin, grad.data() + begin, m + begin, v + begin,
                             end - begin, c);
    });
  }

  bool decoupled_;
};

}  // namespace

OptimizerPtr adam(const AdamOptions& o) {
  return std::make_shared<Adam>("adam", false,
                                Hyper{.lr = o.lr,
                                      .weight_decay = o.weight_decay,
                                      .beta1 = o.beta1,
                                      .beta2 = o.beta2,
                                      .eps = o.eps});
}

OptimizerPtr adamw(const AdamWOptions& o) {
  return std::make_shared<Adam>("adamw", true,
                                Hyper{.lr = o.lr,
                                      .weight_decay = o.weight_decay,
                                      .beta1 = o.beta1,
                                      .beta2 = o.beta2,
                                      .eps = o.eps});
}

}  // namespace sg::optim

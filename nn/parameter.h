// A parameter is a declaration (name, shape, dtype, how to make its initial values) until somebody
// needs its bytes: its first use makes them here, whole; dist::initialize instead makes only the
// span that its rank owns, and attaches a source that gathers.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "autograd/var.h"
#include "nn/init.h"

namespace sg::nn {

/// Makes the value at first use and keeps it.
class Declaration final : public Source {
 public:
  Declaration(std::string name, const Shape& shape, DType dtype, Init init);

  std::shared_ptr<Storage> get() override;
  std::uint64_t version() const override { return storage_ != nullptr ? storage_->version() : 0; }
  std::string name() const override { return "parameter " + full_name; }

  /// Initial values of elements [begin, begin + n), written to `out` as `out_dtype` (floating).
  /// Rounded once, so f32 values are those of f64, rounded. Uses the current rank's threads.
  void fill(std::uint64_t seed, std::int64_t begin, std::int64_t n, void* out,
            DType out_dtype) const;
  /// The value if it was made.
  std::shared_ptr<Storage> held() const { return storage_; }
  void release();

  std::string full_name;
  Shape shape;
  DType dtype;
  Init init;

 private:
  std::shared_ptr<Storage> storage_;
  std::shared_ptr<Storage> meta_;  // for a dry run, which must not decide where the value lives
};

/// A handle, as Var and Tensor are: copies are the same parameter, and converts to Var wherever an
/// op wants one.
class Parameter {
 public:
  /// No parameter (a layer without bias): converts to an undefined Var.
  Parameter() = default;
  /// Not registered anywhere; Module::parameter() does that.
  Parameter(std::string name, const Shape& shape, Init init, DType dtype = DType::f32);

  bool defined() const { return slot_ != nullptr; }
  const Var& var() const;
  operator const Var&() const { return var(); }  // NOLINT: a parameter is a value
  /// "weight" by itself, "layer1.0.conv1.weight" within a model.
  const std::string& name() const { return body().declaration->full_name; }
  const Shape& shape() const { return var().shape(); }
  DType dtype() const { return var().dtype(); }
  std::int64_t numel() const { return sg::numel(shape()); }
  bool requires_grad() const { return var().requires_grad(); }
  /// Frozen parameters get no gradient and no optimizer state. To be decided before
  /// dist::initialize: changing it on a managed() parameter is an error.
  const Parameter& requires_grad_(bool required = true) const;
  /// The whole value, made now if it was only declared. Hold it no longer than needed where a
  /// Source gathers it.
  Tensor value() const { return var().value(); }
  const Tensor& grad() const { return var().grad(); }
  void zero_grad() const { var().zero_grad(); }

  /// Nothing was allocated yet.
  bool declared() const;
  /// The whole value is here and stays: it was used, loaded or attached as a tensor.
  bool materialized() const;
  /// The whole value, if materialized(); undefined otherwise. Never makes it.
  Tensor held() const;

  /// Copies elements [begin, begin + n) of the current value to `out` as `out_dtype` (floating):
  /// from held() if the value is here, else initial values, without allocating anything. An error
  /// where a Source holds the value.
  void read(std::uint64_t seed, std::int64_t begin, std::int64_t n, void* out,
            DType out_dtype) const;
  /// Changes how the value is made, or makes it again at once if it is here (seed: the current
  /// rank's). An error on a managed() parameter.
  const Parameter& init(Init init) const;
  /// A declaration changes its dtype; a value that is here is converted. An error on a managed()
  /// parameter, unless it has that dtype.
  void to(DType dtype) const;

  /// From now on the value is `tensor` (contiguous, same shape and dtype); what was held is freed.
  void attach(const Tensor& tensor) const;
  /// From now on the value is at `offset` (elements) of what `source` produces; what was held is
  /// freed.
  void attach(std::shared_ptr<Source> source, std::int64_t offset) const;

  /// From now on `manager` ("an engine") keeps value, gradient and optimizer state in a form of its
  /// own, and alone may attach: requires_grad_(), init(), to() and tie() throw instead of being
  /// ignored or changing one rank behind the others' backs. Empty: no longer.
  void manage(std::string manager) const { body().manager = std::move(manager); }
  bool managed() const { return !body().manager.empty(); }

  /// Makes this the same parameter as `other` (of equal shape and dtype), wherever this one is
  /// registered: head.weight.tie(embedding.weight). It then appears once, under the name that comes
  /// first.
  void tie(const Parameter& other) const;
  /// Equal for tied parameters and for copies of one handle.
  const void* id() const { return &body(); }
  /// Used by Module; tied parameters take the first name of a model.
  void rename(const std::string& full_name) const;

 private:
  struct Body {
    std::shared_ptr<Declaration> declaration;
    Var var;
    std::string manager;  // empty: nobody
  };
  // One more step between handle and value than Var has: tie() redirects all copies of a handle at
  // once.
  struct Slot {
    std::shared_ptr<Body> body;
  };
  Body& body() const {
    SG_CHECK(defined(), "[parameter] the parameter is undefined");
    return *slot_->body;
  }
  void check_unmanaged(const char* op) const;
  std::shared_ptr<Slot> slot_;
};

}  // namespace sg::nn

// Units: parameters that travel together. The names used everywhere in dist:
//
//   unit      parameters that travel together, flattened into one padded buffer
//   rest      what a rank holds of a unit between uses
//   full      the gathered unit, alive only while somebody uses it
//   partial   this rank's unsummed gradient of a unit
//   reduced   the summed gradient, in the layout that `step` reads
//   state     what the optimizer remembers (Adam's m and v)
//   shard     the contiguous 1/N of a unit that a rank owns
//
//   |<------------------------- padded ------------------------------->|
//   | segment 0 (weight) | gap | segment 1 (bias) | gap | ... | padding |
//   |<---- shard of rank 0 ---->|<---- shard of rank 1 ---->|  ...      |
//
// Segments start at multiples of kBlock elements and a shard is a whole number of such blocks, so
// the blocks (over which the gradient norm is summed) are the same for every number of ranks. Gaps
// and padding are zero.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "dist/comm/comm.h"
#include "dist/plan.h"
#include "nn/module.h"
#include "optim/update.h"

namespace sg::dist {

inline constexpr std::int64_t kBlock = 64;

/// One parameter's place in its unit.
struct Segment {
  nn::NamedParameter
      named;  ///< as the engine's module names it, which may be part of a larger model
  std::int64_t offset = 0;  ///< first element, a multiple of kBlock
  std::int64_t length = 0;  ///< elements
  int group = 0;            ///< parameter group, whose hyperparameters the update takes

  const nn::Parameter& parameter() const { return named.parameter; }
  const std::string& name() const { return named.name; }
  bool is_called(const std::string& name) const {
    return name == named.name ||
           std::find(named.aliases.begin(), named.aliases.end(), name) != named.aliases.end();
  }
  const Shape& shape() const { return parameter().shape(); }
  /// The segment's part of a flat whole unit, in the parameter's shape.
  Tensor view_of(const Tensor& flat) const {
    return Tensor(flat.storage(), flat.offset() + offset, shape(), contiguous_strides(shape()),
                  flat.dtype());
  }
};

/// What is known of a unit before any byte is allocated.
struct UnitLayout {
  std::string name;  ///< "fc1", or "conv1 .. conv2" where several layers share it
  DType dtype = DType::f32;       ///< of parameters: at rest, gathered and published
  DType grad_dtype = DType::f32;  ///< of sums: gradients and states; f32 where parameters are bf16
  bool trainable = true;
  std::vector<Segment> segments;
  std::int64_t elements = 0;  ///< of all segments, without gaps
  std::int64_t padded = 0;    ///< whole unit, a multiple of kBlock * ranks

  std::int64_t count(Layout layout, int ranks) const {
    return layout == Layout::shard ? padded / ranks : padded;
  }
  std::int64_t bytes(Layout layout, int ranks) const {
    return count(layout, ranks) * static_cast<std::int64_t>(size_of(dtype));
  }
  std::int64_t grad_bytes(Layout layout, int ranks) const {
    return count(layout, ranks) * static_cast<std::int64_t>(size_of(grad_dtype));
  }
};

/// Groups parameters into units. The layer (the module that owns parameters) is the atom;
/// neighbours of one dtype and one trainability are merged while the unit stays below `target`
/// elements (0: a twentieth of the model, at most 2^25, so that a small model still has several).
/// All plans and all ranks get the same units. f16 parameters are an error.
std::vector<UnitLayout> make_units(const std::vector<nn::NamedParameter>& parameters, int ranks,
                                   std::int64_t target);

struct Unit : UnitLayout {
  int index = 0;
  UnitLabel label() const { return {index, name}; }
  Tensor rest;         ///< parameters at rest, flat
  Tensor accumulated;  ///< gradients at rest, flat; not of frozen units
  std::vector<Tensor> states;
  std::uint64_t version =
      0;  ///< steps applied; a gathered value saved for backward must find the same

  /// The part of the unit that this rank updates: [begin, end) in elements.
  std::int64_t update_begin = 0, update_end = 0;
  std::optional<optim::Update> update;

  // Gradients under way, see grad_sink.h.
  Tensor partial;
  std::vector<bool> arrived;  ///< by segment
  int missing = 0;            ///< segments without gradient in this backward
  Ready<Tensor> reduction;    ///< the sum under way
};

}  // namespace sg::dist

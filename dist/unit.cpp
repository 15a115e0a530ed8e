#include "dist/unit.h"

#include <algorithm>

namespace sg::dist {
namespace {

constexpr std::int64_t kMostMerged = std::int64_t{1} << 25;

std::int64_t round_up(std::int64_t value, std::int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// "layer1.0.conv1" of "layer1.0.conv1.weight"; "model" for the outermost module's own parameters.
std::string layer_of(const std::string& name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string::npos ? "model" : name.substr(0, dot);
}

// A run of parameters of one layer that can share a unit.
struct Atom {
  std::string layer;
  DType dtype;
  bool trainable;
  std::int64_t elements = 0;
  std::vector<nn::NamedParameter> parameters;
};

}  // namespace

std::vector<UnitLayout> make_units(const std::vector<nn::NamedParameter>& parameters, int ranks,
                                   std::int64_t target) {
  SG_CHECK(target >= 0, "[units] unit_elements must not be negative, got {}", target);
  std::vector<Atom> atoms;
  std::int64_t total = 0;
  for (const nn::NamedParameter& named : parameters) {
    const nn::Parameter& p = named.parameter;
    SG_CHECK(p.dtype() != DType::f16,
             "[units] {} is f16, whose gradients underflow without a scaled loss; units are f32, "
             "f64 or bf16, convert the module with to()",
             named.name);
    const std::string layer = layer_of(named.name);
    if (atoms.empty() || atoms.back().layer != layer || atoms.back().dtype != p.dtype() ||
        atoms.back().trainable != p.requires_grad())
      atoms.push_back({layer, p.dtype(), p.requires_grad(), 0, {}});
    atoms.back().elements += p.numel();
    atoms.back().parameters.push_back(named);
    total += p.numel();
  }
  if (target == 0) target = std::min(total / 20, kMostMerged);

  std::vector<UnitLayout> units;
  for (const Atom& atom : atoms) {
    const bool joins = !units.empty() && units.back().dtype == atom.dtype &&
                       units.back().trainable == atom.trainable &&
                       units.back().elements + atom.elements <= target;
    if (joins) {
      const std::string first = units.back().name.substr(0, units.back().name.find(" .. "));
      units.back().name = first + " .. " + atom.layer;
    } else {
      UnitLayout unit;
      unit.name = atom.layer;
      unit.dtype = atom.dtype;
      unit.grad_dtype = optim::state_dtype(atom.dtype);
      unit.trainable = atom.trainable;
      units.push_back(std::move(unit));
    }
    UnitLayout& unit = units.back();
    for (const nn::NamedParameter& named : atom.parameters) {
      const std::int64_t end =
          unit.segments.empty() ? 0 : unit.segments.back().offset + unit.segments.back().length;
      unit.segments.push_back({named, round_up(end, kBlock), named.parameter.numel(), 0});
      unit.elements += named.parameter.numel();
    }
  }
  for (UnitLayout& unit : units) {
    const std::int64_t end = unit.segments.back().offset + unit.segments.back().length;
    // At least a block a rank, so that a unit of zero-sized parameters, or fewer blocks than ranks,
    // is no special case.
    unit.padded = std::max(round_up(end, kBlock * ranks), kBlock * ranks);
  }
  return units;
}

}  // namespace sg::dist

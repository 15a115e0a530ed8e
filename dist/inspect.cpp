// Whole values at any plan: collective reads and writes by parameter name, unit by unit and
// parameter by parameter.
#include <algorithm>
#include <bit>
#include <cstring>

#include <fmt/format.h>

#include "core/ops.h"
#include "core/safetensors.h"
#include "dist/arrows.h"
#include "dist/engine.h"
#include "nn/weights.h"

namespace sg::dist {
namespace {

std::string known_names(const std::vector<std::unique_ptr<Unit>>& units) {
  std::string text;
  for (const auto& unit : units)
    for (const Segment& s : unit->segments) text += (text.empty() ? "" : ", ") + s.name();
  return text;
}

}  // namespace

std::pair<Unit*, const Segment*> Engine::find(const std::string& name) {
  for (auto& unit : units_)
    for (const Segment& segment : unit->segments)
      if (segment.is_called(name)) return {unit.get(), &segment};
  fail("[engine] there is no parameter '{}'; the parameters are {}", name, known_names(units_));
}

// The whole of a flat tensor of which every rank has its shard; itself if it is whole already.
Tensor Engine::whole(const Unit& unit, const Tensor& flat) {
  if (flat.numel() == unit.padded) return flat;
  const Scoped phase(current_rank().phase, Phase::inspection);
  const Scoped kind(current_rank().kind, Kind::buffers);
  const Tensor full = Tensor::empty({unit.padded}, flat.dtype(), flat.device());
  start_all_gather(comm_, unit.label(), flat, full).wait_readers();
  return full;
}

Tensor Engine::full_parameter(const std::string& name) {
  loss_.check();
  const auto [unit, segment] = find(name);
  return segment->view_of(whole(*unit, unit->rest)).clone();
}

Tensor Engine::full_gradient(const std::string& name) {
  loss_.check();
  const auto [unit, segment] = find(name);
  SG_CHECK(unit->trainable, "[full_gradient] {} is frozen and has no gradient", name);
  if (micro_ == options_.accumulate) {
    const Scoped account(current_rank().account, account_);
    reduce();
  }
  SG_CHECK(reduced_,
           "[full_gradient] gradients are still accumulating: {} of {} micro-batches are "
           "done; ask after the last backward()",
           micro_, options_.accumulate);
  const bool everywhere = plan_.reduced.layout == Layout::full || comm_.size() == 1;
  const bool flat_is_whole = unit->accumulated.numel() == unit->padded;
  const Tensor mine = everywhere || !flat_is_whole
                          ? unit->accumulated
                          : shard_of(unit->accumulated, comm_.rank(), comm_.size());
  const Tensor sum = segment->view_of(whole(*unit, mine));
  return ops::div(
      sum, Tensor::full({}, static_cast<double>(comm_.size()) * options_.accumulate, sum.dtype()));
}

Tensor Engine::full_state(const std::string& name, const std::string& state) {
  loss_.check();
  const auto [unit, segment] = find(name);
  SG_CHECK(unit->trainable, "[full_state] {} is frozen and has no optimizer state", name);
  const auto& names = optimizer_->state_names();
  const auto it = std::find(names.begin(), names.end(), state);
  SG_CHECK(it != names.end(), "[full_state] {} keeps no state '{}'; it keeps: {}",
           optimizer_->name(), state, fmt::format("{}", fmt::join(names, ", ")));
  const Tensor& flat = unit->states[static_cast<std::size_t>(it - names.begin())];
  return segment->view_of(whole(*unit, flat)).clone();
}

// Overwrites the part of a parameter that this rank keeps, by `read(first element, span of bytes,
// count)`.
void Engine::overwrite(Unit& unit, const Segment& segment, const Read& read) {
  comm_.quiesce();  // peers may still read the old values
  prefetcher_->drop();
  const std::int64_t held = unit.rest.numel() == unit.padded ? 0 : comm_.rank() * unit.rest.numel();
  const std::int64_t begin = std::max(segment.offset, held);
  const std::int64_t end = std::min(segment.offset + segment.length, held + unit.rest.numel());
  if (begin < end)
    write_values(unit.rest.slice(0, begin - held, end - begin),
                 [&](void* out) { read(begin - segment.offset, out, end - begin); });
  ++unit.version;
  unit.rest.storage()->bump_version();
}

void Engine::load_parameter(const std::string& name, const Tensor& value) {
  const auto [unit, segment] = find(name);
  SG_CHECK(value.shape() == segment->shape(), "[load_parameter] {} is {}, got {}", name,
           segment->shape(), value.shape());
  const Tensor flat = value.to(kCpu).to(unit->dtype).contiguous();
  const std::int64_t size = static_cast<std::int64_t>(size_of(unit->dtype));
  overwrite(*unit, *segment, [&](std::int64_t first, void* out, std::int64_t count) {
    std::memcpy(out, static_cast<const char*>(flat.raw_data()) + first * size,
                static_cast<std::size_t>(count * size));
  });
  barrier();  // nobody gathers before everybody has the new values
}

void Engine::load_weights(const std::string& path) {
  const SafetensorsFile file(path);
  // Lists all that does not fit before anything is changed.
  const std::vector<nn::Expected> expected = nn::expected_tensors(*module_);
  const std::vector<std::string> found = nn::match_tensors(file, expected);
  const std::vector<nn::NamedBuffer> buffers = module_->named_buffers();
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (found[i].empty()) continue;  // optional
    const auto buffer = std::find_if(buffers.begin(), buffers.end(),
                                     [&](const auto& b) { return b.name == expected[i].name; });
    if (buffer != buffers.end()) {
      buffer->buffer.value().copy_from(file.read(found[i]));
      continue;
    }
    const auto [unit, segment] = find(expected[i].name);
    const DType dtype = unit->dtype;
    overwrite(*unit, *segment, [&](std::int64_t first, void* out, std::int64_t count) {
      file.read(found[i], first, count, out, dtype);
    });
  }
  barrier();
}

void Engine::save_weights(const std::string& path) {
  loss_.check();
  sync_buffers();
  // As nn::save_weights(): the file is the same under every plan.
  std::vector<SafetensorsWriter::Declared> declared;
  SafetensorsMetadata metadata{{"format", "pt"}};
  for (const nn::Expected& e : nn::expected_tensors(*module_)) {
    declared.push_back({e.name, e.dtype, e.shape});
    for (const std::string& alias : e.aliases) metadata.emplace(alias, e.name);
  }
  std::unique_ptr<SafetensorsWriter> writer;
  if (comm_.rank() == 0) writer = std::make_unique<SafetensorsWriter>(path, declared, metadata);
  for (auto& unit : units_) {
    const Tensor full = whole(*unit, unit->rest);
    if (writer == nullptr) continue;
    for (const Segment& segment : unit->segments)
      writer->write(segment.name(), segment.view_of(full));
  }
  if (writer != nullptr) {
    for (const nn::NamedBuffer& b : module_->named_buffers())
      writer->write(b.name, b.buffer.value());
    writer->finish();
  }
  barrier();
}

void Engine::barrier() {
  const Scoped phase(current_rank().phase, Phase::inspection);
  exchange(comm_, "control", {});
}

std::vector<double> Engine::sum_over_ranks(const std::vector<double>& values) {
  const Scoped phase(current_rank().phase, Phase::evaluation);
  const std::vector<std::uint64_t> all = exchange(
      comm_, "control", {reinterpret_cast<const std::uint64_t*>(values.data()), values.size()});
  std::vector<double> sums(values.size(), 0);
  for (std::size_t i = 0; i < all.size(); ++i)
    sums[i % values.size()] += std::bit_cast<double>(all[i]);
  return sums;
}

std::vector<std::int64_t> Engine::sum_over_ranks(const std::vector<std::int64_t>& values) {
  const Scoped phase(current_rank().phase, Phase::evaluation);
  const std::vector<std::uint64_t> all = exchange(
      comm_, "control", {reinterpret_cast<const std::uint64_t*>(values.data()), values.size()});
  std::vector<std::int64_t> sums(values.size(), 0);
  for (std::size_t i = 0; i < all.size(); ++i)
    sums[i % values.size()] += static_cast<std::int64_t>(all[i]);
  return sums;
}

void Engine::sync_buffers() {
  const Scoped phase(current_rank().phase, Phase::evaluation);
  const Scoped kind(current_rank().kind, Kind::buffers);
  for (const nn::NamedBuffer& named : module_->named_buffers()) {
    const Tensor& buffer = named.buffer.value();
    if (!buffer.defined()) continue;
    const Tensor mine = buffer.to(kCpu).to(is_floating(buffer.dtype()) ? DType::f64 : DType::i64);
    const std::size_t n = static_cast<std::size_t>(mine.numel());
    const auto all =
        exchange(comm_, "control", {static_cast<const std::uint64_t*>(mine.raw_data()), n});
    const Tensor value = Tensor::zeros(mine.shape(), mine.dtype(), kCpu);
    if (is_floating(mine.dtype())) {
      double* out = value.data<double>();
      for (std::size_t i = 0; i < all.size(); ++i) out[i % n] += std::bit_cast<double>(all[i]);
      for (std::size_t i = 0; i < n; ++i) out[i] /= comm_.size();
    } else {
      std::memcpy(value.raw_data(), all.data(), n * sizeof(std::uint64_t));
    }
    buffer.copy_from(value);
  }
}

}  // namespace sg::dist

#include "nn/weights.h"

#include <algorithm>
#include <unordered_set>

namespace sg::nn {
namespace {

// For tensors that are as they should be, an empty text.
std::string difference(const SafetensorsEntry& found, const Expected& expected) {
  if (found.shape != expected.shape)
    return fmt::format("{} is {}, expected {}", found.name, found.shape, expected.shape);
  if (found.dtype != expected.dtype && !(is_floating(found.dtype) && is_floating(expected.dtype)))
    return fmt::format("{} is {}, expected {}", found.name, name_of(found.dtype),
                       name_of(expected.dtype));
  return {};
}

std::string joined(const char* what, const std::vector<std::string>& items) {
  std::string text = what;
  for (const std::string& item : items) text += (&item == &items[0] ? " " : ", ") + item;
  return text;
}

void load_parameter(const Parameter& parameter, const std::shared_ptr<SafetensorsFile>& file,
                    const std::string& name) {
  if (parameter.declared()) {
    parameter.init([file, name](const FillContext&, std::int64_t begin, std::span<double> out) {
      if (!out.empty()) file->read(name, begin, out);
    });
    return;
  }
  const Tensor value = parameter.held();
  if (value.is_meta()) return;
  value.storage()->bump_version();
  if (value.numel() > 0)
    write_values(value, [&](void* out) { file->read(name, 0, value.numel(), out, value.dtype()); });
}

}  // namespace

std::vector<Expected> expected_tensors(const Module& module) {
  std::vector<Expected> expected;
  for (const NamedParameter& p : module.named_parameters())
    expected.push_back({p.name, p.parameter.shape(), p.parameter.dtype(), false, p.aliases});
  for (const NamedBuffer& b : module.named_buffers()) {
    const Tensor& value = b.buffer.value();
    // Weights of other origin than PyTorch's often lack it, and nothing is computed from it.
    const bool optional =
        b.name == "num_batches_tracked" || b.name.ends_with(".num_batches_tracked");
    expected.push_back({b.name, value.shape(), value.dtype(), optional});
  }
  return expected;
}

std::vector<std::string> match_tensors(const SafetensorsFile& file,
                                       std::span<const Expected> expected) {
  std::vector<std::string> names, missing, unexpected, different;
  std::unordered_set<std::string_view> known;
  for (const Expected& e : expected) {
    std::vector<std::string> candidates{e.name};
    candidates.insert(candidates.end(), e.aliases.begin(), e.aliases.end());
    std::string name;
    for (const std::string& candidate : candidates) {
      const SafetensorsEntry* entry = file.find(candidate);
      if (entry == nullptr) continue;
      known.insert(entry->name);
      if (name.empty()) name = candidate;
      const std::string text = difference(*entry, e);
      if (!text.empty()) different.push_back(text);
    }
    if (name.empty() && !e.optional) missing.push_back(e.name);
    names.push_back(std::move(name));
  }
  for (const SafetensorsEntry& entry : file.entries())
    if (!known.contains(entry.name))
      unexpected.push_back(fmt::format("{} {}", printable(entry.name), entry.shape));
  std::sort(unexpected.begin(), unexpected.end());

  std::vector<std::string> parts;
  if (!missing.empty()) parts.push_back(joined("missing", missing));
  if (!unexpected.empty()) parts.push_back(joined("unexpected", unexpected));
  parts.insert(parts.end(), different.begin(), different.end());
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  SG_CHECK(parts.empty(), "[load] {} does not fit the model: {}", file.name(), text);
  return names;
}

void load_weights(Module& module, const std::filesystem::path& path) {
  const auto file = std::make_shared<SafetensorsFile>(path);
  const std::vector<NamedParameter> parameters = module.named_parameters();
  const std::vector<std::string> names = match_tensors(*file, expected_tensors(module));
  for (const NamedParameter& p : parameters)
    SG_CHECK(p.parameter.declared() || p.parameter.materialized(),
             "[load] {} is held by {}; load through the engine, or before it is made", p.name,
             p.parameter.var().impl().source->name());
  std::size_t i = 0;
  for (const NamedParameter& p : parameters) load_parameter(p.parameter, file, names[i++]);
  for (const NamedBuffer& b : module.named_buffers()) {
    const std::string& name = names[i++];
    const Tensor& value = b.buffer.value();
    if (!name.empty() && !value.is_meta()) value.copy_from(file->read(name));
  }
}

void save_weights(const Module& module, const std::filesystem::path& path) {
  std::vector<SafetensorsWriter::Declared> tensors;
  SafetensorsMetadata metadata{{"format", "pt"}};
  for (const Expected& e : expected_tensors(module)) {
    tensors.push_back({e.name, e.dtype, e.shape});
    for (const std::string& alias : e.aliases) metadata.emplace(alias, e.name);
  }
  SafetensorsWriter writer(path, tensors, metadata);
  constexpr std::int64_t kChunk = std::int64_t{1} << 20;
  const Scoped kind(current_rank().kind, Kind::buffers);
  for (const NamedParameter& p : module.named_parameters()) {
    const std::int64_t n = p.parameter.numel();
    const DType dtype = p.parameter.dtype();
    const Tensor chunk = Tensor::empty({std::min(n, kChunk)}, dtype, kCpu);
    for (std::int64_t i = 0; i < n; i += kChunk) {
      const std::int64_t count = std::min(kChunk, n - i);
      p.parameter.read(current_rank().seed, i, count, chunk.raw_data(), dtype);
      writer.write(p.name, chunk.raw_data(), count, dtype);
    }
  }
  for (const NamedBuffer& b : module.named_buffers()) writer.write(b.name, b.buffer.value());
  writer.finish();
}

}  // namespace sg::nn

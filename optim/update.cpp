#include "optim/update.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/cuda/cuda.h"
#include "optim/cuda/update.h"
#include "optim/spans.h"

namespace sg::optim {
namespace {

constexpr std::int64_t kBlock = cuda::Block::kElements;
constexpr std::size_t kAlignment = alignof(std::max_align_t);  // of a unit's coefficients

template <class T>
std::span<T> part_of(const Tensor& flat, const Section& section) {
  return span_of<T>(flat).subspan(static_cast<std::size_t>(section.begin),
                                  static_cast<std::size_t>(section.length));
}

template <class P, class T>
void run_on_cpu(const Optimizer& optimizer, const Tensor& param, const Tensor& grad,
                const std::vector<Tensor>& states, const std::vector<Section>& sections,
                const StepValues& values) {
  for (const Section& section : sections) {
    std::vector<std::span<T>> state;
    for (const Tensor& s : states) state.push_back(part_of<T>(s, section));
    optimizer.update(part_of<P>(param, section), std::span<const T>(part_of<T>(grad, section)),
                     state, section.hyper, values);
  }
}

}  // namespace

Update::Update(OptimizerPtr optimizer, Tensor param, std::vector<Tensor> states,
               std::vector<Section> sections)
    : optimizer_(std::move(optimizer)),
      param_(std::move(param)),
      states_(std::move(states)),
      sections_(std::move(sections)) {
  const std::string_view name = optimizer_->name();
  SG_CHECK(is_floating(param_.dtype()) && param_.dtype() != DType::f16,
           "[{}] parameters are {}; they are f32, f64 or bf16, so keep a master copy", name,
           describe(param_));
  SG_CHECK(std::ssize(states_) == optimizer_->state_slots(), "[{}] needs {} states ({}), got {}",
           name, optimizer_->state_slots(), fmt::join(optimizer_->state_names(), ", "),
           states_.size());
  for (std::size_t i = 0; i < states_.size(); ++i)
    SG_CHECK(
        states_[i].shape() == param_.shape() && states_[i].dtype() == state_dtype(param_.dtype()),
        "[{}] state {} is {} for parameters {}", name, optimizer_->state_names()[i],
        describe(states_[i]), describe(param_));
  std::int64_t end = 0;
  for (const Section& section : sections_) {
    SG_CHECK(section.begin >= end && section.length >= 0,
             "[{}] a section begins at {}, within the one before, which ends at {}", name,
             section.begin, end);
    end = section.begin + section.length;
  }
  SG_CHECK(end <= param_.numel(), "[{}] sections end at {} of {} elements", name, end,
           param_.numel());
  if (param_.is_cuda()) make_tables();
}

void Update::make_tables() {
  const Device device = param_.device();
  SG_CHECK(optimizer_->rule() != kernels::Rule::none,
           "[{}] its rule is compiled for the CPU alone; on {} use one of the library's optimizers",
           optimizer_->name(), name_of(device));
  std::vector<cuda::Block> blocks(static_cast<std::size_t>((param_.numel() + kBlock - 1) / kBlock));
  for (const Section& section : sections_) {
    SG_CHECK(section.begin % kBlock == 0,
             "[{}] on a GPU sections begin at multiples of {} elements, got {}", optimizer_->name(),
             kBlock, section.begin);
    auto group = std::find(groups_.begin(), groups_.end(), section.hyper);
    if (group == groups_.end()) group = groups_.insert(group, section.hyper);
    SG_CHECK(groups_.size() <= cuda::Block::kNobody,
             "[{}] on a GPU a unit has at most {} groups of hyperparameters", optimizer_->name(),
             cuda::Block::kNobody);
    for (std::int64_t at = 0; at < section.length; at += kBlock)
      blocks[static_cast<std::size_t>((section.begin + at) / kBlock)] = {
          static_cast<std::uint8_t>(group - groups_.begin()),
          static_cast<std::uint8_t>(std::min(kBlock, section.length - at))};
  }
  const Scoped kind(current_rank().kind, Kind::buffers);
  const std::size_t bytes = blocks.size() * sizeof(cuda::Block);
  blocks_ = Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::u8, device);
  write_values(blocks_, [&](void* out) { std::memcpy(out, blocks.data(), bytes); });
  set({});
}

void Update::check(const StepValues& values) const {
  SG_CHECK(values.step >= 1, "[{}] steps count from 1, got {}", optimizer_->name(), values.step);
  SG_CHECK(values.grad_divisor > 0, "[{}] grad_divisor must be > 0, got {}", optimizer_->name(),
           values.grad_divisor);
}

void Update::set(std::span<Update* const> updates, const StepValues& values) {
  struct Place {
    Update* update;
    std::size_t begin, end;
  };
  std::vector<Place> places;
  std::vector<std::byte> bytes;
  for (Update* const update : updates) {
    update->check(values);
    update->values_ = values;
    if (!SG_CUDA || !update->param_.is_cuda() || update->groups_.empty()) continue;
    bytes.resize((bytes.size() + kAlignment - 1) / kAlignment * kAlignment);
    const std::size_t begin = bytes.size();
    for (const Hyper& hyper : update->groups_)
      update->optimizer_->coefficients(state_dtype(update->param_.dtype()), hyper, values, bytes);
    places.push_back({update, begin, bytes.size()});
  }
  if (places.empty()) return;
  // One tensor, of which each has its part; it stays where it is, as captured work reads it.
  const Update& first = *places.front().update;
  const Device device = first.param_.device();
  const bool placed = std::all_of(places.begin(), places.end(), [&](const Place& p) {
    const Tensor& own = p.update->coefficients_;
    return own.defined() && own.storage() == first.coefficients_.storage() &&
           own.offset() == static_cast<std::int64_t>(p.begin) &&
           own.storage()->bytes() == bytes.size();
  });
  if (!placed) {
    const Scoped kind(current_rank().kind, Kind::buffers);
    const Tensor all = Tensor::empty({std::ssize(bytes)}, DType::u8, device);
    for (const Place& p : places)
      p.update->coefficients_ = all.slice(0, static_cast<std::int64_t>(p.begin),
                                          static_cast<std::int64_t>(p.end - p.begin));
  }
  sg::cuda::store(device, first.coefficients_.storage()->data(), bytes);
}

void Update::run(const Tensor& grad) const {
  SG_CHECK(grad.shape() == param_.shape() && grad.dtype() == state_dtype(param_.dtype()),
           "[{}] gradients are {} for parameters {}", optimizer_->name(), describe(grad),
           describe(param_));
  if (values_.skip || param_.is_meta()) return;
  if (!SG_CUDA || !param_.is_cuda()) {
    const auto run = [&]<class P, class T>(Type<P>, Type<T>) {
      run_on_cpu<P, T>(*optimizer_, param_, grad, states_, sections_, values_);
    };
    if (param_.dtype() == DType::f64) return run(Type<double>{}, Type<double>{});
    if (param_.dtype() == DType::bf16) return run(Type<bf16>{}, Type<float>{});
    return run(Type<float>{}, Type<float>{});
  }
  if (groups_.empty()) return;
  cuda::Span span{param_.dtype(),
                  param_.dtype(),
                  param_.raw_data(),
                  grad.raw_data(),
                  {},
                  param_.numel(),
                  static_cast<const cuda::Block*>(blocks_.raw_data()),
                  coefficients_.raw_data()};
  SG_CHECK(states_.size() <= cuda::Span::kStates, "[{}] has {} states", optimizer_->name(),
           states_.size());
  for (std::size_t i = 0; i < states_.size(); ++i) span.states[i] = states_[i].raw_data();
  cuda::update(optimizer_->rule(), optimizer_->name(), param_.device(), span);
}

}  // namespace sg::optim

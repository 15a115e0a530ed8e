// The moment `initialize`, and the end of an engine.
#include "dist/engine.h"

namespace sg::dist {

Group no_decay() {
  return {[](const std::string&, const Shape& shape) { return shape.size() <= 1; },
          {.weight_decay = 0}};
}

Engine::Engine(std::shared_ptr<nn::Module> module, optim::OptimizerPtr optimizer,
               EngineOptions options)
    : module_(std::move(module)),
      optimizer_(std::move(optimizer)),
      options_(std::move(options)),
      plan_(find_plan(options_.plan)),
      comm_(options_.comm != nullptr ? *options_.comm : current_comm()) {
  SG_CHECK(module_ != nullptr && optimizer_ != nullptr,
           "[initialize] needs a module and an optimizer");
  SG_CHECK(options_.accumulate >= 1, "[initialize] accumulate must be at least 1, got {}",
           options_.accumulate);
  SG_CHECK(options_.clip_norm >= 0, "[initialize] clip_norm must not be negative, got {}",
           options_.clip_norm);
  for (const Group& group : options_.groups) hypers_.push_back(optimizer_->group(group.options));
  hypers_.push_back(optimizer_->defaults());

  for (UnitLayout& layout :
       make_units(module_->named_parameters(), comm_.size(), options_.unit_elements)) {
    auto unit = std::make_unique<Unit>();
    static_cast<UnitLayout&>(*unit) = std::move(layout);
    unit->index = static_cast<int>(units_.size());
    units_.push_back(std::move(unit));
  }
  prefetcher_ = std::make_unique<Prefetcher>(comm_, units_, account_, options_.prefetch);
  reducer_ = std::make_shared<GradReducer>(comm_, plan_, units_);
  bool trainable = false;
  std::vector<std::weak_ptr<Source>> links;
  for (auto& unit : units_) {
    sources_.push_back(std::make_shared<ShardedSource>(*unit, *prefetcher_));
    links.push_back(sources_.back());
    trainable = trainable || unit->trainable;
  }
  prefetcher_->set_sources(std::move(links));
  SG_CHECK(trainable, "[initialize] the module has no parameter that requires a gradient");
  for (const auto& unit : units_)
    for (const Segment& s : unit->segments)
      SG_CHECK(!s.parameter().managed(), "[initialize] {} already belongs to an engine", s.name());
  // Nothing has changed up to here.
  const Scoped account(current_rank().account, account_);
  try {
    for (auto& unit : units_) allocate(*unit);
  } catch (...) {
    release();
    throw;
  }
}

Engine::~Engine() {
  // While an exception is on its way, nobody is waited for: peers that do not know of it yet may
  // never come. What this rank posted is kept by its Comm until they have left.
  if (std::uncaught_exceptions() <= exceptions_) {
    try {
      prefetcher_->drop();
      reducer_->wait();
      comm_.quiesce();  // peers may still read what this rank posted
    } catch (const std::exception&) {
      // A peer failed; its error is on its way to the caller.
    }
  }
  release();
}

// Parameters and graphs may outlive the engine.
void Engine::release() {
  for (auto& unit : units_)
    for (Segment& s : unit->segments) {
      s.parameter().var().impl().sink = nullptr;
      s.parameter().manage("");
    }
  for (const auto& source : sources_) source->close();
}

// Makes what this rank keeps of a unit, and nothing else: a rank computes the initial values of its
// own span only.
void Engine::allocate(Unit& unit) {
  Rank& rank = current_rank();
  const int ranks = comm_.size();
  const std::int64_t kept = unit.count(plan_.param.layout, ranks);
  const std::int64_t begin = plan_.param.layout == Layout::shard ? comm_.rank() * kept : 0;
  {
    const Scoped kind(rank.kind, Kind::parameters);
    unit.rest = Tensor::zeros({kept}, unit.dtype);
    unit.rest.storage()->name = "unit " + unit.name;
  }
  for (int s = 0; s < static_cast<int>(unit.segments.size()); ++s) {
    Segment& segment = unit.segments[static_cast<std::size_t>(s)];
    VarImpl& v = segment.parameter().var().impl();
    const std::int64_t from = std::max(begin, segment.offset);
    const std::int64_t to = std::min(begin + kept, segment.offset + segment.length);
    if (from < to && !rank.device.is_meta())
      write_values(unit.rest.slice(0, from - begin, to - from), [&](void* out) {
        segment.parameter().read(rank.seed, from - segment.offset, to - from, out, unit.dtype);
      });
    if (plan_.param.layout == Layout::shard)
      segment.parameter().attach(sources_[static_cast<std::size_t>(unit.index)], segment.offset);
    else
      segment.parameter().attach(segment.view_of(unit.rest));
    if (unit.trainable) v.sink = std::make_shared<SegmentSink>(reducer_, unit, s);
    segment.parameter().manage("an engine");
  }
  if (!unit.trainable) return;
  {
    const Scoped kind(rank.kind, Kind::gradients);
    unit.accumulated = Tensor::zeros({unit.count(plan_.grad.layout, ranks)}, unit.grad_dtype);
  }
  const std::int64_t updated = unit.count(plan_.state.layout, ranks);
  unit.update_begin = plan_.state.layout == Layout::shard ? comm_.rank() * updated : 0;
  unit.update_end = unit.update_begin + updated;
  const Scoped kind(rank.kind, Kind::optimizer);
  for (int i = 0; i < optimizer_->state_slots(); ++i)
    unit.states.push_back(Tensor::zeros({updated}, unit.grad_dtype));
  std::vector<optim::Section> sections;
  for (Segment& segment : unit.segments) {
    segment.group = static_cast<int>(options_.groups.size());
    for (int g = segment.group - 1; g >= 0; --g)
      if (options_.groups[static_cast<std::size_t>(g)].matches(segment.name(), segment.shape()))
        segment.group = g;
    const std::int64_t from = std::max(segment.offset, unit.update_begin);
    const std::int64_t to = std::min(segment.offset + segment.length, unit.update_end);
    if (from < to)
      sections.push_back(
          {from - unit.update_begin, to - from, hypers_[static_cast<std::size_t>(segment.group)]});
  }
  unit.update.emplace(optimizer_, part(unit.rest, unit), unit.states, std::move(sections));
}

// What this rank updates of a flat tensor, which holds the whole unit or that part of it.
Tensor Engine::part(const Tensor& flat, const Unit& unit) {
  const std::int64_t begin = flat.numel() == unit.padded ? unit.update_begin : 0;
  return flat.slice(0, begin, unit.update_end - unit.update_begin);
}

double Engine::learning_rate() const {
  return hypers_.back().lr * options_.schedule.factor(steps_ > 0 ? steps_ : 1);
}

std::int64_t Engine::parameter_count() const {
  std::int64_t count = 0;
  for (const auto& unit : units_) count += unit->elements;
  return count;
}

std::unique_ptr<Engine> initialize(std::shared_ptr<nn::Module> module,
                                   optim::OptimizerPtr optimizer, EngineOptions options) {
  return std::make_unique<Engine>(std::move(module), std::move(optimizer), std::move(options));
}

}  // namespace sg::dist

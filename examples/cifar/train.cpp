#include "examples/cifar/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "autograd/ops.h"
#include "core/rng.h"
#include "data/loader.h"
#include "dist/stop_signals.h"
#include "examples/cifar/nets.h"
#include "examples/common/progress.h"

namespace sg::cifar {
namespace {

using examples::Clock;
using examples::Progress;

/// What rank 0 prints and records of the steps. A loss that a GPU still computes is read after the
/// next step has been given to it, so that it is never idle.
class Log {
 public:
  Log(const Run& run, std::int64_t total, std::int64_t steps_per_epoch, bool speaks)
      : o_(run.options),
        plan_(run.plan.name),
        per_epoch_(steps_per_epoch),
        total_(total),
        speaks_(speaks),
        metrics_(run.metrics),
        progress_(std::string(plan_), total, o_.batch_size, speaks) {
    if (speaks) steps_.reserve(static_cast<std::size_t>(std::min<std::int64_t>(total, 1 << 20)));
  }

  void step(const dist::Engine& engine, Clock::time_point start) {
    finish();
    const Clock::time_point now = Clock::now();
    pending_ = Pending{.loss = engine.step_loss(),
                       .step = engine.steps(),
                       .end = now,
                       .record = {.grad_norm = engine.grad_norm(),
                                  .lr = engine.learning_rate(),
                                  .seconds = std::chrono::duration<double>(now - start).count()}};
    if (pending_->loss.ready()) finish();
  }

  /// After the last step: waits for its loss, which is a part of its time.
  void end() {
    if (!pending_) return;
    pending_->loss.get();
    const Clock::time_point now = Clock::now();
    pending_->record.seconds += std::chrono::duration<double>(now - pending_->end).count();
    finish();
  }

  /// Prints `[epoch, step] loss`, the mean since the last such line.
  void flush() {
    if (count_ == 0) return;
    const std::int64_t last = std::ssize(steps_) - 1;
    progress_.line(fmt::format("[{}, {:5}] loss: {:.3f}", last / per_epoch_ + 1,
                               last % per_epoch_ + 1, sum_ / static_cast<double>(count_)));
    if (metrics_ != nullptr)
      metrics_->write_steps(plan_, o_.batch_size,
                            std::span(steps_).subspan(static_cast<std::size_t>(written_)),
                            written_);
    written_ = std::ssize(steps_);
    sum_ = 0;
    count_ = 0;
  }

  std::vector<StepRecord> take() { return std::move(steps_); }

 private:
  struct Pending {
    dist::StepLoss loss;
    std::int64_t step;
    Clock::time_point end;
    StepRecord record;
  };
  // Records the step whose loss was not known yet.
  void finish() {
    if (!pending_) return;
    Pending done = *std::exchange(pending_, std::nullopt);
    done.record.loss = done.loss.get();
    if (speaks_) {
      steps_.push_back(done.record);
      progress_.update(done.step, done.end);
      sum_ += done.record.loss;
      ++count_;
      if (done.step % o_.log_interval == 0 || done.step == total_) flush();
    }
    SG_CHECK(std::isfinite(done.record.loss),
             "[train] the loss is {} at step {}; try a smaller --lr, or --clip-norm 1",
             done.record.loss, done.step);
  }

  const Options& o_;
  const std::string_view plan_;
  const std::int64_t per_epoch_, total_;
  const bool speaks_;
  Metrics* const metrics_;
  Progress progress_;
  std::optional<Pending> pending_;
  std::vector<StepRecord> steps_;
  std::int64_t written_ = 0, count_ = 0;
  double sum_ = 0;
};

/// A digest of every bit of every parameter, in order. Collective.
std::uint64_t digest_of_weights(dist::Engine& engine) {
  std::uint64_t digest = 0;
  for (const auto& unit : engine.units())
    for (const dist::Segment& segment : unit->segments) {
      const Tensor value = engine.full_parameter(segment.name()).contiguous().to(kCpu);
      const std::string_view bytes(static_cast<const char*>(value.raw_data()),
                                   static_cast<std::size_t>(value.bytes()));
      digest = mix_keys(digest, name_key(bytes));
    }
  return digest;
}

void print_summary(const Options& o, const Result& result) {
  if (result.steps.empty()) return;
  double seconds = 0;
  for (const StepRecord& step : result.steps) seconds += step.seconds;
  const std::int64_t samples = o.batch_size * std::ssize(result.steps);
  fmt::print("{} steps in {:.2f} s: {} samples/s; median step {:.3f} ms\n",
             examples::thousands(std::ssize(result.steps)), seconds,
             examples::thousands(std::llround(static_cast<double>(samples) / seconds)),
             result.seconds_per_step() * 1e3);
}

/// What each rank does. Rank 0 speaks for all; the first rank of a process fills its `result`.
void train_rank(const Run& run, const Rank& rank, Result& result) {
  const Options& o = run.options;
  const std::int64_t total = steps_to_train(o, run.data.train->size());
  auto engine = dist::initialize(make_net(o.net, o.checkpoint_activations, o.element_type()),
                                 make_optimizer(o), engine_options(o, run.plan, total));
  if (!o.init.empty()) engine->load_weights(o.init);
  data::Loader loader(run.data.train, loader_options(o));
  Log log(run, total, loader.steps_per_epoch(), rank.index == 0);
  dist::MicroBatch micro_batch = engine->micro_batch([&](std::span<const Var> x) {
    return cross_entropy(cast(engine->module()(x[0]), o.loss_type()), x[1].value());
  });

  while (engine->steps() < total && !engine->stop_requested()) {
    const Clock::time_point start = Clock::now();
    for (int a = 0; a < o.accumulate; ++a) {
      const data::Batch& batch = loader.next();
      micro_batch({batch.images, batch.labels});
    }
    if (dist::stop_signalled()) engine->request_stop();
    engine->step();
    log.step(*engine, start);
  }
  log.end();

  const bool interrupted = engine->steps() < total;
  dist::Report report = engine->report();
  const std::uint64_t weights = digest_of_weights(*engine);
  if (run.save_weights) engine->save_weights(o.save_weights);
  std::optional<Accuracy> accuracy;
  const bool worth_testing = total > 0 || !o.init.empty();
  if (o.evaluate && worth_testing && !interrupted)
    accuracy = evaluate(*engine, run.data.test, o.element_type());

  if (rank.index != run.job.first_rank()) return;
  log.flush();
  result = {log.take(), std::move(report), weights, std::move(accuracy), interrupted};
  if (run.job.speaks()) print_summary(o, result);
}

}  // namespace

double Result::seconds_per_step() const {
  if (steps.empty()) return 0;
  std::vector<double> seconds;
  for (const StepRecord& step : steps) seconds.push_back(step.seconds);
  std::sort(seconds.begin(), seconds.end());
  const std::size_t n = seconds.size();
  return (seconds[(n - 1) / 2] + seconds[n / 2]) / 2;
}

Result train(const Run& run) {
  Result result;
  const auto rank_main = [&](const Rank& rank) { train_rank(run, rank, result); };
  run.job.run(rank_main);
  return result;
}

}  // namespace sg::cifar

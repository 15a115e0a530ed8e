#include "examples/cifar/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "data/loader.h"

namespace sg::cifar {
namespace {

constexpr std::int64_t kRankBatch =
    125;  // images; 2,000 and 10,000 are multiples for 1, 2, 4, 8 ranks

double ratio(std::int64_t part, std::int64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

std::int64_t sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

}  // namespace

double Accuracy::overall() const { return ratio(sum(correct), sum(images)); }

double Accuracy::of(std::size_t label) const { return ratio(correct[label], images[label]); }

std::string Accuracy::text(bool by_class) const {
  std::string out =
      fmt::format("test accuracy: {:.2f} % of {} images\n", 100 * overall(), sum(images));
  if (!by_class) return out;
  std::size_t width = 0;
  for (const std::string& name : classes) width = std::max(width, name.size());
  for (std::size_t c = 0; c < classes.size(); ++c)
    out += fmt::format("  {:<{}}  {:6.2f} %\n", classes[c], width, 100 * of(c));
  return out;
}

Accuracy evaluate(dist::Engine& engine, const data::DatasetPtr& set, DType dtype) {
  engine.sync_buffers();  // batch norm's statistics: during training each rank keeps its own
  engine.module().train(false);
  const NoGrad no_grad;
  data::LoaderOptions options = data::evaluation(kRankBatch * engine.comm().size());
  options.dtype = dtype;
  data::Loader loader(set, options);

  const std::size_t classes = set->classes.size();
  std::vector<std::int64_t> counts(2 * classes);  // correct, then images
  for (const data::Batch& batch : loader.epoch(0)) {
    const Tensor logits = engine.forward(batch.images).value();
    const std::vector<double> rows = logits.to_doubles();
    const std::vector<std::int64_t> labels = batch.labels.to_vector<std::int64_t>();
    for (std::int64_t i = 0; i < batch.valid; ++i) {  // the rest is there to fill the batch
      const auto row = rows.begin() + i * static_cast<std::ptrdiff_t>(classes);
      const auto best = std::max_element(row, row + static_cast<std::ptrdiff_t>(classes)) - row;
      const auto label = static_cast<std::size_t>(labels[static_cast<std::size_t>(i)]);
      counts[label] += best == labels[i];
      counts[classes + label] += 1;
    }
  }
  engine.module().train(true);
  counts = engine.sum_over_ranks(counts);
  const auto middle = counts.begin() + static_cast<std::ptrdiff_t>(classes);
  return {set->classes, {counts.begin(), middle}, {middle, counts.end()}};
}

}  // namespace sg::cifar

#include "examples/cifar/metrics.h"

#include <fmt/format.h>

#include <bit>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/check.h"
#include "core/ledger.h"
#include "examples/cifar/train.h"

namespace sg::cifar {
namespace {

using Json = nlohmann::ordered_json;

Json bytes_of(const dist::Report& report) {
  Json bytes;
  for (int k = 0; k < kKinds; ++k) {
    const Kind kind = static_cast<Kind>(k);
    const dist::Report::Bytes& b = report.bytes[static_cast<std::size_t>(k)];
    Json& entry = bytes[std::string(name_of(kind))];
    if (kind != Kind::activations && kind != Kind::buffers) entry["predicted"] = b.predicted;
    entry["measured"] = b.measured;
  }
  return bytes;
}

Json traffic_of(const dist::Report& report) {
  Json traffic;
  for (const auto& [name, flow] : report.traffic)
    traffic[name] = {{"predicted_calls", flow.predicted.calls},
                     {"calls", flow.shown().calls},
                     {"predicted_bytes", flow.predicted.bytes},
                     {"bytes", flow.shown().bytes}};
  return traffic;
}

Json summary_of(const Result& result) {
  const dist::Report& report = result.report;
  Json s = {{"plan", report.plan},
            {"ranks", report.ranks},
            {"accumulate", report.accumulate},
            {"parameters", report.parameters},
            {"units", report.units},
            {"steps", report.steps},
            {"bytes", bytes_of(report)},
            {"traffic", traffic_of(report)},
            {"weights_digest", fmt::format("{:016x}", result.weights)},
            {"test_accuracy", nullptr},
            {"test_accuracy_by_class", nullptr},
            {"seconds_per_step", result.seconds_per_step()},
            {"interrupted", result.interrupted}};
  if (result.accuracy) {
    s["test_accuracy"] = result.accuracy->overall();
    Json& by_class = s["test_accuracy_by_class"] = Json::object();
    for (std::size_t c = 0; c < result.accuracy->classes.size(); ++c)
      by_class[result.accuracy->classes[c]] = result.accuracy->of(c);
  }
  return {{"summary", std::move(s)}};
}

}  // namespace

std::string loss_bits(double loss) {
  return fmt::format("{:08x}", std::bit_cast<std::uint32_t>(static_cast<float>(loss)));
}

Metrics::Metrics(std::string file) : file_(std::move(file)), out_(file_, std::ios::trunc) {
  SG_CHECK(out_.good(), "--metrics {}: cannot write there; name a file in a folder that exists",
           file_);
}

Metrics::~Metrics() {
  for (const std::string& line : summaries_) out_ << line << '\n';
}

void Metrics::write_steps(std::string_view plan, std::int64_t batch_size,
                          std::span<const StepRecord> steps, std::int64_t first) {
  for (const StepRecord& step : steps) {
    Json line = {{"plan", plan},
                 {"step", ++first},
                 {"loss", step.loss},
                 {"loss_bits", loss_bits(step.loss)},
                 {"grad_norm", nullptr},
                 {"lr", step.lr},
                 {"samples_per_second", static_cast<double>(batch_size) / step.seconds}};
    if (step.grad_norm) line["grad_norm"] = *step.grad_norm;
    out_ << line.dump() << '\n';
  }
  out_.flush();
}

void Metrics::add_summary(const Result& result) { summaries_.push_back(summary_of(result).dump()); }

void Metrics::finish() {
  for (const std::string& line : std::exchange(summaries_, {})) out_ << line << '\n';
  out_.flush();
  SG_CHECK(out_.good(), "[metrics] writing {} failed; is the disk full?", file_);
}

}  // namespace sg::cifar

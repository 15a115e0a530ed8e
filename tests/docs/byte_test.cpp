// Walks one byte of fc1.weight through a step of zero3 on four ranks, and holds
// docs/a-byte-through-zero3.md to it.
#include <fmt/format.h>

#include <bit>
#include <map>
#include <mutex>

#include "autograd/node.h"
#include "data/loader.h"
#include "data/synthetic.h"
#include "dist/engine.h"
#include "dist/launch.h"
#include "nn/nn.h"
#include "optim/adam.h"
#include "tests/docs/support.h"

namespace sg::docs {
namespace {

constexpr int kRanks = 4;
constexpr std::int64_t kRow = 77, kColumn = 123, kElement = kRow * 400 + kColumn;
constexpr int kByte = 2;  // of the element's four, from the lowest

std::string thousands(std::int64_t n) {
  std::string digits = std::to_string(n);
  for (int i = static_cast<int>(digits.size()) - 3; i > 0; i -= 3)
    digits.insert(static_cast<std::size_t>(i), ",");
  return digits;
}

std::string byte_of(float value) {
  return fmt::format("0x{:02x}", (std::bit_cast<std::uint32_t>(value) >> (8 * kByte)) & 0xff);
}

// Lines in the order in which they were noted; a moment of one rank, or of all ranks alike.
struct Notes {
  std::mutex mutex;
  std::vector<std::string> moments;
  std::map<int, float> partials;
};

// The moment's bookings of one rank, since the engine was made.
void note(Notes& notes, const std::string& moment) {
  const Rank& rank = current_rank();
  if (rank.device.is_meta() || rank.index != 2) return;
  const Ledger& l = rank.ledger();
  const Traffic gather = l.traffic(Phase::training, "all_gather");
  const Traffic scatter = l.traffic(Phase::training, "reduce_scatter");
  const std::lock_guard lock(notes.mutex);
  notes.moments.push_back(fmt::format(
      "{:<34} {:>8} {:>11} {:>9} {:>11} {:>9}", moment, thousands(l.live(Kind::gathered)),
      gather.calls, thousands(gather.bytes), scatter.calls, thousands(scatter.bytes)));
}

// The identity, which notes when forward and backward pass through it.
struct Probe : nn::Module {
  Notes* notes;
  std::string forward_moment, backward_moment;
  Probe(Notes& notes, std::string forward_moment, std::string backward_moment)
      : notes(&notes),
        forward_moment(std::move(forward_moment)),
        backward_moment(std::move(backward_moment)) {}
  Var forward(const Var& x) override {
    note(*notes, forward_moment);
    return record("probe", {x}, x.value(),
                  [notes = notes, moment = backward_moment](Backward& back) {
                    note(*notes, moment);
                    back.set(0, back.grad());
                  });
  }
};

// The engine's sink of fc1.weight, with an ear: what this rank alone found for the element.
struct Ear : GradSink {
  std::shared_ptr<GradSink> sink;
  Notes& notes;
  Ear(std::shared_ptr<GradSink> sink, Notes& notes) : sink(std::move(sink)), notes(notes) {}
  Tensor target(const VarImpl& leaf) override { return sink->target(leaf); }
  void ready(VarImpl& leaf, const Tensor& gradient) override {
    if (!current_rank().device.is_meta()) {
      const std::lock_guard lock(notes.mutex);
      notes.partials[current_rank().index] =
          static_cast<float>(gradient.select(0, kRow).select(0, kColumn).item());
    }
    sink->ready(leaf, gradient);
  }
};

nn::Sequential tutorial(Notes& notes) {
  return nn::sequential(
      nn::named("conv1", nn::Conv2d(3, 6, 5)), nn::ReLU(), nn::MaxPool2d(2),
      nn::named("conv2", nn::Conv2d(6, 16, 5)), nn::ReLU(), nn::MaxPool2d(2), nn::Flatten(),
      nn::named("p1", Probe(notes, "forward reaches fc1", "backward has left fc1")),
      nn::named("fc1", nn::Linear(400, 120)), nn::ReLU(),
      nn::named("p2", Probe(notes, "forward has left fc1", "backward reaches fc1")),
      nn::named("fc2", nn::Linear(120, 84)), nn::ReLU(), nn::named("fc3", nn::Linear(84, 10)));
}

// A rank's own copy of an element of a flat tensor at rest.
float at(const Tensor& flat, std::int64_t i) { return flat.data<float>()[i]; }

struct Walk {
  std::string place, bookings, numbers;
  dist::Report report;
};

Walk walk() {
  Walk walk;
  Notes notes;
  const data::Splits images = data::synthetic({.train = 640, .test = 10});
  const auto body = [&](Rank& rank) {
    const nn::Sequential net = tutorial(notes);
    EXPECT_TRUE(net.parameter_named("fc1.weight").declared());
    auto engine = dist::initialize(net, optim::adam({.lr = 1e-3}), {.plan = "zero3"});

    const dist::Unit* unit = nullptr;
    const dist::Segment* segment = nullptr;
    for (const auto& u : engine->units())
      for (const dist::Segment& s : u->segments)
        if (s.name() == "fc1.weight") unit = u.get(), segment = &s;
    const std::int64_t in_unit = segment->offset + kElement, shard = unit->padded / kRanks;
    const int owner = static_cast<int>(in_unit / shard);
    const std::int64_t in_shard = in_unit - owner * shard;
    const bool owns = rank.index == owner;
    if (owns) {
      std::string& text = walk.place;
      for (const auto& u : engine->units()) {
        text += fmt::format("unit {}  {:<14} {:>6} elements, {:>6} padded, shards of {:>6}\n",
                            u->index, u->name, thousands(u->elements), thousands(u->padded),
                            thousands(u->padded / kRanks));
        for (const dist::Segment& s : u->segments)
          text += fmt::format("        {:<14} {:>6} elements at {:>6}\n", s.name(),
                              thousands(s.length), thousands(s.offset));
      }
      text += fmt::format(
          "\nfc1.weight[{}, {}] is element {} of unit {}, element {} of rank {}'s shard;\n"
          "its byte {} is byte {} of the unit, byte {} of the shard\n",
          kRow, kColumn, thousands(in_unit), unit->index, thousands(in_shard), owner, kByte,
          thousands(4 * in_unit + kByte), thousands(4 * in_shard + kByte));
    }
    VarImpl& leaf = net.parameter_named("fc1.weight").var().impl();
    leaf.sink = std::make_shared<Ear>(leaf.sink, notes);

    data::Loader loader(images.train, {.batch_size = 64});
    const float before = owns ? at(unit->rest, in_shard) : 0;
    note(notes, "initialized");
    const data::Batch& batch = loader.next();
    const Var loss = nn::cross_entropy((*engine)(batch.images), batch.labels);
    note(notes, "forward is done");
    engine->backward(loss);
    note(notes, "backward is done");
    const std::uint64_t version = unit->version;
    engine->step();
    note(notes, "step is done");
    if (owns) {
      const float sum = at(unit->accumulated, in_shard);
      float by_hand = 0;
      for (const auto& [r, partial] : notes.partials)
        by_hand = r == 0 ? partial : by_hand + partial;
      EXPECT_EQ(by_hand, sum) << "summed in rank order, from rank 0 on";
      EXPECT_EQ(unit->version, version + 1);
      const float after = at(unit->rest, in_shard);
      std::string& text = walk.numbers;
      text +=
          fmt::format("{:<22} {:>10.6f}   byte {}: {}\n", "value", before, kByte, byte_of(before));
      for (const auto& [r, partial] : notes.partials)
        text += fmt::format("{:<22} {:>10.2e}\n", fmt::format("partial of rank {}", r), partial);
      text += fmt::format("{:<22} {:>10.2e}\n", "sum", sum);
      text += fmt::format("{:<22} {:>10.2e}\n", "mean gradient, sum / 4", sum / 4);
      text += fmt::format("{:<22} {:>10.2e}\n", "exp_avg", at(unit->states[0], in_shard));
      text += fmt::format("{:<22} {:>10.2e}\n", "exp_avg_sq", at(unit->states[1], in_shard));
      text += fmt::format("{:<22} {:>10.6f}   byte {}: {}\n", "value after the step", after, kByte,
                          byte_of(after));
      text += fmt::format("{:<22} {:>10}\n", "version of the unit", unit->version);
      // Anybody may ask for the whole, and finds what the owner wrote.
    }
    const double whole =
        engine->full_parameter("fc1.weight").select(0, kRow).select(0, kColumn).item();
    if (owns) {
      EXPECT_EQ(static_cast<float>(whole), at(unit->rest, in_shard));
    }
    const dist::Report report = engine->report();
    if (owns) walk.report = report;
  };
  dist::launch_ranks(kRanks, body, {.threads = 1});
  walk.bookings = fmt::format("{:<34} {:>8} {:>21} {:>21}\n", "", "gathered", "sent by all_gather",
                              "by reduce_scatter");
  walk.bookings += fmt::format("{:<34} {:>8} {:>11} {:>9} {:>11} {:>9}\n", "moment", "bytes",
                               "calls", "bytes", "calls", "bytes");
  for (const std::string& moment : notes.moments) walk.bookings += moment + "\n";
  return walk;
}

TEST(AByteThroughZero3, NumbersAreTheCodes) {
  const std::string page = "docs/a-byte-through-zero3.md";
  const Walk w = walk();
  EXPECT_EQ(w.place, quoted_output(page, "place"));
  EXPECT_EQ(w.bookings, quoted_output(page, "bookings"));
  EXPECT_EQ(w.numbers, quoted_output(page, "numbers"));
  EXPECT_TRUE(w.report.matches()) << w.report.text();
  // Numbers in the page's sentences.
  const std::string text = read(root() / page);
  const auto bytes = [&](Kind kind) {
    return thousands(w.report.bytes[static_cast<std::size_t>(kind)].measured[2]);
  };
  for (const std::string& number :
       {bytes(Kind::parameters) + " bytes of parameters",
        bytes(Kind::optimizer) + " bytes of optimizer state",
        "at most " +
            thousands(w.report.bytes[static_cast<std::size_t>(Kind::gathered)].predicted[2]) +
            " bytes",
        "peak of " + bytes(Kind::gathered),
        thousands(w.report.traffic.at("all_gather").measured[2].bytes) + " bytes of all-gather",
        thousands(w.report.traffic.at("reduce_scatter").measured[2].bytes) +
            " bytes of reduce-scatter"})
    EXPECT_NE(text.find(number), std::string::npos) << number;
}

}  // namespace
}  // namespace sg::docs

// What the programs do, from outside: equal bits, files, lines, signals.
#include <fmt/format.h>

#include <bit>
#include <chrono>
#include <csignal>
#include <cstring>
#include <fstream>
#include <regex>
#include <thread>

#include "core/safetensors.h"
#include "tests/examples/support.h"
#include "tests/support/files.h"
#include "tests/support/processes.h"

namespace sg::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

int occurrences(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  return static_cast<int>(std::distance(std::sregex_iterator(text.begin(), text.end(), regex), {}));
}

class LinearOf : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(DTypes, LinearOf, testing::Values("f32", "bf16", "f64"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(LinearOf, PrintsTenLossesThatFallAndAreEqualUnderEveryPlan) {
  const auto losses = [](const std::string& options) {
    const Outcome outcome = run("linear", options + " --threads 1 --dtype " + GetParam());
    EXPECT_EQ(outcome.status, 0) << options << outcome.err;
    return outcome.out.substr(0, outcome.out.find("\n\n"));
  };
  const std::string four = losses("--ranks 4 --plan ddp");
  EXPECT_EQ(occurrences(four, "step +[0-9]+ +loss [0-9.]+"), 10);
  std::vector<double> values;
  const std::regex number("loss ([0-9.]+)");
  for (std::sregex_iterator i(four.begin(), four.end(), number), end; i != end; ++i)
    values.push_back(std::stod((*i)[1]));
  for (std::size_t i = 1; i < values.size(); ++i) EXPECT_LT(values[i], values[i - 1]) << four;
  for (const char* plan : {"zero1", "zero2", "zero3"})
    EXPECT_EQ(losses(fmt::format("--ranks 4 --plan {}", plan)), four) << plan;
  EXPECT_EQ(losses("--ranks 4 --stage 3"), four);
  EXPECT_EQ(losses("--ranks 1 --accumulate 4"), four);
  EXPECT_EQ(losses("--ranks 2 --accumulate 2 --plan zero3"), four);
}

bool waits_for(const Process& process, const std::string& text) {
  return eventually([&] { return process.out().find(text) != std::string::npos; }, 60);
}

TEST(Linear, StopSignalsEndItAfterAStep) {
  for (const int number : {SIGINT, SIGTERM}) {
    Process process("linear", "--ranks 2 --plan zero3 --threads 1 --steps 1000000000");
    ASSERT_TRUE(waits_for(process, "loss"));
    process.signal(number);
    const Outcome outcome = process.wait();
    EXPECT_EQ(outcome.status, 130) << outcome.err;
    EXPECT_EQ(occurrences(outcome.out, "reduce_scatter"), 1) << "the report is missing";
  }
}

TEST(Cifar, ASecondStopSignalEndsItAtOnce) {
  // One step takes many seconds.
  Process process("cifar", "--net vgg --batch-size 10000 --accumulate 100 --threads 1 --no-eval");
  ASSERT_TRUE(waits_for(process, "\nddp\n"));
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  process.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  process.signal(SIGINT);
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = process.wait();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(outcome.status, 128 + SIGINT) << outcome.err;
  EXPECT_EQ(outcome.out.find("stopped by a signal"), std::string::npos) << "it finished the step";
  EXPECT_LT(seconds.count(), 5);
}

// A handler on a thread that is in a matrix product of oneDNN's may damage its values.
TEST(Cifar, NoThreadThatComputesTakesStopSignals) {
  for (const char* ranks : {"--ranks 1 --threads 2", "--ranks 2 --threads 1"}) {
    Process process("cifar", fmt::format("--epochs 1000000 --log-interval 5 --data {} {}",
                                         small_data(), ranks));
    ASSERT_TRUE(waits_for(process, "] loss:"));
    int takers = 0, threads = 0;
    for (const auto& task : fs::directory_iterator(fmt::format("/proc/{}/task", process.pid()))) {
      const std::string status = read_file(task.path() / "status");
      const std::size_t at = status.find("SigBlk:\t");
      ASSERT_NE(at, std::string::npos);
      const std::uint64_t blocked = std::stoull(status.substr(at + 8, 16), nullptr, 16);
      ++threads;
      for (const int number : {SIGINT, SIGTERM})
        takers += (blocked >> (number - 1) & 1) == 0 ? 1 : 0;
    }
    EXPECT_GE(threads, 3);
    EXPECT_EQ(takers, 2) << "one thread takes both signals";
    process.signal(SIGTERM);
    EXPECT_EQ(process.wait().status, 130);
  }
}

TEST(Cifar, AllPlansAgreeAndTheTableSaysSo) {
  const fs::path metrics = scratch("metrics.jsonl");
  const Outcome outcome =
      run("cifar", fmt::format("--plan all --ranks 2 --steps 3 --threads 1 --no-eval "
                               "--data {} --metrics {}",
                               small_data(), metrics.string()));
  ASSERT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  for (const char* plan : {"ddp", "zero1", "zero2", "zero3"})
    EXPECT_EQ(occurrences(outcome.out, fmt::format("\n{} +predicted", plan)), 1) << outcome.out;
  EXPECT_EQ(occurrences(outcome.out, "reference +reference"), 1) << outcome.out;
  EXPECT_EQ(occurrences(outcome.out, "equal +equal"), 3) << outcome.out;
  EXPECT_EQ(occurrences(outcome.out, "DIFFER"), 0) << outcome.out;
  // The last column: the time of a step, which only a measurement has.
  EXPECT_EQ(occurrences(outcome.out, "\nplan .* ms/step\n"), 1) << outcome.out;
  EXPECT_EQ(occurrences(outcome.out, "\n +measured .* [0-9]+\\.[0-9]{3}(?=\n)"), 4) << outcome.out;
  const MetricsFile file = read_metrics(metrics);
  EXPECT_EQ(file.plans(), (std::vector<std::string>{"ddp", "zero1", "zero2", "zero3"}));
  EXPECT_EQ(file.steps.size(), 12u);
  for (const char* plan : {"zero1", "zero2", "zero3"}) EXPECT_EQ(file.bits(plan), file.bits("ddp"));
}

TEST(Cifar, WithAccumulationThereAreTwoFamilies) {
  const fs::path metrics = scratch("metrics.jsonl");
  const Outcome outcome = run(
      "cifar", fmt::format("--plan all --ranks 2 --accumulate 2 --steps 8 --threads 1 --no-eval "
                           "--data {} --metrics {}",
                           small_data(), metrics.string()));
  ASSERT_EQ(outcome.status, 0) << outcome.out << outcome.err;
  const MetricsFile file = read_metrics(metrics);
  EXPECT_EQ(file.bits("zero1"), file.bits("ddp"));
  EXPECT_EQ(file.bits("zero3"), file.bits("zero2"));
  // The program compares losses in double: they may differ where those of the file, in float, do
  // not yet.
  const int said = occurrences(outcome.out, "two families.*first difference in step");
  EXPECT_GE(said, file.bits("zero2") != file.bits("ddp") ? 1 : 0) << outcome.out;
  EXPECT_LE(said, 1) << outcome.out;
  EXPECT_EQ(occurrences(outcome.out, "zero3  predicted +. zero2 +. zero2"), 1) << outcome.out;
}

std::int64_t bytes_of(const json& summary, const char* kind) {
  return summary.at("bytes").at(kind).at("measured")[0].get<std::int64_t>();
}

TEST(Cifar, InBf16PlansAgreeAndLossesAreNearThoseOfF32) {
  const std::string common =
      "--plan all --ranks 4 --steps 10 --threads 1 --no-eval --no-shuffle --clip-norm 1 ";
  const MetricsFile wide = train(common), half = train(common + "--dtype bf16");
  ASSERT_EQ(half.plans(), (std::vector<std::string>{"ddp", "zero1", "zero2", "zero3"}));
  for (const std::string& plan : half.plans()) EXPECT_EQ(half.bits(plan), half.bits("ddp")) << plan;
  EXPECT_NE(half.bits("ddp"), wide.bits("ddp"));
  ASSERT_EQ(half.steps.size(), 40u);
  for (std::size_t i = 0; i < 40; ++i) {
    const double expected = wide.steps[i].at("loss").get<double>();
    EXPECT_NEAR(half.steps[i].at("loss").get<double>(), expected, 0.02 * expected) << i;
  }
  for (std::size_t plan = 0; plan < 4; ++plan) {
    const json &mine = half.summaries[plan], &other = wide.summaries[plan];
    EXPECT_EQ(2 * bytes_of(mine, "parameters"), bytes_of(other, "parameters"));
    EXPECT_EQ(2 * bytes_of(mine, "gathered"), bytes_of(other, "gathered"));
    EXPECT_EQ(bytes_of(mine, "gradients"), bytes_of(other, "gradients"));
    EXPECT_EQ(bytes_of(mine, "optimizer"), bytes_of(other, "optimizer"));
    EXPECT_EQ(mine.at("traffic").at("reduce_scatter"), other.at("traffic").at("reduce_scatter"));
  }
}

TEST(Cifar, InBf16EveryNetAndOptionAgrees) {
  for (const char* options :
       {"--net resnet20 --checkpoint-activations --ranks 2 --batch-size 4 --steps 2",
        "--net vgg --optimizer sgd --momentum 0.9 --ranks 2 --batch-size 4 --steps 1",
        "--net mlp --optimizer adamw --ranks 2 --accumulate 2 --steps 3"}) {
    const Outcome outcome =
        run("cifar", fmt::format("--dtype bf16 --plan all --threads 1 --no-eval --data {} {}",
                                 small_data(), options));
    EXPECT_EQ(outcome.status, 0) << outcome.out << outcome.err;
    EXPECT_EQ(occurrences(outcome.out, "net +[a-z0-9]+, [0-9,]+ parameters, bf16"), 1)
        << outcome.out;
  }
}

TEST(Cifar, WeightsOfF32AreRoundedIntoABf16Net) {
  const std::string common = " --threads 1 --no-eval --steps 0 --data " + small_data();
  const std::string wide = scratch("f32.safetensors"), half = scratch("bf16.safetensors");
  ASSERT_EQ(run("cifar", "--save-weights " + wide + common).status, 0);
  const std::string convert =
      fmt::format("--dtype bf16 --ranks 2 --plan zero3 --seed 9 --init {} --save-weights {}", wide,
                  half);
  ASSERT_EQ(run("cifar", convert + common).status, 0);
  const SafetensorsFile from(wide), to(half);
  for (const SafetensorsEntry& entry : from.entries()) {
    const Tensor got = to.read(entry.name);
    EXPECT_EQ(got.dtype(), DType::bf16);
    EXPECT_EQ(got.to_doubles(), from.read(entry.name).to(DType::bf16).to_doubles()) << entry.name;
  }
  const Outcome trained = run("cifar", fmt::format("--init {} --threads 1 --no-eval --steps 1 "
                                                   "--data {}",
                                                   half, small_data()));
  EXPECT_EQ(trained.status, 0) << "and back into one of f32: " << trained.err;
}

TEST(Cifar, MetricsAreAsPromised) {
  const MetricsFile file = train("--plan zero3 --ranks 2 --steps 4 --lr 0.01 --schedule cosine");
  ASSERT_EQ(file.steps.size(), 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    const json& step = file.steps[i];
    EXPECT_EQ(step.at("plan"), "zero3");
    EXPECT_EQ(step.at("step"), i + 1);
    const float loss = step.at("loss").get<float>();
    EXPECT_EQ(step.at("loss_bits"), fmt::format("{:08x}", std::bit_cast<std::uint32_t>(loss)));
    EXPECT_NEAR(loss, 2.3, 0.3);
    EXPECT_GT(step.at("grad_norm").get<double>(), 0);
    EXPECT_GT(step.at("samples_per_second").get<double>(), 0);
  }
  EXPECT_EQ(file.steps[0].at("lr"), 0.01);
  EXPECT_LT(file.steps[3].at("lr").get<double>(), 0.005);

  ASSERT_EQ(file.summaries.size(), 1u);
  const json& s = file.summaries[0];
  EXPECT_EQ(s.at("plan"), "zero3");
  EXPECT_EQ(s.at("ranks"), 2);
  EXPECT_EQ(s.at("accumulate"), 1);
  EXPECT_EQ(s.at("parameters"), 62006);
  EXPECT_GE(s.at("units").get<int>(), 3);
  for (const char* kind :
       {"parameters", "gradients", "optimizer", "gathered", "buffers", "activations"}) {
    const json& bytes = s.at("bytes").at(kind);
    ASSERT_EQ(bytes.at("measured").size(), 2u) << kind;
    const bool predicted =
        std::strcmp(kind, "buffers") != 0 && std::strcmp(kind, "activations") != 0;
    ASSERT_EQ(bytes.contains("predicted"), predicted) << kind;
    for (std::size_t r = 0; predicted && r < 2; ++r) {
      const std::int64_t want = bytes.at("predicted")[r], got = bytes.at("measured")[r];
      if (std::strcmp(kind, "gathered") == 0) {
        EXPECT_LE(got, want);
        EXPECT_GT(got, 0);
      } else {
        EXPECT_EQ(got, want) << kind;
      }
    }
  }
  for (const char* name : {"all_gather", "reduce_scatter", "control"}) {
    const json& flow = s.at("traffic").at(name);
    EXPECT_GT(flow.at("calls").get<int>(), 0) << name;
    EXPECT_EQ(flow.at("calls"), flow.at("predicted_calls")) << name;
    EXPECT_GT(flow.at("bytes").get<int>(), 0) << name;
    EXPECT_EQ(flow.at("bytes"), flow.at("predicted_bytes")) << name;
  }
  EXPECT_GT(s.at("seconds_per_step").get<double>(), 0);
  const double accuracy = s.at("test_accuracy");
  EXPECT_GE(accuracy, 0);
  EXPECT_LE(accuracy, 1);
  EXPECT_EQ(s.at("test_accuracy_by_class").size(), 10u);
  EXPECT_TRUE(s.at("test_accuracy_by_class").contains("rings"));
}

TEST(Cifar, LinesAreThoseOfTheTutorials) {
  const Outcome outcome = run("cifar",
                              "--steps 45 --batch-size 32 --log-interval 10 --threads 1 --epochs 3 "
                              "--data " +
                                  small_data());
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.err, "");  // no bar without a terminal
  for (const char* pattern :
       {"net +tutorial, 62,006 parameters", "plan +ddp on 1 rank",
        "batch +32 = 1 rank x 1 micro-batch of 32", "optimizer +adam, lr 0.001", "seed +0",
        "executor +inline", "\n\\[1, +10\\] loss: [0-9]\\.[0-9]{3}\n", "\n\\[1, +20\\]",
        "\n\\[2, +10\\]", "\n\\[2, +20\\]", "\n\\[3, +5\\] loss", "45 steps in .* samples/s",
        "test accuracy: +[0-9.]+ % of 203 images", "\n  rows +[0-9.]+ %", "\n  rings +[0-9.]+ %",
        "reduce_scatter"})
    EXPECT_EQ(occurrences(outcome.out, pattern), 1) << pattern << "\n" << outcome.out;
}

TEST(Cifar, ATerminalGetsAProgressBarBelowTheLines) {
  if (!has_terminals()) GTEST_SKIP() << "no pseudo-terminals here (/dev/pts is not mounted)";
  setenv("TERM", "xterm", 1);
  const std::string options =
      "--steps 30 --log-interval 10 --threads 1 --no-eval --data " + small_data();
  const Outcome terminal = run_in_terminal("cifar", options);
  setenv("TERM", "dumb", 1);
  const Outcome dumb = run_in_terminal("cifar", options);
  unsetenv("TERM");
  ASSERT_EQ(terminal.status, 0) << terminal.out;
  EXPECT_GE(
      occurrences(terminal.out,
                  "\rddp +[0-9]+% \\|[#-]+\\| [0-9]+/30 steps, [0-9,]+ samples/s, 0:[0-9]{2} left"),
      1)
      << terminal.out;
  // A line is never printed behind the bar: it is taken away first.
  EXPECT_EQ(occurrences(terminal.out, "left\x1b\\[K\\["), 0) << terminal.out;
  EXPECT_EQ(occurrences(terminal.out, "\\[1, +10\\] loss: [0-9.]+\r\n"), 1) << terminal.out;
  ASSERT_EQ(dumb.status, 0) << dumb.out;
  EXPECT_EQ(occurrences(dumb.out, "left"), 0) << dumb.out;
}

TEST(Cifar, WeightsGoOutAndInAgain) {
  const std::string data = " --threads 1 --no-shuffle --no-eval --data " + small_data();
  const std::string first = scratch("first.safetensors"), second = scratch("second.safetensors");
  const auto good = [&](const std::string& options) {
    const Outcome outcome = run("cifar", options + data);
    EXPECT_EQ(outcome.status, 0) << options << outcome.err;
  };
  // Steps 0 writes the initial weights, whatever the plan.
  good("--steps 0 --save-weights " + first);
  good("--steps 0 --ranks 3 --plan zero3 --save-weights " + second);
  EXPECT_EQ(read_file(first), read_file(second));
  const SafetensorsFile file(first);
  ASSERT_EQ(file.entries().size(), 10u);
  EXPECT_EQ(file.entry("conv2.weight").shape, (Shape{16, 6, 5, 5}));
  EXPECT_EQ(file.entry("fc1.weight").shape, (Shape{120, 400}));
  // And they are what training starts from: not of the same seed, yet the same losses.
  const auto steps = [&](const std::string& options) {
    return train("--threads 1 --no-shuffle --no-eval --steps 2 --batch-size 32 " + options)
        .bits("ddp");
  };
  const std::string own = steps("--seed 0");
  EXPECT_EQ(steps("--seed 9 --init " + first), own);
  EXPECT_NE(steps("--seed 9"), own);
  // The weights after training are those of every plan.
  good("--steps 3 --ranks 2 --plan ddp --save-weights " + first);
  good("--steps 3 --ranks 2 --plan zero3 --save-weights " + second);
  EXPECT_EQ(read_file(first), read_file(second));
}

TEST(Cifar, OneRankTimesFourEqualsFourRanksTimesOne) {
  const std::string common = "--threads 1 --batch-size 64 --steps 4 --no-eval --clip-norm 0.5 ";
  const std::string one = train(common + "--ranks 1 --accumulate 4").bits("ddp");
  EXPECT_NE(one, "");
  for (const char* plan : {"ddp", "zero1", "zero2", "zero3"})
    EXPECT_EQ(train(fmt::format("{}--ranks 4 --plan {}", common, plan)).bits(plan), one) << plan;
  for (const char* plan : {"zero2", "zero3"})
    EXPECT_EQ(train(fmt::format("{}--ranks 2 --accumulate 2 --plan {}", common, plan)).bits(plan),
              one)
        << plan;
}

TEST(Cifar, RecomputingActivationsChangesNoBit) {
  for (const char* net : {"vgg", "resnet20"}) {
    const std::string common = fmt::format(
        "--net {} --threads 1 --ranks 2 --plan zero3 --batch-size 8 --steps 2 --no-eval ", net);
    const MetricsFile kept = train(common), recomputed = train(common + "--checkpoint-activations");
    EXPECT_EQ(kept.bits("zero3"), recomputed.bits("zero3")) << net;
    const auto activations = [](const MetricsFile& file) {
      return file.summaries.at(0)
          .at("bytes")
          .at("activations")
          .at("measured")[0]
          .get<std::int64_t>();
    };
    EXPECT_LT(activations(recomputed), activations(kept)) << net;
  }
}

TEST(Cifar, ExecutorAndPrefetchChangeNoBit) {
  const std::string common =
      "--threads 1 --ranks 2 --plan zero3 --batch-size 32 --steps 4 --no-eval ";
  const std::string inlined = train(common + "--executor inline").bits("zero3");
  EXPECT_EQ(train(common + "--executor thread").bits("zero3"), inlined);
  EXPECT_EQ(train(common + "--no-prefetch").bits("zero3"), inlined);
}

TEST(Cifar, EvaluationCountsEveryImageOnceWhateverTheRanks) {
  const std::string weights = scratch("weights.safetensors");
  ASSERT_EQ(run("cifar", "--steps 0 --save-weights " + weights + " --data " + small_data()).status,
            0);
  const auto accuracy = [&](const std::string& options) {
    return train("--steps 0 --threads 1 --init " + weights + " " + options).summaries.at(0);
  };
  const json one = accuracy("--ranks 1");
  EXPECT_TRUE(one.at("test_accuracy").is_number());
  for (const char* options : {"--ranks 3 --plan zero3", "--ranks 8 --plan zero1"}) {
    EXPECT_EQ(accuracy(options).at("test_accuracy"), one.at("test_accuracy")) << options;
    EXPECT_EQ(accuracy(options).at("test_accuracy_by_class"), one.at("test_accuracy_by_class"));
  }
}

TEST(Cifar, ALossThatIsNotFiniteIsAFailure) {
  const Outcome outcome = run(
      "cifar", "--optimizer sgd --lr 1e30 --steps 20 --threads 1 --ranks 2 --data " + small_data());
  EXPECT_EQ(outcome.status, 1) << outcome.out;
  EXPECT_EQ(
      occurrences(outcome.err,
                  "cifar: failed: .*the loss is -?(nan|inf) at step [0-9]+; try a smaller --lr"),
      1)
      << outcome.err;
}

TEST(Cifar, CtrlCEndsTheRunCleanly) {
  const fs::path metrics = scratch("metrics.jsonl"), weights = scratch("weights.safetensors");
  Process process(
      "cifar", fmt::format("--epochs 1000000 --ranks 2 --plan zero2 --threads 1 --log-interval 5 "
                           "--data {} --metrics {} --save-weights {}",
                           small_data(), metrics.string(), weights.string()));
  ASSERT_TRUE(waits_for(process, "] loss:"));
  process.signal(SIGINT);
  const Outcome outcome = process.wait();
  EXPECT_EQ(outcome.status, 130) << outcome.out << outcome.err;
  EXPECT_EQ(occurrences(outcome.out, "stopped by a signal after step [0-9]+ of "), 1)
      << outcome.out;
  EXPECT_EQ(occurrences(outcome.out, "reduce_scatter"), 1) << "the report is missing:\n"
                                                           << outcome.out;
  const MetricsFile file = read_metrics(metrics);
  ASSERT_EQ(file.summaries.size(), 1u);
  EXPECT_EQ(file.summaries[0].at("interrupted"), true);
  EXPECT_EQ(file.summaries[0].at("steps"), file.steps.size());
  EXPECT_GE(file.steps.size(), 5u);
  EXPECT_EQ(SafetensorsFile(weights).entries().size(), 10u);
}

}  // namespace
}  // namespace sg::test

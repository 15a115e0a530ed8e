// Bad usage and bad input: status 2, nothing trained, and one line that says what and how to mend
// it.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "core/safetensors.h"
#include "tests/examples/support.h"

namespace sg::test {
namespace {

namespace fs = std::filesystem;

void expect_refused(const std::string& program, const std::string& arguments,
                    const std::vector<std::string>& says) {
  const Outcome outcome = run(program, arguments);
  EXPECT_EQ(outcome.status, 2) << program << " " << arguments << "\n" << outcome.out << outcome.err;
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
  EXPECT_EQ(outcome.out, "");
  for (const std::string& text : says)
    EXPECT_NE(outcome.err.find(text), std::string::npos)
        << program << " " << arguments << "\nshould say: " << text
        << "\n     it says: " << outcome.err;
}

TEST(Usage, BadOptionsAreRefusedWithTheWayToMendThem) {
  struct Case {
    std::string arguments;
    std::vector<std::string> says;
  };
  const std::vector<Case> cases = {
      {"--plan zreo3", {"--plan zreo3", "did you mean zero3?", "ddp, zero1, zero2, zero3, all"}},
      {"--stage 4", {"--stage 4", "0 (ddp), 1, 2 or 3"}},
      {"--stage 3 --plan ddp", {"--stage", "--plan"}},
      {"--ranks 0", {"--ranks 0", "--ranks 1 or more"}},
      {"--ranks -2", {"--ranks -2", "--ranks 1 or more"}},
      {"--ranks 4000", {"--ranks 4000", "at most 1024"}},
      {"--ranks two", {"--ranks", "two"}},
      {"--rank 2", {"there is no option --rank;", "did you mean --ranks?"}},
      {"zero3", {"unexpected argument 'zero3'"}},
      {"--accumulate 0", {"--accumulate 0"}},
      {"--ranks 4 --accumulate 2 --batch-size 30",
       {"--batch-size 30", "4 ranks x 2 micro-batches", "24 or 32"}},
      {"--ranks 4 --batch-size 3", {"--batch-size 3", "sizes that work: 4"}},
      {"--batch-size 0", {"--batch-size 0", "at least one sample"}},
      {"--batch-size 100000", {"--batch-size 100000", "10000 images", "at most 10000"}},
      {"--net tutorail", {"--net tutorail", "did you mean tutorial?", "resnet20"}},
      {"--optimizer adan", {"--optimizer adan", "did you mean adam?"}},
      {"--executor threads", {"--executor threads", "did you mean thread?"}},
      {"--schedule cosin", {"--schedule cosin", "did you mean cosine?"}},
      {"--dtype f16",
       {"--dtype f16: its gradients underflow without a scaled loss; use bf16, or f32"}},
      {"--dtype bf61", {"--dtype bf61", "did you mean bf16?", "f32, bf16, f64"}},
      {"--lr -1", {"lr must be >= 0", "-1"}},
      {"--lr nan", {"lr", "nan"}},
      {"--momentum 0.9", {"--momentum", "--optimizer sgd"}},
      {"--clip-norm -1", {"--clip-norm -1"}},
      {"--threads 0", {"--threads"}},
      {"--steps -1", {"--steps -1"}},
      {"--epochs -1", {"--epochs -1"}},
      {"--seed -1", {"--seed"}},
      {"--log-interval 0", {"--log-interval 0"}},
      {"--warmup-steps -1", {"--warmup-steps -1"}},
      {"--schedule cosine --steps 10 --warmup-steps 11", {"--warmup-steps 11", "10 steps"}},
      {"--metrics /nonexistent/metrics.jsonl", {"--metrics /nonexistent/metrics.jsonl", "folder"}},
      {"--save-weights /nonexistent/w.safetensors", {"--save-weights /nonexistent", "folder"}},
      {"--data /nonexistent", {"no folder /nonexistent", "download_cifar10.sh"}},
      {"--init /nonexistent.safetensors", {"/nonexistent.safetensors"}},
  };
  for (const Case& c : cases) expect_refused("cifar", c.arguments, c.says);
  expect_refused("linear", "--plan all", {"--plan all", "ddp, zero1, zero2, zero3)"});
  expect_refused("linear", "--net mlp", {"there is no option --net"});
  expect_refused("linear", "--dtype f16", {"use bf16, or f32"});
}

TEST(Usage, AnUnknownInstructionSetIsRefused) {
  setenv("SHARDGRAD_ISA", "v9", 1);
  expect_refused("cifar", "--steps 1", {"SHARDGRAD_ISA", "v9"});
  unsetenv("SHARDGRAD_ISA");
}

TEST(Usage, HelpListsEveryOptionOfTheContract) {
  const Outcome help = run("cifar", "--help");
  EXPECT_EQ(help.status, 0);
  for (const char* option : {"--data",         "--net",          "--ranks",
                             "--plan",         "--stage",        "--batch-size",
                             "--accumulate",   "--epochs",       "--steps",
                             "--optimizer",    "--lr",           "--momentum",
                             "--weight-decay", "--clip-norm",    "--threads",
                             "--seed",         "--no-shuffle",   "--no-eval",
                             "--init",         "--save-weights", "--checkpoint-activations",
                             "--augment",      "--schedule",     "--warmup-steps",
                             "--log-interval", "--metrics",      "--device",
                             "--dtype"})
    EXPECT_NE(help.out.find(std::string(option) + " "), std::string::npos) << option << "\n"
                                                                           << help.out;
}

class BadData : public testing::Test {
 protected:
  void SetUp() override { fs::copy(small_data(), folder_, fs::copy_options::recursive); }
  std::string options() const { return "--data " + folder_.string(); }
  fs::path folder_ = scratch();
};

TEST_F(BadData, AFolderWithoutFiles) {
  const fs::path empty = scratch("empty");
  fs::create_directories(empty);
  expect_refused("cifar", "--data " + empty.string(),
                 {"no data in " + empty.string(), "data_batch_1.bin", "download_cifar10.sh"});
}

TEST_F(BadData, ATruncatedFile) {
  const fs::path file = folder_ / "data_batch_3.bin";
  fs::resize_file(file, fs::file_size(file) - 1000);
  expect_refused("cifar", options(), {file.string(), "truncated at byte"});
}

TEST_F(BadData, ALabelOfEleven) {
  const fs::path file = folder_ / "data_batch_2.bin";
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekp(2 * 3073);
  stream.put(11);
  stream.close();
  expect_refused("cifar", options(), {file.string(), "label 11 at byte 6146", "0 to 9"});
}

// A weights file of the tutorial net with one thing wrong.
class BadWeights : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    good_ = new std::string((fs::path(small_data()).parent_path() / "good.safetensors").string());
    const Outcome made =
        run("cifar", "--data " + small_data() + " --steps 0 --save-weights " + *good_);
    ASSERT_EQ(made.status, 0) << made.err;
  }
  static void TearDownTestSuite() { delete good_; }

  /// Copies the good file with `change` applied to the list of tensors.
  template <class F>
  std::string changed(const F& change) {
    const SafetensorsFile good(*good_);
    std::vector<SafetensorsWriter::Declared> tensors;
    for (const SafetensorsEntry& e : good.entries()) tensors.push_back({e.name, e.dtype, e.shape});
    change(tensors);
    const std::string file = scratch("bad.safetensors").string();
    SafetensorsWriter writer(file, tensors);
    for (const auto& t : tensors) writer.write(t.name, Tensor::zeros(t.shape, t.dtype));
    writer.finish();
    return "--steps 1 --data " + small_data() + " --init " + file;
  }
  static std::string* good_;
};
std::string* BadWeights::good_ = nullptr;

TEST_F(BadWeights, AMissingTensor) {
  const std::string options = changed([](auto& tensors) {
    std::erase_if(tensors, [](const auto& t) { return t.name == "fc1.bias"; });
  });
  expect_refused("cifar", options, {"bad.safetensors", "missing fc1.bias"});
}

TEST_F(BadWeights, AnExtraTensor) {
  const std::string options = changed([](auto& tensors) {
    tensors.push_back({"fc9.bias", DType::f32, {3}});
  });
  expect_refused("cifar", options, {"bad.safetensors", "unexpected fc9.bias"});
}

TEST_F(BadWeights, AMisshapenTensor) {
  const std::string options = changed([](auto& tensors) {
    for (auto& t : tensors)
      if (t.name == "conv1.weight") t.shape = {6, 3, 3, 3};
  });
  expect_refused("cifar", options, {"conv1.weight is [6, 3, 3, 3], expected [6, 3, 5, 5]"});
}

TEST_F(BadWeights, AnotherNetsWeights) {
  expect_refused("cifar", "--steps 1 --net mlp --data " + small_data() + " --init " + *good_,
                 {"good.safetensors", "conv1.weight", "fc1.weight"});
}

TEST_F(BadWeights, AFileThatIsNoSafetensors) {
  const fs::path file = scratch("bad.safetensors");
  std::ofstream(file) << "\xff\xff\xff\xff\xff\xff\xff\x7f{}";
  expect_refused("cifar", "--steps 1 --data " + small_data() + " --init " + file.string(),
                 {"bad.safetensors"});
}

}  // namespace
}  // namespace sg::test

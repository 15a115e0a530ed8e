#include "tests/examples/support.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "data/cifar10.h"
#include "data/synthetic.h"
#include "tests/support/files.h"
#include "tests/support/processes.h"

namespace sg::test {
namespace {

namespace fs = std::filesystem;

// Far beyond what any of these runs takes, sanitizers included.
constexpr std::chrono::seconds kDeadline{200};

int open_new(const fs::path& file) {
  return ::open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/// Starts `command`, a program of ours and its arguments; its id.
pid_t start_program(const std::string& command, int out, int err) {
  Words words;
  std::istringstream stream(command);
  for (std::string word; stream >> word;) words.push_back(word);
  return start(std::string(SG_BINARY_DIR) + "/" + words.at(0), words, environment_with({}), out,
               err);
}

fs::path process_folder() {
  static const fs::path folder = [] {
    const fs::path made =
        fs::temp_directory_path() / fmt::format("shardgrad-examples-{}", getpid());
    fs::remove_all(made);
    fs::create_directories(made);
    return made;
  }();
  return folder;
}

/// Takes the folder away after the last test.
class CleanUp : public testing::Environment {
 public:
  void TearDown() override { fs::remove_all(process_folder()); }
};
[[maybe_unused]] const auto* const clean_up = testing::AddGlobalTestEnvironment(new CleanUp);

}  // namespace

Process::Process(const std::string& program, const std::string& arguments)
    : command_(program + " " + arguments) {
  static std::atomic<int> count{0};
  const int number = ++count;
  out_ = process_folder() / fmt::format("{}.out", number);
  err_ = process_folder() / fmt::format("{}.err", number);
  const int out = open_new(out_), err = open_new(err_);
  pid_ = start_program(command_, out, err);
  ::close(out);
  ::close(err);
}

Process::~Process() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

std::string Process::out() const { return read_file(out_); }
std::string Process::err() const { return read_file(err_); }

void Process::signal(int number) const { kill(pid_, number); }

Outcome Process::wait() {
  int status = 0;
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (waitpid(pid_, &status, WNOHANG) == 0) {
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "no end within " << kDeadline.count() << " s: " << command_ << "\n" << out();
      kill(pid_, SIGKILL);
      waitpid(pid_, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  pid_ = -1;
  return {exit_status(status), read_file(out_), read_file(err_)};
}

Outcome run(const std::string& program, const std::string& arguments) {
  return Process(program, arguments).wait();
}

bool has_terminals() {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  const bool there = terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0 &&
                     ::access(ptsname(terminal), R_OK | W_OK) == 0;
  if (terminal >= 0) ::close(terminal);
  return there;
}

Outcome run_in_terminal(const std::string& program, const std::string& arguments) {
  const int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  EXPECT_TRUE(terminal >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
  const int inside = ::open(ptsname(terminal), O_RDWR | O_NOCTTY | O_CLOEXEC);
  const pid_t pid = start_program(program + " " + arguments, inside, inside);
  ::close(inside);
  Outcome outcome;
  char buffer[4096];
  // Ends with an error when the program, the last to hold the other side, has ended.
  for (ssize_t n; (n = ::read(terminal, buffer, sizeof buffer)) > 0;)
    outcome.out.append(buffer, static_cast<std::size_t>(n));
  ::close(terminal);
  int status = 0;
  waitpid(pid, &status, 0);
  outcome.status = exit_status(status);
  return outcome;
}

fs::path scratch(const std::string& name) {
  static std::string last;
  const auto* test = testing::UnitTest::GetInstance()->current_test_info();
  std::string key = fmt::format("{}.{}", test->test_suite_name(), test->name());
  for (char& c : key)
    if (c == '/') c = '_';
  const fs::path folder = process_folder() / key;
  if (last != key) fs::remove_all(folder);
  last = key;
  fs::create_directories(folder);
  return name.empty() ? folder : folder / name;
}

std::string small_data() {
  static const std::string folder = [] {
    const fs::path made = process_folder() / "data";
    data::write_cifar10(made.string(), data::synthetic({.train = 640, .test = 203, .seed = 5}));
    return made.string();
  }();
  return folder;
}

std::string MetricsFile::bits(const std::string& plan) const {
  std::string all;
  for (const auto& step : steps)
    if (step.at("plan") == plan) all += step.at("loss_bits").get<std::string>() + " ";
  return all;
}

std::vector<std::string> MetricsFile::plans() const {
  std::vector<std::string> names;
  for (const auto& summary : summaries) names.push_back(summary.at("plan"));
  return names;
}

MetricsFile read_metrics(const fs::path& file) {
  MetricsFile metrics;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json json = nlohmann::json::parse(line);
    if (json.contains("summary")) {
      metrics.summaries.push_back(json.at("summary"));
    } else {
      EXPECT_TRUE(metrics.summaries.empty()) << "a step after a summary: " << line;
      metrics.steps.push_back(json);
    }
  }
  return metrics;
}

MetricsFile train(const std::string& arguments) {
  const fs::path file = scratch("metrics.jsonl");
  const std::string all =
      fmt::format("--data {} --metrics {} {}", small_data(), file.string(), arguments);
  const Outcome outcome = run("cifar", all);
  EXPECT_EQ(outcome.status, 0) << "cifar " << all << "\n" << outcome.out << outcome.err;
  return read_metrics(file);
}

}  // namespace sg::test

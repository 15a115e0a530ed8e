// Runs the built programs as a user does.
#pragma once

#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace sg::test {

struct Outcome {
  int status = 0;  ///< as a shell shows it: 128 + n if a signal n ended the program
  std::string out, err;
};

/// A program under way; `program` is its name, `arguments` are split at spaces.
class Process {
 public:
  Process(const std::string& program, const std::string& arguments);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Standard output and standard error so far.
  std::string out() const;
  std::string err() const;
  void signal(int number) const;
  int pid() const { return pid_; }
  /// Waits for its end; kills it, and the test fails, if it hangs.
  Outcome wait();

 private:
  std::string command_;
  std::filesystem::path out_, err_;
  int pid_ = -1;
};

/// Runs to the end.
Outcome run(const std::string& program, const std::string& arguments);

/// Whether this machine gives out pseudo-terminals.
bool has_terminals();
/// Runs to the end with a terminal as standard output and error; both are in `out`.
Outcome run_in_terminal(const std::string& program, const std::string& arguments);

/// A folder of this test's own, emptied at its first use.
std::filesystem::path scratch(const std::string& name = "");

/// A small data set of CIFAR-10's format, written once a process: 640 images for training, 203 for
/// testing.
std::string small_data();

/// The step lines and summaries of a metrics file.
struct MetricsFile {
  std::vector<nlohmann::json> steps, summaries;
  /// loss_bits of every step of a plan, joined: equal strings are equal runs.
  std::string bits(const std::string& plan) const;
  std::vector<std::string> plans() const;
};
MetricsFile read_metrics(const std::filesystem::path& file);

/// Runs cifar on the small data set with --metrics, expects status 0, and gives what it wrote.
MetricsFile train(const std::string& arguments);

}  // namespace sg::test

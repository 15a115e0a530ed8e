// data/download_cifar10.sh against a local file server.
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "data/cifar10.h"
#include "data/synthetic.h"
#include "support.h"

namespace sg::data {
namespace {

namespace fs = std::filesystem;

/// Runs a shell command; its exit status.
int shell(const std::string& command) {
  const int status = std::system(command.c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

bool has(const std::string& program) {
  return shell("command -v " + program + " >/dev/null 2>&1") == 0;
}

/// Output of a shell command, without the last line end.
std::string output_of(const std::string& command, const TemporaryFolder& folder) {
  shell(command + " > " + folder / "output");
  std::string text = read_file(folder / "output");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

/// A file server on a free local port, with a small archive of CIFAR-10's shape and damaged ones.
class Download : public ::testing::Test {
 protected:
  static constexpr int kRecords = 4;

  void SetUp() override {
    for (const char* program : {"bash", "tar", "md5sum"})
      if (!has(program))
        GTEST_SKIP() << program << " is not installed: the download script needs it";
    if (!has("curl") && !has("wget")) GTEST_SKIP() << "neither curl nor wget is installed";
    if (shell("python3 -c 'import http.server' >/dev/null 2>&1") != 0)
      GTEST_SKIP() << "python3 is not installed: it is the local file server";

    write_cifar10(folder_ / "made/cifar-10-batches-bin",
                  synthetic({.train = 5 * kRecords, .test = kRecords, .seed = 1}));
    fs::create_directory(folder_ / "served");
    pack("made", "good.tar.gz");
    const std::string good = read_file(served("good.tar.gz"));
    write_file(served("short.tar.gz"), good.substr(0, good.size() - 100));
    std::string changed = good;
    changed[changed.size() / 2] = static_cast<char>(changed[changed.size() / 2] ^ 1);
    write_file(served("changed.tar.gz"), changed);
    fs::copy(folder_ / "made", folder_ / "cut", fs::copy_options::recursive);
    fs::resize_file(folder_ / "cut/cifar-10-batches-bin/data_batch_2.bin", 5000);
    pack("cut", "cut.tar.gz");

    // exec: the process id is the server's own.
    shell("cd " + folder_ / "served" +
          " && { exec python3 -u -m http.server 0 --bind 127.0.0.1; } > ../log 2>&1 & echo $! > " +
          folder_ / "pid");
    for (int i = 0; i < 2000 && port_.empty(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      const std::string log = read_file(folder_ / "log"), mark = "port ";
      const auto at = log.find(mark);
      if (at == std::string::npos) continue;
      const auto begin = at + mark.size(), end = log.find_first_not_of("0123456789", begin);
      if (end != std::string::npos) port_ = log.substr(begin, end - begin);
    }
    ASSERT_FALSE(port_.empty()) << "the file server did not start: " << read_file(folder_ / "log");
  }
  void TearDown() override { stop_server(); }

  void stop_server() {
    if (fs::exists(folder_ / "pid")) shell("kill $(cat " + folder_ / "pid" + ") 2>/dev/null");
    std::error_code ignored;
    fs::remove(folder_ / "pid", ignored);
  }
  std::string served(const std::string& name) const { return folder_ / ("served/" + name); }
  void pack(const std::string& from, const std::string& name) {
    ASSERT_EQ(shell("tar -czf " + served(name) + " -C " + folder_ / from + " cifar-10-batches-bin"),
              0);
  }

  /// Runs the script for an archive of the server, expecting size and checksum of `expected`.
  int download(const std::string& name, const std::string& expected, const std::string& more = "") {
    const std::string md5 =
        output_of("md5sum < " + served(expected) + " | cut -d ' ' -f 1", folder_);
    return run(fmt::format(
        "--url http://127.0.0.1:{}/{} --size {} --md5 {} --records {} --dir {} {}", port_, name,
        fs::file_size(served(expected)), md5, kRecords, folder_ / "data", more));
  }
  int run(const std::string& arguments) {
    // A proxy in the environment must not come between us and the local server.
    const int status = shell("no_proxy=127.0.0.1 NO_PROXY=127.0.0.1 bash " SG_SOURCE_DIR
                             "/data/download_cifar10.sh " +
                             arguments + " > " + folder_ / "out" + " 2> " + folder_ / "err");
    out_ = read_file(folder_ / "out");
    err_ = read_file(folder_ / "err");
    return status;
  }
  /// Nothing but an empty folder is left after a failure.
  void expect_nothing_left() {
    EXPECT_TRUE(!fs::exists(folder_ / "data") || fs::is_empty(folder_ / "data"));
  }

  TemporaryFolder folder_;
  std::string port_, out_, err_;
};

TEST_F(Download, GoodArchiveIsUnpackedAndReadable) {
  ASSERT_EQ(download("good.tar.gz", "good.tar.gz"), 0) << err_;
  expect_contains(out_, "CIFAR-10 is in " + folder_ / "data/cifar-10-batches-bin");
  EXPECT_EQ(cifar10(folder_ / "data").train->images,
            synthetic({.train = 5 * kRecords, .test = kRecords, .seed = 1}).train->images);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_ / "data"), {}), 1)
      << "only the data is left";

  stop_server();  // a second run needs no network
  ASSERT_EQ(download("good.tar.gz", "good.tar.gz"), 0) << err_;
  expect_contains(out_, "is there and whole");
  fs::resize_file(folder_ / "data/cifar-10-batches-bin/test_batch.bin", 100);
  EXPECT_EQ(download("good.tar.gz", "good.tar.gz"), 1);
  expect_contains(err_, "test_batch.bin has 100 bytes, expected 12292; delete the folder");
}

TEST_F(Download, KeepsTheArchiveWhenAsked) {
  ASSERT_EQ(download("good.tar.gz", "good.tar.gz", "--keep"), 0) << err_;
  EXPECT_EQ(read_file(folder_ / "data/cifar-10-binary.tar.gz"), read_file(served("good.tar.gz")));
}

TEST_F(Download, WrongChecksumIsNotUnpacked) {
  EXPECT_EQ(download("changed.tar.gz", "good.tar.gz"), 1);
  expect_contains(err_, "/changed.tar.gz has MD5 ");
  expect_contains(err_, "not the published file, and not unpacked");
  expect_nothing_left();
}

TEST_F(Download, TruncatedArchive) {
  EXPECT_EQ(download("short.tar.gz", "good.tar.gz"), 1);
  const auto size = fs::file_size(served("good.tar.gz"));
  expect_contains(err_, fmt::format("/short.tar.gz has {} bytes, expected {}: a broken download",
                                    size - 100, size));
  expect_nothing_left();
}

TEST_F(Download, RightChecksumOfAWrongArchive) {
  EXPECT_EQ(download("cut.tar.gz", "cut.tar.gz"), 1);
  expect_contains(err_,
                  "is not CIFAR-10's binary version: "
                  "cifar-10-batches-bin/data_batch_2.bin has 5000 bytes, expected 12292");
  expect_nothing_left();
}

TEST_F(Download, MissingOnTheServer) {
  EXPECT_EQ(download("none.tar.gz", "good.tar.gz"), 1);
  expect_contains(err_, "404");
  expect_contains(err_, "try again later, or name a mirror with --url");
  expect_nothing_left();
}

TEST_F(Download, ServerDown) {
  stop_server();
  EXPECT_EQ(download("good.tar.gz", "good.tar.gz"), 1);
  expect_contains(err_,
                  "cannot download http://127.0.0.1:" + port_ + "/good.tar.gz; try again later");
  expect_nothing_left();
}

TEST_F(Download, Usage) {
  EXPECT_EQ(run("--help"), 0);
  for (const char* published : {"https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                                "170052171", "c32a1d4ab5d03f1284b67883e8d87530"})
    expect_contains(out_, published);
  EXPECT_EQ(run("--mirror x"), 2);
  expect_contains(err_, "unknown option --mirror; see --help");
  EXPECT_EQ(run("--url"), 2);
  expect_contains(err_, "--url needs a value");
  EXPECT_EQ(run("--size big"), 2);
  expect_contains(err_, "--size big is not a number");
}

}  // namespace
}  // namespace sg::data

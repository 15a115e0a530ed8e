// Between processes: control by Gloo, GPUs by NCCL.
#include "tests/dist/nccl_support.h"
#if SG_GLOO
#include <netinet/in.h>
#include <sys/socket.h>

#include <thread>

#include "dist/processes/process_group.h"

namespace sg::dist {
namespace {

/// A socket that listens at a free port of this host, as `shardgrad run` hands it in.
std::pair<int, int> listening_socket() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const raw = reinterpret_cast<sockaddr*>(&address);
  if (::bind(fd, raw, size) != 0 || ::listen(fd, 64) != 0 || ::getsockname(fd, raw, &size) != 0)
    ADD_FAILURE() << "no socket";
  return {fd, ntohs(address.sin_port)};
}

/// Runs fn as the ranks of a launcher's processes do, each a thread here; what each throws.
std::vector<std::string> on_processes(int ranks, const std::function<void(Rank&)>& fn,
                                      milliseconds deadline = milliseconds(20'000)) {
  const auto [socket, port] = listening_socket();
  std::vector<std::string> errors(static_cast<std::size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r)
    threads.emplace_back([&, r, fd = socket, at = port] {
      ProcessEnvironment e;
      e.launcher = "a test";
      e.rank = e.local_rank = r;
      e.world_size = e.local_world_size = ranks;
      e.port = at;
      e.job = "job";
      e.token = "secret";
      if (r == 0) e.listening_socket = fd;
      errors[static_cast<std::size_t>(r)] = error_of([&] {
        const LaunchOptions options{.threads = 1,
                                    .seed = 11,
                                    .deadline = deadline,
                                    .device = gpu_of(e, Backend::automatic),
                                    .deterministic = true};
        ProcessGroup group(e, options, "same");
        group.run(fn);
        if (!testing::Test::HasFailure()) group.run(fn);  // as --plan all does
      });
    });
  for (std::thread& thread : threads) thread.join();
  return errors;
}

TEST(NcclProcesses, HaveTheBitsOfThreads) {
  constexpr int kRanks = 3;
  SKIP_WITHOUT_GPUS(kRanks);
  std::vector<std::vector<std::vector<double>>> seen(kRanks);
  const auto body = [&](Rank& rank) {
    EXPECT_TRUE(rank.device.is_cuda());
    const Training t{.plan = "zero3", .ranks = kRanks, .accumulate = 2, .clip_norm = 0.3};
    const TestNet& net = test_net("mlp");
    const auto engine = initialize(make_module(net, t), make_optimizer(t), engine_options(t));
    std::vector<double> losses;
    for (int step = 0; step < 3; ++step) {
      train_step(*engine, net, t, step);
      losses.push_back(engine->loss());
      losses.push_back(engine->grad_norm().value());
    }
    EXPECT_TRUE(engine->report().matches()) << engine->report().text();
    seen[static_cast<std::size_t>(rank.index)].push_back(losses);
  };
  EXPECT_EQ(on_processes(kRanks, body), std::vector<std::string>(kRanks, "no error"));
  launch_ranks(kRanks, body, {.threads = 1, .seed = 11, .device = cuda_device(0)});
  for (const auto& runs : seen) {
    ASSERT_EQ(runs.size(), 3u);
    for (const std::vector<double>& losses : runs) EXPECT_EQ(bits_of(losses), bits_of(seen[0][0]));
  }
}

TEST(NcclProcesses, AFailureEndsTheWaitsOfTheOthersForTheirGpus) {
  constexpr int kRanks = 3;
  SKIP_WITHOUT_GPUS(kRanks);
  const double seconds = seconds_of([&] {
    const std::vector<std::string> errors = on_processes(kRanks, [&](Rank& rank) {
      gather(current_comm(), {0, "fc0"});
      if (rank.index == 1) fail("[test] the disk is full");
      gather(current_comm(), {1, "fc1"});
    });
    EXPECT_EQ(errors[1], "[rank 1] [test] the disk is full");
    for (const int r : {0, 2})
      EXPECT_EQ(errors[static_cast<std::size_t>(r)],
                fmt::format("[rank {}] [all_gather] rank {} stopped in {} because another rank "
                            "failed: rank 1: [test] the disk is full",
                            r, r, kSecond));
  });
  EXPECT_LT(seconds, 8);
}

TEST(NcclProcesses, ARankThatIsLateIsAnErrorOfAll) {
  SKIP_WITHOUT_GPUS(2);
  const std::vector<std::string> errors = on_processes(
      2,
      [&](Rank& rank) {
        exchange(current_comm(), "control", {});
        if (rank.index == 1) sleep_ms(1200);
        gather(current_comm(), {1, "fc1"});
      },
      milliseconds(500));
  const std::string text = fmt::format(
      "[all_gather] rank 0 waited 500 ms for the GPUs of its peers in {}; rank 1 last entered "
      "exchange (0 x i64, collective 0); every rank must run the same steps",
      kSecond);
  EXPECT_EQ(errors[0], "[rank 0] " + text);
  EXPECT_HAS(errors[1], "rank 0: " + text);
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO

#if SG_GLOO
#include "dist/processes/reminder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "dist/processes/process_group.h"
#include "dist/processes/token_file.h"
#include "tests/dist/support.h"
#include "tests/support/processes.h"

namespace sg::dist {
namespace {

TEST(Reminder, SpeaksAtEveryIntervalUntilItsEnd) {
  std::vector<std::int64_t> waited;
  std::atomic<int> calls = 0;
  {
    const Reminder reminder(milliseconds(20), [&](milliseconds t) {
      waited.push_back(t.count());
      ++calls;
    });
    EXPECT_TRUE(test::eventually([&] { return calls >= 3; }));
  }
  const std::vector<std::int64_t> before = waited;
  sleep_ms(60);
  EXPECT_EQ(waited, before) << "it spoke after its end";
  for (std::size_t i = 0; i < waited.size(); ++i)
    EXPECT_EQ(waited[i], 20 * (static_cast<std::int64_t>(i) + 1));
}

TEST(Reminder, AnEndIsNotWaitedFor) {
  const double seconds =
      seconds_of([] { const Reminder reminder(milliseconds(60'000), [](auto) {}); });
  EXPECT_LT(seconds, 5);
}

// Whether there is no store yet, or a file that says where it is has yet to come.
TEST(SlowReminder, ARankNamesRankZeroEveryTenSeconds) {
  for (const char* token : {"secret", ""}) {
    ProcessEnvironment e;
    e.launcher = "a test";
    e.rank = 1;
    e.world_size = 2;
    e.port = 1;  // where nobody listens
    e.job = "reminder-" + std::to_string(::getpid());
    e.token = token;
    testing::internal::CaptureStderr();
    const std::string error = error_of([&] {
      const LaunchOptions options{.deadline = milliseconds(15'000)};
      ProcessGroup group(e, options, "same");
    });
    const std::string said = testing::internal::GetCapturedStderr();
    const bool by_file = *token == '\0';
    EXPECT_EQ(said, fmt::format(
                        "[launch] rank 1 waits for rank 0, which {} (10 s)\n",
                        by_file ? "writes to " + TokenFile(e.job, 1).path() + " where the store is"
                                : "holds the store at 127.0.0.1, port 1"));
    EXPECT_HAS(error, by_file ? "rank 0 did not write the job's token"
                              : "rank 1 cannot join the store at 127.0.0.1:1 within 1");  // 15 s
  }
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO

#if SG_GLOO
#include "dist/processes/reminder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <vector>

#include "dist/processes/group.h"
#include "tests/dist/support.h"

namespace sg::dist {
namespace {

TEST(Reminder, SpeaksAtEveryIntervalUntilItsEnd) {
  std::vector<std::int64_t> waited;
  {
    const Reminder reminder(milliseconds(20), [&](milliseconds t) { waited.push_back(t.count()); });
    sleep_ms(150);
  }
  const std::vector<std::int64_t> before = waited;
  sleep_ms(60);
  EXPECT_EQ(waited, before) << "it spoke after its end";
  ASSERT_GE(waited.size(), 3u);
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
      const LaunchOptions options{.deadline = milliseconds(10'500)};
      ProcessGroup group(e, options, "same");
    });
    EXPECT_EQ(
        testing::internal::GetCapturedStderr(),
        "[launch] rank 1 waits for rank 0, which holds the store at 127.0.0.1, port 1 (10 s)\n");
    EXPECT_NE(error, "no error");
  }
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO

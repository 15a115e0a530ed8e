#include "optim/schedule.h"

#include <fstream>

#include <nlohmann/json.hpp>

#include "tests/optim/support.h"

namespace sg::optim {
namespace {

TEST(Schedule, FollowsTorch) {
  std::ifstream file(SG_TEST_DATA "/optim.json");
  ASSERT_TRUE(file) << SG_TEST_DATA "/optim.json is missing; tests/golden/optim.py writes it";
  const nlohmann::json runs = nlohmann::json::parse(file)["schedules"];
  ASSERT_EQ(runs.size(), 5u);
  for (const auto& run : runs) {
    const std::string kind = run["kind"];
    Schedule schedule;
    if (kind == "warmup") schedule = Schedule::warmup(run["warmup"]);
    if (kind == "cosine") schedule = Schedule::cosine(run["total"], run["warmup"], run["floor"]);
    const auto factors = run["factors"].get<std::vector<double>>();
    for (std::size_t i = 0; i < factors.size(); ++i)
      EXPECT_NEAR(schedule.factor(static_cast<std::int64_t>(i) + 1), factors[i], 1e-14)
          << kind << ", step " << i + 1;
  }
}

TEST(Schedule, Ends) {
  EXPECT_EQ(Schedule().factor(1), 1);
  EXPECT_EQ(Schedule().factor(1'000'000'000'000), 1);
  EXPECT_EQ(Schedule::warmup(0).factor(1), 1);
  EXPECT_EQ(Schedule::warmup(1).factor(1), 1);
  EXPECT_EQ(Schedule::warmup(4).factor(1), 0.25);
  EXPECT_EQ(Schedule::warmup(4).factor(4), 1);
  EXPECT_EQ(Schedule::warmup(4).factor(5), 1);
  const Schedule cosine = Schedule::cosine(10, 4, 0.1);
  EXPECT_EQ(cosine.factor(4), 1);
  EXPECT_EQ(cosine.factor(5), 1);
  EXPECT_GT(cosine.factor(10), 0.1);
  EXPECT_EQ(cosine.factor(11), 0.1);
  EXPECT_EQ(cosine.factor(1000), 0.1);  // PyTorch's would rise again
  const Schedule only_warmup = Schedule::cosine(4, 4, 0.1);
  EXPECT_EQ(only_warmup.factor(4), 1);
  EXPECT_EQ(only_warmup.factor(5), 0.1);
}

TEST(Schedule, RefusesNonsense) {
  EXPECT_EQ(error_of([] { Schedule().factor(0); }), "[schedule] steps count from 1, got 0");
  EXPECT_EQ(error_of([] { Schedule::warmup(-1); }), "[schedule] warmup_steps must be >= 0, got -1");
  EXPECT_EQ(error_of([] { Schedule::cosine(0); }), "[schedule] total_steps must be >= 1, got 0");
  EXPECT_EQ(error_of([] { Schedule::cosine(5, 6); }),
            "[schedule] warmup_steps must be in [0, total_steps = 5], got 6");
  EXPECT_EQ(error_of([] { Schedule::cosine(5, 1, 2); }),
            "[schedule] floor must be in [0, 1], got 2");
}

}  // namespace
}  // namespace sg::optim

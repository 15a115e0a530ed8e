// What the report says of a GPU beside the ledger.
#include "core/cuda/cuda.h"
#include "tests/dist/training.h"

namespace sg::dist {
namespace {

TEST(CardReport, PartsAddUpToWhatIsInUse) {
  for (const char* plan : {"ddp", "zero3"})
    for (const int ranks : {1, 2}) {
      SCOPED_TRACE(fmt::format("{} on {}", plan, ranks));
      const Device device = current_rank().device;
      const std::int64_t graphs_before = device.is_cuda() ? cuda::memory_info(device).graphs : 0;
      const Outcome out =
          train(test_net("convnet"), {.plan = plan, .ranks = ranks, .micro_batches = true});
      for (const Report& report : out.reports) {
        if (!current_rank().device.is_cuda()) {
          EXPECT_FALSE(report.card.has_value());
          EXPECT_EQ(report.text().find("in use on"), std::string::npos);
          continue;
        }
        ASSERT_TRUE(report.card.has_value());
        const CardReport& card = *report.card;
        EXPECT_EQ(card.name, "cuda:0");
        EXPECT_EQ(card.ranks, ranks);
        EXPECT_EQ(card.used, card.before + card.ledger + card.workspaces + card.rounding +
                                 card.graphs + card.slack + card.since);
        EXPECT_GT(card.ledger, 0);
        EXPECT_EQ(card.ledger, out.reports[0].card->ledger) << "ranks look at one moment";
        EXPECT_GT(card.workspaces, 0);
        EXPECT_GE(card.rounding, 0);
        EXPECT_GT(card.slack, 0) << "activations were freed";
        EXPECT_GT(card.before, 0);
        EXPECT_EQ(card.graphs > graphs_before, ranks == 1) << "an update alone has no tensors";
        EXPECT_LT(card.used, card.total);
#if SG_STAND_IN
        EXPECT_EQ(card.before, 300 << 20) << "the stand-in's own";
        EXPECT_EQ(card.since, 0);
        EXPECT_EQ(card.workspaces, ranks << 16);
        EXPECT_LT(card.rounding, ranks * 512 * 200);
#endif
        EXPECT_TRUE(report.matches()) << report.text();
      }
    }
}

TEST(CardReport, TheTextNamesEveryPart) {
  Report report;
  report.plan = "zero3";
  report.card = CardReport{.name = "cuda:1",
                           .ranks = 2,
                           .total = 80'000'000'000,
                           .used = 900'000'000,
                           .before = 500'000'000,
                           .ledger = 123'456'000,
                           .workspaces = 67'108'864,
                           .rounding = 4'096,
                           .graphs = 1'234'000,
                           .slack = 9'431'040,
                           .since = 200'000'000};
  EXPECT_NE(report.text().find("  in use on cuda:1, now                           900.000 MB\n"
                               "    context, other processes, at the start        500.000 MB\n"
                               "    ledger of 2 ranks                             123.456 MB\n"
                               "    cuBLAS workspaces                              67.109 MB\n"
                               "    rounding: what no ledger has                      4096 B\n"
                               "    CUDA graphs: tensors of captured steps          1.234 MB\n"
                               "    pool slack: freed, kept for later               9.431 MB\n"
                               "    since the start: kernels, NCCL, others        200.000 MB\n"),
            std::string::npos)
      << report.text();
}

}  // namespace
}  // namespace sg::dist

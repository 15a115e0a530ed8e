// What the pages promise of their examples: they learn, with the same bits under every plan.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <vector>

#include "dist/engine.h"
#include "dist/launch.h"

namespace sg::docs {

/// `train(rank, plan, after_step)` runs on each of four ranks: it makes an engine of that plan,
/// calls after_step(engine) after each step, and returns the engine.
template <class Train>
void expect_trains_under_every_plan(Train train) {
  std::vector<std::uint64_t> ddp;
  for (const dist::Plan& plan : dist::plans()) {
    SCOPED_TRACE(plan.name);
    std::vector<std::uint64_t> loss_bits;
    dist::launch_ranks(4,
                       [&](Rank& rank) {
                         const auto engine =
                             train(rank, std::string(plan.name), [&](const dist::Engine& e) {
                               if (rank.index == 0)
                                 loss_bits.push_back(std::bit_cast<std::uint64_t>(e.loss()));
                             });
                         EXPECT_TRUE(engine->report().matches()) << "rank " << rank.index;
                       },
                       {.threads = 1});
    ASSERT_FALSE(loss_bits.empty());
    if (ddp.empty()) ddp = loss_bits;
    EXPECT_EQ(loss_bits, ddp);
    EXPECT_LT(std::bit_cast<double>(loss_bits.back()),
              0.5 * std::bit_cast<double>(loss_bits.front()));
  }
}

}  // namespace sg::docs

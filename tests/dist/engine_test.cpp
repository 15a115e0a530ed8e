// The core of the claims: every plan trains the same, to the last bit where addition's order allows
// it, and as a plain loop does.
#include "tests/dist/training.h"

namespace sg::dist {
namespace {

std::string name_of_net(const testing::TestParamInfo<TestNet>& info) { return info.param.name; }

// All plans of one cut N x A, compared with each other and with the reference 1 x NA.
void check_plans(const TestNet& net, Training t, const Outcome& reference) {
  std::map<std::string, Outcome> outcomes;
  for (const char* plan : kPlanNames) {
    t.plan = plan;
    SCOPED_TRACE(net.name + " " + to_string(t));
    const Outcome& out = outcomes[plan] = train(net, t);
    for (int r = 0; r < t.ranks; ++r)
      EXPECT_TRUE(out.reports[static_cast<std::size_t>(r)].matches())
          << "rank " << r << "\n"
          << out.reports[static_cast<std::size_t>(r)].text();
  }
  SCOPED_TRACE(net.name + " " + to_string(t));
  EXPECT_EQ(outcomes["ddp"].difference(outcomes["zero1"]), "") << "ddp and zero1";
  EXPECT_EQ(outcomes["zero2"].difference(outcomes["zero3"]), "") << "zero2 and zero3";
  EXPECT_EQ(outcomes["zero3"].difference(reference), "") << "zero3 and one rank";
  if (t.ranks == 1 || t.accumulate == 1) {
    EXPECT_EQ(outcomes["ddp"].difference(reference), "") << "ddp and one rank";
  } else {
    // Another order of the same sum: close, and not compared to the bit.
    expect_close(outcomes["ddp"], reference, families_apart(net, t));
  }
}

Training one_rank(Training t) {
  t.accumulate *= t.ranks;
  t.ranks = 1;
  t.plan = "ddp";
  t.executor = Executor::inlined;
  return t;
}

class Bits : public testing::TestWithParam<TestNet> {};

// Some cuts, which a sanitizer sees too; SlowBits has all of them.
TEST_P(Bits, EqualOverPlansRanksAndAccumulation) {
  for (const int accumulate : {1, 3}) {
    for (const int ranks : {1, 2, 4}) {
      Training t{.ranks = ranks, .accumulate = accumulate, .clip_norm = 0.3};
      check_plans(GetParam(), t, train(GetParam(), one_rank(t)));
    }
  }
}

TEST_P(Bits, EqualWithEveryOption) {
  for (const char* optimizer : {"momentum", "adamw"}) {
    for (const double clip : {0.0, 0.2}) {
      Training t{.ranks = 3, .accumulate = 2, .optimizer = optimizer, .clip_norm = clip};
      const Outcome reference = train(GetParam(), one_rank(t));
      for (const bool prefetch : {true, false}) {
        t.prefetch = prefetch;
        t.executor = prefetch == (clip > 0) ? Executor::thread : Executor::inlined;
        check_plans(GetParam(), t, reference);
      }
    }
  }
}

TEST_P(Bits, EqualInBf16) {
  for (const char* optimizer : {"momentum", "adamw"}) {
    for (const int ranks : {1, 3}) {
      Training t{.ranks = ranks,
                 .accumulate = 2,
                 .dtype = DType::bf16,
                 .optimizer = optimizer,
                 .clip_norm = ranks == 1 ? 0 : 0.3,
                 .prefetch = ranks == 1};
      check_plans(GetParam(), t, train(GetParam(), one_rank(t)));
    }
  }
}

TEST_P(Bits, Bf16IsCloseToAPlainLoopAndToF32) {
  // Momentum: Adam's first steps are of equal size whatever the gradient's, its rounding included.
  Training t{.plan = "zero3",
             .ranks = 3,
             .accumulate = 2,
             .dtype = DType::bf16,
             .optimizer = "momentum",
             .clip_norm = 0.2,
             .schedule = optim::Schedule::cosine(5, 2)};
  const Outcome half = train(GetParam(), t);
  expect_close(half, train_plainly(GetParam(), t), 0.03);
  for (const auto& [name, values] : half.parameters)
    for (const double value : values)
      ASSERT_EQ(value, static_cast<double>(bf16(static_cast<float>(value)))) << name;
  t.dtype = DType::f32;
  expect_close(half, train(GetParam(), t), 0.03);
}

TEST_P(Bits, EqualInF64AndToAPlainLoopWithin1e9) {
  for (const char* optimizer : {"momentum", "adam", "adamw"}) {
    for (const double clip : {0.0, 0.2}) {
      Training t{.ranks = 3,
                 .accumulate = 2,
                 .dtype = DType::f64,
                 .optimizer = optimizer,
                 .clip_norm = clip,
                 .schedule = optim::Schedule::cosine(5, 2)};
      const Outcome plain = train_plainly(GetParam(), t);
      for (const char* plan : kPlanNames) {
        t.plan = plan;
        SCOPED_TRACE(to_string(t));
        expect_close(train(GetParam(), t), plain, 1e-9);
      }
    }
  }
}

TEST_P(Bits, EqualWhenRepeated) {
  for (const Executor executor : kExecutors) {
    for (const char* plan : {"zero1", "zero3"}) {
      const Training t{
          .plan = plan, .ranks = 4, .accumulate = 2, .clip_norm = 0.3, .executor = executor};
      EXPECT_EQ(train(GetParam(), t).difference(train(GetParam(), t)), "") << to_string(t);
    }
  }
}

TEST_P(Bits, EqualWhateverTheUnits) {
  // The size of a unit changes what travels together, not what is computed.
  Training t{.ranks = 3, .clip_norm = 0.3};
  t.unit_elements = 1;
  const Outcome single = train(GetParam(), t);
  t.unit_elements = 1'000'000;
  for (const char* plan : kPlanNames) {
    t.plan = plan;
    const Outcome merged = train(GetParam(), t);
    EXPECT_TRUE(merged.reports[0].matches()) << merged.reports[0].text();
    EXPECT_EQ(bits_of(merged.losses), bits_of(single.losses));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Bits, testing::ValuesIn(test_nets()), name_of_net);

class SlowBits : public testing::TestWithParam<TestNet> {};

// Every optimizer, clipping and dtype in every cut. How units are gathered, and by whom, takes
// turns: each of these four ways meets each value of the others in every cut, and each two of them
// over the cuts.
TEST_P(SlowBits, EqualOverTheWholeMatrix) {
  int turn = 0;
  for (const int accumulate : {1, 2, 3})
    for (const int ranks : {1, 2, 3, 4, 8}) {
      for (const char* optimizer : {"momentum", "adam", "adamw"})
        for (const double clip : {0.0, 0.2})
          for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
            Training t{.ranks = ranks,
                       .accumulate = accumulate,
                       .dtype = dtype,
                       .optimizer = optimizer,
                       .clip_norm = clip,
                       .prefetch = turn % 2 == 0,
                       .executor = kExecutors[turn / 2 % 2]};
            ++turn;
            check_plans(GetParam(), t, train(GetParam(), one_rank(t)));
            if (HasFailure()) return;
          }
      ++turn;  // another start in the next cut
    }
}

INSTANTIATE_TEST_SUITE_P(All, SlowBits, testing::ValuesIn(test_nets()), name_of_net);

}  // namespace
}  // namespace sg::dist

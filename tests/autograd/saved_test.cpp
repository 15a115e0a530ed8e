// Values that come from a Source: gathered when asked for, saved as a recipe, checked for changes.
#include "autograd/saved.h"

#include <gtest/gtest.h>

#include "autograd/checkpoint.h"
#include "autograd/ops.h"
#include "core/ops.h"
#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using test::expect_same_bits;

// A unit that is "gathered" into fresh storage whenever nobody holds it.
class FakeSource : public Source, public std::enable_shared_from_this<FakeSource> {
 public:
  explicit FakeSource(Tensor flat) : flat_(std::move(flat)) {}
  std::shared_ptr<Storage> get() override {
    ++calls;
    if (std::shared_ptr<Storage> alive = alive_.lock()) return alive;
    ++gathers;
    const Scoped kind(current_rank().kind, Kind::gathered);
    const Tensor copy = flat_.clone();
    copy.storage()->set_source(weak_from_this());
    alive_ = copy.storage();
    return copy.storage();
  }
  std::uint64_t version() const override { return version_number; }
  std::string name() const override { return "unit 2 (fc1.weight)"; }
  bool alive() const { return !alive_.expired(); }

  int calls = 0, gathers = 0;
  std::uint64_t version_number = 0;

 private:
  Tensor flat_;
  std::weak_ptr<Storage> alive_;
};

struct SourceTest : testing::Test {
  Tensor flat = test::random({64}, DType::f64, 5);
  std::shared_ptr<FakeSource> source = std::make_shared<FakeSource>(flat);
  Tensor x = test::random({3, 4}, DType::f64, 6);
  Var weight() const { return Var(source, 8, {5, 4}, DType::f64, true); }
  Var plain_weight() const { return Var(flat.slice(0, 8, 20).reshape({5, 4}).clone(), true); }
};

TEST_F(SourceTest, TheValueIsAViewOfWhatIsProduced) {
  const Var w = weight();
  EXPECT_EQ(w.shape(), (Shape{5, 4}));
  EXPECT_EQ(source->calls, 0) << "a declaration gathers nothing";
  expect_same_bits(w.value(), plain_weight().value());
  EXPECT_FALSE(source->alive());
}

TEST_F(SourceTest, ForwardAndBackwardGatherOnceEachAndHoldNothingBetween) {
  const Var w = weight(), input(x, true);
  const Var y = linear(input, w);
  EXPECT_EQ(source->gathers, 1);
  EXPECT_FALSE(source->alive()) << "what forward saved must be a recipe, not the bytes";
  EXPECT_EQ(current_rank().ledger().live(Kind::gathered), 0);
  sum(y).backward();
  EXPECT_EQ(source->gathers, 2);
  EXPECT_FALSE(source->alive());

  const Var plain = plain_weight(), other(x, true);
  sum(linear(other, plain)).backward();
  expect_same_bits(w.grad(), plain.grad());
  expect_same_bits(input.grad(), other.grad());
}

// The weight serves the input's gradient alone: where the input is data, backward reads no weight,
// and under zero3 the first layer is gathered once a micro-batch less.
TEST_F(SourceTest, BackwardDoesNotGatherWhatNoGradientNeeds) {
  const Var w = weight();
  sum(linear(Var(x), w)).backward();
  EXPECT_EQ(source->gathers, 1);
  EXPECT_TRUE(w.grad().defined());
}

TEST_F(SourceTest, SavingAViewSavesTheRecipe) {
  const Var w = weight();
  const Var columns = slice(transpose(w, 0, 1), 0, 1, 2);  // [2, 5], strided, of the gathered unit
  const Var y = square(select(columns, 0, 1));
  EXPECT_TRUE(source->alive()) << "the views hold the unit";
  Var z = sum(y);
  const std::weak_ptr<Storage> unit = columns.value().storage();
  Saved saved(columns.value());
  const Tensor before = columns.value().clone();
  // Only the recipe is left when the views are gone.
  const Var kept = z;
  z = Var();
  {
    const Tensor again = saved.get();
    expect_same_bits(again.contiguous(), before.contiguous());
    EXPECT_EQ(again.strides(), columns.value().strides());
  }
  kept.backward();
  const Var plain = plain_weight();
  sum(square(select(slice(transpose(plain, 0, 1), 0, 1, 2), 0, 1))).backward();
  expect_same_bits(w.grad(), plain.grad());
}

TEST_F(SourceTest, ARecipeAloneHoldsNoBytes) {
  Saved saved;
  Tensor expected;
  {
    const Tensor value = weight().value().transpose(0, 1);
    expected = value.clone();
    saved = Saved(value);
  }
  EXPECT_FALSE(source->alive());
  expect_same_bits(saved.get(), expected);
  EXPECT_FALSE(source->alive());
  EXPECT_EQ(source->gathers, 2);
}

TEST_F(SourceTest, AStepBetweenForwardAndBackwardIsAnError) {
  const Var w = weight();
  const Var loss = sum(linear(Var(x, true), w));
  ++source->version_number;
  EXPECT_EQ(error_of([&] { loss.backward(); }),
            "[backward] unit 2 (fc1.weight) was changed between forward and backward: version 1, "
            "saved at 0; run "
            "backward before step()");
}

TEST_F(SourceTest, ASourceThatIsGoneIsAnError) {
  const Tensor value = weight().value();
  source.reset();
  EXPECT_EQ(error_of([&] { Saved saved(value); }),
            "[saved] the source of a gathered value is gone");
}

TEST_F(SourceTest, CheckpointingGathersForTheRecomputationToo) {
  const Var w = weight(), input(x, true);
  const Var y = checkpoint(
      [&](const Var& in) {
        const Var h = tanh(linear(in, w));
        return tanh(linear(h, transpose(w, 0, 1)));
      },
      input);
  EXPECT_EQ(source->gathers, 2);
  EXPECT_FALSE(source->alive());
  sum(y).backward();
  EXPECT_FALSE(source->alive());
  const Var plain = plain_weight(), other(x, true);
  sum(tanh(linear(tanh(linear(other, plain)), transpose(plain, 0, 1)))).backward();
  expect_same_bits(w.grad(), plain.grad());
  expect_same_bits(input.grad(), other.grad());
}

TEST(Saved, UndefinedAndPlainTensors) {
  const Saved nothing, undefined{Tensor()};
  EXPECT_FALSE(nothing.defined());
  EXPECT_FALSE(undefined.get().defined());
  const Tensor x = Tensor::full({2}, 3, DType::f64);
  Saved saved(x);
  EXPECT_EQ(saved.get().storage(), x.storage());
  Saved moved = std::move(saved);
  EXPECT_EQ(moved.get().storage(), x.storage());
  x.fill(4);
  EXPECT_NE(error_of([&] { moved.get(); }).find("changed in place"), std::string::npos);
}

}  // namespace
}  // namespace sg

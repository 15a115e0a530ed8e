#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/testing.h"

namespace sg {
namespace {

using test::error_of;
using Values = std::vector<double>;

Tensor counting(const Shape& shape, DType dtype = DType::f32) {
  return Tensor::arange(numel(shape), dtype).reshape(shape);
}

TEST(Tensor, HandlesShareBytes) {
  const Tensor a = Tensor::zeros({2, 3});
  const Tensor b = a;
  b.fill(4);
  EXPECT_EQ(a.to_doubles(), Values(6, 4.0));
  EXPECT_FALSE(Tensor().defined());
  EXPECT_EQ(describe(Tensor()), "undefined");
  EXPECT_EQ(describe(a), "f32 [2, 3]");
}

TEST(Tensor, Creation) {
  EXPECT_EQ(Tensor::full({2}, 1.5, DType::bf16).to_doubles(), (Values{1.5, 1.5}));
  EXPECT_EQ(Tensor::arange(4).to_vector<std::int64_t>(), (std::vector<std::int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(Tensor::full({}, 7, DType::i32).item(), 7);
  EXPECT_EQ(Tensor::zeros({0, 3}).numel(), 0);
  EXPECT_EQ(Tensor::from(std::vector<double>{1, 2}, {2, 1}).dtype(), DType::f64);
  EXPECT_EQ(error_of([] {
              Tensor::from(std::vector<float>{1, 2, 3}, {2, 2});
            }),
            "[tensor] 3 values do not fill shape [2, 2]");
  EXPECT_EQ(error_of([] { Tensor::empty({2, -1}); }), "[tensor] negative size in shape [2, -1]");
  EXPECT_EQ(error_of([] {
              Tensor::empty({1, 1, 1, 1, 1, 1, 1, 1, 1});
            }),
            "[shape] more than 8 dimensions");
}

TEST(Tensor, AccessIsChecked) {
  if (current_rank().device.is_cuda()) {
    EXPECT_EQ(error_of([] { Tensor::zeros({2}).data<float>(); }),
              "[tensor] f32 is on cuda:0, which the CPU cannot read; copy it with to(kCpu)");
    return;
  }
  const Tensor x = Tensor::zeros({2});
  EXPECT_EQ(error_of([&] { x.data<double>(); }),
            "[tensor] asked for f64 data of a f32 tensor of shape [2]");
  EXPECT_EQ(error_of([&] { x.item(); }), "[item] needs one element, got shape [2]");
  EXPECT_EQ(error_of([&] { Tensor().raw_data(); }), "[tensor] the tensor is undefined");
  const Tensor meta = Tensor::empty({2}, DType::f32, kMeta);
  EXPECT_EQ(
      error_of([&] { meta.to_doubles(); }).find("[copy] from meta to cpu") != std::string::npos ||
          error_of([&] { meta.to_doubles(); }).find("is on meta and has no bytes to read") !=
              std::string::npos,
      true)
      << error_of([&] { meta.to_doubles(); });
  EXPECT_EQ(error_of([&] { x.copy_from(meta); }),
            "[copy] from meta to cpu: a meta tensor has no values");
  EXPECT_EQ(error_of([&] { x.copy_from(Tensor::zeros({3})); }),
            "[copy] shapes differ: from [3] to [2]");
  EXPECT_EQ(error_of([&] { check_same_dtype("op", x, meta); }), "[op] mixed devices: cpu and meta");
}

TEST(Tensor, ReshapeViewsWhereStridesAllowAndCopiesOtherwise) {
  const Tensor x = counting({2, 3, 4});
  EXPECT_EQ(x.reshape({6, -1}).shape(), (Shape{6, 4}));
  EXPECT_EQ(x.reshape({6, 4}).storage(), x.storage());
  // Merging dimensions that follow each other in memory is a view even if others do not.
  const Tensor rows = counting({4, 3, 2}).slice(0, 0, 2, 2);
  EXPECT_EQ(rows.reshape({2, 6}).storage(), rows.storage());
  EXPECT_EQ(rows.reshape({2, 6}).to_doubles(), (Values{0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17}));
  const Tensor t = counting({2, 3}).transpose(0, 1);
  EXPECT_FALSE(t.view_or_undefined({6}).defined());
  EXPECT_EQ(t.reshape({6}).to_doubles(), (Values{0, 3, 1, 4, 2, 5}));
  EXPECT_EQ(t.reshape({3, 1, 2}).storage(), t.storage());
  EXPECT_EQ(t.reshape({1, 3, 2, 1}).to_doubles(), t.to_doubles());
  EXPECT_EQ(Tensor::zeros({0, 3}).reshape({3, 0}).shape(), (Shape{3, 0}));
  EXPECT_EQ(error_of([&] { x.reshape({-1, -1}); }), "[reshape] more than one -1 in [-1, -1]");
  EXPECT_EQ(error_of([&] {
              x.reshape({5, -1});
            }),
            "[reshape] [2, 3, 4] does not divide into [5, -1]");
  EXPECT_EQ(error_of([&] {
              x.reshape({5, 5});
            }),
            "[reshape] [2, 3, 4] has 24 elements, [5, 5] has 25");
}

// Every view of a view must read the elements that index arithmetic says.
TEST(Tensor, ViewsReadTheRightElements) {
  const Tensor x = counting({3, 4, 5});
  const auto at = [](std::int64_t i, std::int64_t j, std::int64_t k) {
    return static_cast<double>((i * 4 + j) * 5 + k);
  };
  const Tensor y =
      x.permute({2, 0, 1}).slice(0, 1, 2, 2).transpose(1, 2);  // [2, 4, 3]: k = 1 + 2a, j, i
  ASSERT_EQ(y.shape(), (Shape{2, 4, 3}));
  Values expected;
  for (int a = 0; a < 2; ++a)
    for (int j = 0; j < 4; ++j)
      for (int i = 0; i < 3; ++i) expected.push_back(at(i, j, 1 + 2 * a));
  EXPECT_EQ(y.to_doubles(), expected);
  EXPECT_EQ(y.storage(), x.storage());
  EXPECT_EQ(x.select(1, 2).select(0, 1).to_doubles(),
            (Values{at(1, 2, 0), at(1, 2, 1), at(1, 2, 2), at(1, 2, 3), at(1, 2, 4)}));
  EXPECT_EQ(x.select(2, 0).unsqueeze(0).shape(), (Shape{1, 3, 4}));
  EXPECT_EQ(x.unsqueeze(-1).squeeze(3).to_doubles(), x.to_doubles());
  EXPECT_EQ(counting({3}).unsqueeze(1).expand({2, 3, 2}).to_doubles(),
            (Values{0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2}));
}

TEST(Tensor, ErrorsOfViews) {
  const Tensor x = Tensor::zeros({2, 3});
  EXPECT_EQ(error_of([&] { x.permute({0, 0}); }), "[permute] dimension 0 twice in [0, 0]");
  EXPECT_EQ(error_of([&] { x.permute({0}); }), "[permute] order [0] does not fit shape [2, 3]");
  EXPECT_EQ(error_of([&] { x.transpose(0, 2); }), "[transpose] dimension 2 is outside [-2, 2)");
  EXPECT_EQ(error_of([&] { x.slice(1, 2, 2); }),
            "[slice] 2 elements from 2 by 1 are outside dimension 1 of [2, 3]");
  EXPECT_EQ(error_of([&] { x.slice(1, -1, 2); }),
            "[slice] 2 elements from -1 by 1 are outside dimension 1 of [2, 3]");
  EXPECT_EQ(error_of([&] { x.slice(1, 0, 2, 0); }), "[slice] step must be at least 1, got 0");
  EXPECT_EQ(error_of([&] { x.expand({3, 3}); }), "[expand] [2, 3] does not broadcast to [3, 3]");
  EXPECT_EQ(error_of([&] { x.expand({3}); }), "[expand] [2, 3] does not broadcast to [3]");
  EXPECT_EQ(error_of([&] { x.squeeze(0); }), "[squeeze] dimension 0 of [2, 3] is not 1");
  EXPECT_EQ(error_of([&] { x.channels_last(); }),
            "[channels_last] needs 4 dimensions [N, C, H, W], got [2, 3]");
}

TEST(Tensor, MemoryOrders) {
  const Tensor x = counting({2, 3, 4, 5});
  const Tensor last = x.channels_last();
  EXPECT_TRUE(last.is_channels_last());
  EXPECT_FALSE(x.is_channels_last());
  EXPECT_FALSE(last.is_contiguous());
  EXPECT_TRUE(last.is_dense());
  EXPECT_EQ(last.strides(), (Strides{60, 1, 15, 3}));
  EXPECT_EQ(last.to_doubles(), x.to_doubles());
  EXPECT_EQ(last.channels_last().storage(), last.storage());
  EXPECT_EQ(last.contiguous().strides(), x.strides());
  EXPECT_EQ(last.clone().strides(), last.strides());
  EXPECT_EQ(last.to(DType::f64).strides(), last.strides());
  EXPECT_EQ(last.to(DType::f64).to_doubles(), x.to_doubles());
  EXPECT_EQ(Tensor::empty_like(last).strides(), last.strides());
  EXPECT_TRUE(x.permute({3, 1, 0, 2}).is_dense());
  EXPECT_FALSE(x.slice(3, 0, 3).is_dense());
  EXPECT_FALSE(x.select(0, 0).unsqueeze(0).expand({2, 3, 4, 5}).is_dense());
  EXPECT_EQ(Tensor::empty_like(x.slice(3, 0, 3)).strides(), (Strides{36, 12, 3, 1}));
  // One channel: both orders at once, and so not "channels-last".
  EXPECT_FALSE(Tensor::zeros({2, 1, 3, 3}).is_channels_last());
}

TEST(Tensor, CopiesCastAndFollowStrides) {
  for (const DType from :
       {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8})
    for (const DType to :
         {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i64, DType::i32, DType::u8}) {
      const Tensor x = counting({3, 5}, from).transpose(0, 1);
      const Tensor y = test::every_second(Tensor::zeros({5, 3}, to));
      y.copy_from(x);
      EXPECT_EQ(y.to_doubles(), x.to_doubles()) << name_of(from) << " to " << name_of(to);
      EXPECT_EQ(x.to(to).dtype(), to);
      EXPECT_EQ(x.to(to).to_doubles(), x.to_doubles());
    }
  const Tensor x = Tensor::zeros({4, 4});
  x.slice(0, 1, 2).slice(1, 1, 2).fill(5);
  EXPECT_EQ(x.to_doubles(), (Values{0, 0, 0, 0, 0, 5, 5, 0, 0, 5, 5, 0, 0, 0, 0, 0}));
}

TEST(Tensor, CastsToIntegersAreDefinedForEveryNumber) {
  constexpr double kLeast = -9223372036854775808.0;
  for (const DType from : {DType::f64, DType::f32}) {
    const Tensor x = Tensor::from(std::vector<double>{300.7, -1.5, NAN, 1e30, -1e30}, {5}).to(from);
    EXPECT_EQ(x.to(DType::u8).to_doubles(), (Values{44, 255, 0, 0, 0}));
    EXPECT_EQ(x.to(DType::i32).to_doubles(), (Values{300, -1, 0, 0, 0}));
    EXPECT_EQ(x.to(DType::i64).to_doubles(), (Values{300, -1, kLeast, kLeast, kLeast}));
  }
  EXPECT_EQ(Tensor::full({1}, 1000, DType::u8).item(), 232);
}

TEST(Tensor, ChangesInPlaceCount) {
  const Tensor x = Tensor::zeros({4});
  EXPECT_EQ(x.storage()->version(), 0u);
  x.slice(0, 0, 2).fill(1);
  x.copy_from(Tensor::zeros({4}));
  EXPECT_EQ(x.storage()->version(), 2u);
  EXPECT_EQ(x.clone().storage()->version(), 1u);
}

TEST(Shape, Broadcasting) {
  EXPECT_EQ(broadcast_shapes("op", {2, 1, 3}, {4, 1}), (Shape{2, 4, 3}));
  EXPECT_EQ(broadcast_shapes("op", {}, {2}), (Shape{2}));
  EXPECT_EQ(broadcast_shapes("op", {0}, {1}), (Shape{0}));
  EXPECT_EQ(error_of([] {
              broadcast_shapes("op", {2, 3}, {2, 4});
            }),
            "[op] shapes [2, 3] and [2, 4] do not broadcast: sizes 3 and 4 at dimension -1; sizes "
            "must be equal or 1");
  EXPECT_EQ(normalize_dim("op", -1, 3), 2);
  EXPECT_EQ(error_of([] { normalize_dim("op", 0, 0); }), "[op] dimension 0 is outside [-0, 0)");
  EXPECT_EQ(to_string(Shape{}), "[]");
  EXPECT_EQ(contiguous_strides({2, 0, 3}), (Strides{3, 3, 1}));
}

}  // namespace
}  // namespace sg

// The rank-order sum on a GPU: any number of sources, and every place where the result may go.
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "core/cuda/cuda.h"
#include "core/cuda/lanes.h"
#include "core/tensor.h"
#include "tests/support/testing.h"

#if SG_CUDA
namespace sg {
namespace {

constexpr Device kFoldDevice = cuda_device(0);

class GpuFold : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
  }
};

// Of very different sizes, so that another order gives other bits.
template <class T>
std::vector<std::vector<T>> wild(int count, std::int64_t n) {
  std::mt19937_64 random(static_cast<std::uint64_t>(count * 1000 + n));
  std::vector<std::vector<T>> all(static_cast<std::size_t>(count));
  for (auto& source : all)
    for (std::int64_t i = 0; i < n; ++i) {
      const std::uint64_t bits = random();
      const double fraction = static_cast<double>(static_cast<std::int64_t>(bits)) * 0x1p-63;
      source.push_back(static_cast<T>(std::ldexp(fraction, static_cast<int>(bits % 24) - 12)));
    }
  return all;
}

template <class T>
std::vector<T> in_order(const std::vector<std::vector<T>>& sources) {
  std::vector<T> sum = sources[0];
  for (std::size_t s = 1; s < sources.size(); ++s)
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += sources[s][i];
  return sum;
}

// `place`: the source that the result takes the memory of; -1: none. `shift`: elements by which all
// begin after 16 bytes.
template <class T>
void check_sum(int count, std::int64_t n, int place, std::int64_t shift, cuda::Lane lane) {
  SCOPED_TRACE(fmt::format("{} sources of {} x {}, in place of {}, {} off", count, n,
                           name_of(dtype_of<T>), place, shift));
  const auto values = wild<T>(count, n);
  // One block, in which every source, and a place for the result, begins at 16 bytes and the shift.
  const std::int64_t apart = (n + shift + 3) / 4 * 4;
  std::vector<T> block(static_cast<std::size_t>((count + 1) * apart));
  for (int s = 0; s < count; ++s) {
    const std::vector<T>& source = values[static_cast<std::size_t>(s)];
    std::copy(source.begin(), source.end(), block.begin() + s * apart + shift);
  }
  const Tensor there = Tensor::from(block, {std::ssize(block)}).to(kFoldDevice);
  const auto at = [&](int s) { return static_cast<T*>(there.raw_data()) + s * apart + shift; };
  std::vector<const void*> sources;
  for (int s = 0; s < count; ++s) sources.push_back(at(s));
  cuda::Context& context = *cuda::current(kFoldDevice);
  cuda::wait(context, lane, *cuda::mark(context, cuda::Lane::compute));
  cuda::fold(context, lane, dtype_of<T>, at(place < 0 ? count : place), sources, n);
  cuda::wait(context, cuda::Lane::compute, *cuda::mark(context, lane));
  // Nothing but the result has changed.
  const std::vector<T> sum = in_order(values);
  std::copy(sum.begin(), sum.end(), block.begin() + (place < 0 ? count : place) * apart + shift);
  EXPECT_EQ(there.to_vector<T>(), block);
}

TEST_F(GpuFold, AnyNumberOfSourcesInOrder) {
  for (const int count : {1, 2, 16, 17, 256, 257, 513}) {
    for (const std::int64_t n : {1, 4, 131}) check_sum<float>(count, n, -1, 0, cuda::Lane::compute);
    check_sum<double>(count, 130, -1, 1, cuda::Lane::communication);
  }
  const auto values = wild<float>(300, 64);
  EXPECT_NE(in_order(values), in_order(std::vector(values.rbegin(), values.rend())))
      << "the values do not show the order";
}

TEST_F(GpuFold, TheResultMayTakeTheMemoryOfAnySource) {
  for (const int count : {2, 17, 256, 257, 513})
    for (const int place : {0, 1, 15, 16, 128, 255, 256, 257, count - 1})
      if (place < count) {
        check_sum<float>(count, 70, place, 0, cuda::Lane::communication);
        check_sum<double>(count, 5, place, 1, cuda::Lane::compute);
      }
}

// A gradient that is accumulated is the first term, and is overwritten.
TEST_F(GpuFold, WhatIsAccumulatedIsContinued) {
  const auto values = wild<float>(40, 100);
  std::vector<Tensor> there;
  for (const auto& source : values) there.push_back(Tensor::from(source, {100}).to(kFoldDevice));
  const Tensor sum = there[0].clone();
  for (std::size_t first = 1; first < there.size(); first += 13) {
    std::vector<const void*> sources{sum.raw_data()};
    for (std::size_t s = first; s < std::min(first + 13, there.size()); ++s)
      sources.push_back(there[s].raw_data());
    cuda::fold(*cuda::current(kFoldDevice), cuda::Lane::compute, DType::f32, sum.raw_data(),
               sources, 100);
  }
  EXPECT_EQ(sum.to_vector<float>(), in_order(values));
}

}  // namespace
}  // namespace sg
#endif

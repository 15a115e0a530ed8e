#include "tests/support/testing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "core/cuda/cuda.h"
#include "core/rng.h"

namespace sg::test {
namespace {

// The suites of a room run on another device where SHARDGRAD_TEST_DEVICE names it.
const bool device_set = [] {
  const char* const name = std::getenv("SHARDGRAD_TEST_DEVICE");
  if (name == nullptr) return true;
  current_rank().device = device_of(name);
  if (!current_rank().device.is_cuda() || cuda::device_count() > 0) return true;
  fmt::print("skipped, there is no GPU: {}\n", cuda::why_none());
  std::exit(77);  // CTest's SKIP_RETURN_CODE
}();

}  // namespace

std::string error_of(const std::function<void()>& f) {
  try {
    f();
  } catch (const std::exception& e) {
    return e.what();
  }
  return "no error";
}

Tensor random(const Shape& shape, DType dtype, std::uint64_t seed, double low, double high) {
  Tensor x = Tensor::empty(shape, DType::f64, kCpu);
  double* data = x.data<double>();
  for (std::int64_t i = 0; i < x.numel(); ++i) {
    const auto words = philox(mix_keys(name_key("test"), seed), static_cast<std::uint64_t>(i), 0);
    data[i] = low + (high - low) * uniform_double(words[0], words[1]);
  }
  return x.to(current_rank().device).to(dtype);
}

Tensor reversed_order(const Tensor& x) {
  Dims order;
  for (int i = x.dim_count() - 1; i >= 0; --i) order.push_back(i);
  const Tensor reversed = x.permute(order);
  Tensor stored = Tensor::empty(reversed.shape(), x.dtype(), x.device());
  stored.copy_from(reversed);
  return stored.permute(order);
}

Tensor every_second(const Tensor& x) {
  if (x.dim_count() == 0) return x.clone();
  Shape wide = x.shape();
  for (std::int64_t& size : wide) size = 2 * size + 1;
  Tensor view = Tensor::empty(wide, x.dtype(), x.device());
  view.fill(1e3);
  for (int i = 0; i < x.dim_count(); ++i) view = view.slice(i, 1, x.shape()[i], 2);
  view.copy_from(x);
  return view;
}

std::vector<Tensor> layouts(const Tensor& x) {
  std::vector<Tensor> all{x, reversed_order(x), every_second(x)};
  if (x.dim_count() == 4) all.push_back(x.channels_last());
  return all;
}

std::vector<std::vector<std::int64_t>> indices(const Shape& shape) {
  std::vector<std::vector<std::int64_t>> all;
  for (std::int64_t i = 0; i < numel(shape); ++i) {
    std::vector<std::int64_t> index(static_cast<std::size_t>(shape.size()));
    std::int64_t rest = i;
    for (int d = shape.size() - 1; d >= 0; --d) {
      index[static_cast<std::size_t>(d)] = rest % shape[d];
      rest /= shape[d];
    }
    all.push_back(index);
  }
  return all;
}

double at(const Tensor& x, const std::vector<std::int64_t>& index) {
  const int skip = static_cast<int>(index.size()) - x.dim_count();
  Tensor view = x.to(kCpu);
  for (int d = 0; d < x.dim_count(); ++d)
    view = view.slice(d, x.shape()[d] == 1 ? 0 : index[static_cast<std::size_t>(d + skip)], 1);
  return view.item();
}

void expect_close(const Tensor& a, const Tensor& b, double rtol, double atol) {
  ASSERT_EQ(to_string(a.shape()), to_string(b.shape()));
  const std::vector<double> x = a.to_doubles(), y = b.to_doubles();
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
    ASSERT_LE(std::abs(x[i] - y[i]), atol + rtol * std::abs(y[i]))
        << "element " << i << " of " << to_string(a.shape()) << ": " << x[i] << " against " << y[i];
  }
}

void expect_same_bits(const Tensor& a, const Tensor& b) {
  ASSERT_EQ(describe(a), describe(b));
  if (!a.defined()) return;
  const Tensor x = a.contiguous().to(kCpu), y = b.contiguous().to(kCpu);
  const std::size_t item = size_of(a.dtype());
  const char *p = static_cast<const char*>(x.raw_data()),
             *q = static_cast<const char*>(y.raw_data());
  for (std::int64_t i = 0; i < a.numel(); ++i)
    ASSERT_EQ(std::memcmp(p + static_cast<std::size_t>(i) * item,
                          q + static_cast<std::size_t>(i) * item, item),
              0)
        << "element " << i << " of " << describe(a);
}

void with_threads(int threads, const std::function<void()>& f) {
  const int before = current_rank().threads;
  {
    const Scoped scope(current_rank().threads, threads);
    flush_denormals(threads);  // also tells libraries on OpenMP how many threads they have
    f();
  }
  flush_denormals(before);
}

}  // namespace sg::test

#include "data/normalize.h"

#include <cmath>

#include "core/check.h"
#include "data/kernels/normalize.h"

namespace sg::data {

Normalizer::Normalizer(DType dtype, double mean, double deviation)
    : mean_(static_cast<float>(mean)), scale_(0) {
  SG_CHECK(std::isfinite(mean) && std::isfinite(deviation) && deviation > 0,
           "[normalize] mean {} and deviation {}; expected finite numbers and a positive deviation",
           mean, deviation);
  visit_floating("normalize", dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using C = compute_t<T>;
    Table<T>& table = table_.emplace<Table<T>>();
    for (int x = 0; x < 256; ++x) {
      const C pixel = static_cast<C>(x) / static_cast<C>(255);
      table[static_cast<std::size_t>(x)] =
          static_cast<T>((pixel - static_cast<C>(mean)) / static_cast<C>(deviation));
    }
  });
  int exponent = 0;
  if (dtype == DType::f32 && std::frexp(deviation, &exponent) == 0.5 && std::abs(exponent) < 64)
    scale_ = static_cast<float>(1 / deviation);
}

void Normalizer::operator()(std::span<const std::uint8_t> in, void* out) const {
  if (scale_ != 0) {
    kernels::normalize().f32(in.data(), static_cast<std::int64_t>(in.size()), mean_, scale_,
                             static_cast<float*>(out));
    return;
  }
  std::visit(
      [&](const auto& table) {
        auto* values = static_cast<typename std::decay_t<decltype(table)>::value_type*>(out);
        for (std::size_t i = 0; i < in.size(); ++i) values[i] = table[in[i]];
      },
      table_);
}

}  // namespace sg::data

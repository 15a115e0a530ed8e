// What follows a matrix product where the library does not do it.
#include "core/cuda/divide.h"
#include "core/cuda/kernels_matmul.h"
#include "core/cuda/map.h"

namespace sg::cuda {
namespace {

// A pack of kPack neighbouring columns a thread.
template <class T, int kPack>
struct BiasRelu {
  using C = compute_t<T>;
  T* x;
  const T* bias;
  Divider packs;  // of a row
  std::int64_t ld;
  bool relu;

  struct alignas(sizeof(T) * kPack) Values {
    T v[kPack];
  };

  SG_HD void operator()(std::int64_t i) const {
    const std::int64_t column = packs.split(i) * kPack;
    Values* const at = reinterpret_cast<Values*>(x + i * ld + column);
    Values values = *at, b{};
    if (bias != nullptr) b = *reinterpret_cast<const Values*>(bias + column);
    for (int k = 0; k < kPack; ++k) {
      C y = static_cast<C>(values.v[k]);
      if (bias != nullptr) y = y + static_cast<C>(b.v[k]);
      values.v[k] = static_cast<T>(relu && y < C(0) ? C(0) : y);
    }
    *at = values;
  }
};

}  // namespace

void bias_relu(const Launch& on, DType dtype, std::int64_t rows, std::int64_t columns,
               std::int64_t ld, void* x, const void* bias, bool relu) {
  if (columns == 0) return;
  visit(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if constexpr (std::is_floating_point_v<compute_t<T>>) {
      constexpr int kPack = Pack<T>::kCount;
      const auto run = [&]<int kCount>(std::integral_constant<int, kCount>) {
        for_each(on, rows * (columns / kCount),
                 BiasRelu<T, kCount>{static_cast<T*>(x), static_cast<const T*>(bias),
                                     Divider(columns / kCount), ld, relu});
      };
      const bool aligned =
          (reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(bias)) % 16 == 0;
      if (aligned && columns % kPack == 0 && ld % kPack == 0)
        run(std::integral_constant<int, kPack>{});
      else
        run(std::integral_constant<int, 1>{});
    }
  });
}

}  // namespace sg::cuda

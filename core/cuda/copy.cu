// Copies, casts and fills of strided values on the GPU.
#include "core/cuda/kernels.h"

namespace sg::cuda {
namespace {

template <class From, class To>
struct Copy {
  const From* from;
  To* to;
  Walk<2> walk;
  SG_HD void operator()(std::int64_t i) const {
    std::int64_t at[2];
    walk.locate(i, at);
    if constexpr (std::is_same_v<From, To>)
      to[at[0]] = from[at[1]];
    else
      to[at[0]] = convert<To>(from[at[1]]);
  }
};

template <class T>
struct Fill {
  T value;
  T* to;
  Walk<1> walk;
  SG_HD void operator()(std::int64_t i) const {
    std::int64_t at[1];
    walk.locate(i, at);
    to[at[0]] = value;
  }
};

// Words that come with the launch itself.
struct Store {
  static constexpr std::int64_t kWords = 512;  // a launch may bring 4 KB
  std::uint32_t words[kWords];
  std::uint32_t* to;
  SG_HD void operator()(std::int64_t i) const { to[i] = words[i]; }
};

// Keeps its stream busy; the stand-in's streams have delays of their own.
struct Delay {
  std::int64_t microseconds;
  SG_HD void operator()(std::int64_t) const {
#if defined(__CUDA_ARCH__)
    for (std::int64_t i = 0; i < microseconds; ++i) __nanosleep(1000);
#endif
  }
};

}  // namespace

void delay(const Launch& on, std::int64_t microseconds) { for_each(on, 1, Delay{microseconds}); }

void store(const Launch& on, void* to, const std::uint32_t* words, std::int64_t n) {
  for (std::int64_t done = 0; done < n; done += Store::kWords) {
    Store part{{}, static_cast<std::uint32_t*>(to) + done};
    const std::int64_t count = std::min(n - done, Store::kWords);
    std::copy_n(words + done, count, part.words);
    for_each(on, count, part);
  }
}

void copy_strided(const Launch& on, DType to, DType from, std::int64_t n, const Walk<2>& walk,
                  const void* input, void* output) {
  visit(from, [&](auto source) {
    visit(to, [&](auto target) {
      using From = typename decltype(source)::type;
      using To = typename decltype(target)::type;
      for_each(on, n,
               Copy<From, To>{static_cast<const From*>(input), static_cast<To*>(output), walk});
    });
  });
}

void fill_strided(const Launch& on, DType dtype, std::int64_t n, const Walk<1>& walk, double value,
                  void* output) {
  visit(dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const T element = convert<T>(value);
    for_each(on, n, Fill<T>{element, static_cast<T*>(output), walk});
  });
}

}  // namespace sg::cuda

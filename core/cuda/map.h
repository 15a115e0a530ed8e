// Maps over contiguous values: out[i] = f(in0[i], in1[i], ...), 16 bytes at a time where all
// pointers allow it, and over strided ones.
#pragma once

#include "core/cuda/launch.h"
#include "core/scalar.h"

namespace sg::cuda {

inline constexpr int kMaxDims = 8;

/// 16 bytes of values of type T, read and written by one instruction.
template <class T>
struct alignas(16) Pack {
  static constexpr int kCount = 16 / sizeof(T);
  T values[kCount];
};

/// f takes an array of kInputs values of the compute type (0 for a null input) and gives one.
template <int kInputs, class T, class Out, class F>
struct Map {
  using C = compute_t<T>;
  F f;
  const T* in[kInputs];
  Out* out;
  std::int64_t n, packed;  ///< the first `packed` values are taken by packs

  SG_HD void operator()(std::int64_t i) const {
    constexpr int kCount = Pack<T>::kCount;
    if (i >= packed / kCount) return one(packed + (i - packed / kCount));
    Pack<T> x[kInputs] = {};
    for (int k = 0; k < kInputs; ++k)
      if (in[k] != nullptr) x[k] = reinterpret_cast<const Pack<T>*>(in[k])[i];
    Out y[kCount];
    for (int j = 0; j < kCount; ++j) {
      C v[kInputs];
      for (int k = 0; k < kInputs; ++k) v[k] = static_cast<C>(x[k].values[j]);
      y[j] = static_cast<Out>(f(v));
    }
    for (int j = 0; j < kCount; ++j) store(i * kCount + j, y, j);
  }

 private:
  SG_HD void one(std::int64_t i) const {
    C v[kInputs];
    for (int k = 0; k < kInputs; ++k) v[k] = in[k] != nullptr ? static_cast<C>(in[k][i]) : C(0);
    out[i] = static_cast<Out>(f(v));
  }
  SG_HD void store(std::int64_t at, const Out* y, int j) const {
    // One store of 16 bytes where the output is as wide as the inputs.
    if constexpr (sizeof(Out) == sizeof(T)) {
      if (j > 0) return;
      Pack<Out> p;
      for (int k = 0; k < Pack<Out>::kCount; ++k) p.values[k] = y[k];
      *reinterpret_cast<Pack<Out>*>(out + at) = p;
    } else {
      out[at] = y[j];
    }
  }
};

/// Contiguous values. `out` may be one of the inputs.
template <int kInputs, class T, class Out, class F>
void map(const Launch& on, std::int64_t n, const void* const* inputs, void* output, const F& f) {
  Map<kInputs, T, Out, F> m{f, {}, static_cast<Out*>(output), n, 0};
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(output);
  for (int k = 0; k < kInputs; ++k) {
    m.in[k] = static_cast<const T*>(inputs[k]);
    bits |= reinterpret_cast<std::uintptr_t>(inputs[k]);
  }
  constexpr int kCount = Pack<T>::kCount;
  if (bits % 16 == 0) m.packed = n / kCount * kCount;
  for_each(on, m.packed / kCount + (n - m.packed), m);
}

/// Strides, in elements, of up to kOperands tensors over common dimensions, outermost first.
template <int kOperands>
struct Walk {
  int dims = 0;
  std::int64_t size[kMaxDims] = {};
  std::int64_t stride[kOperands][kMaxDims] = {};

  SG_HD void locate(std::int64_t index, std::int64_t* offsets) const {
    for (int k = 0; k < kOperands; ++k) offsets[k] = 0;
    for (int d = dims - 1; d >= 0; --d) {
      const std::int64_t at = d == 0 ? index : index % size[d];
      for (int k = 0; k < kOperands; ++k) offsets[k] += at * stride[k][d];
      index /= size[d];
    }
  }
};

/// The same map where operand 0 is the output and operand k + 1 the k-th input.
template <int kInputs, class T, class Out, class F>
struct StridedMap {
  using C = compute_t<T>;
  F f;
  const T* in[kInputs];
  Out* out;
  Walk<kInputs + 1> walk;

  SG_HD void operator()(std::int64_t i) const {
    std::int64_t at[kInputs + 1];
    walk.locate(i, at);
    C v[kInputs];
    for (int k = 0; k < kInputs; ++k)
      v[k] = in[k] != nullptr ? static_cast<C>(in[k][at[k + 1]]) : C(0);
    out[at[0]] = static_cast<Out>(f(v));
  }
};

template <int kInputs, class T, class Out, class F>
void map_strided(const Launch& on, std::int64_t n, const Walk<kInputs + 1>& walk,
                 const void* const* inputs, void* output, const F& f) {
  StridedMap<kInputs, T, Out, F> m{f, {}, static_cast<Out*>(output), walk};
  for (int k = 0; k < kInputs; ++k) m.in[k] = static_cast<const T*>(inputs[k]);
  for_each(on, n, m);
}

}  // namespace sg::cuda

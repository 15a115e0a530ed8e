// The sum behind reduce-scatter: several spans added element by element, strictly in the order
// given, which is the order of ranks.
#include "core/cuda/kernels.h"

namespace sg::cuda {
namespace {

// Where the sources are: in the kernel's own arguments, or, where they are too many, on the device.
template <class T>
struct Given {
  const T* sources[kMaxFold];
  SG_HD const T* operator[](int s) const { return sources[s]; }
};
template <class T>
struct Listed {
  const T* const* sources;
  SG_HD const T* operator[](int s) const { return sources[s]; }
};

struct Part {
  const void* sources[kMaxFold];
  const void** to;
  SG_HD void operator()(std::int64_t i) const { to[i] = sources[i]; }
};

// In the order of the launch's stream, like the sum, and written by kernels: no other stream and no
// memory of the host has to wait for it.
struct List {
  cudaStream_t stream;
  void* data = nullptr;
  List(const Launch& on, const void* const* sources, int count) : stream(on.stream) {
    if (count <= kMaxFold) return;
    const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(void*);
    check_call(on, cudaMallocAsync(&data, bytes, stream), "cudaMallocAsync");
    for (int done = 0; done < count; done += kMaxFold) {
      Part part{{}, static_cast<const void**>(data) + done};
      const int some = std::min(count - done, kMaxFold);
      std::copy_n(sources + done, some, part.sources);
      for_each(on, some, part);
    }
  }
  ~List() {
    if (data != nullptr && cudaFreeAsync(data, stream) != cudaSuccess) cudaGetLastError();
  }
  List(const List&) = delete;
  List& operator=(const List&) = delete;
};

template <class T, class Sources>
struct Fold {
  T* out;
  Sources sources;
  int count;
  std::int64_t packs;
  SG_HD void operator()(std::int64_t i) const {
    constexpr int kCount = Pack<T>::kCount;
    if (i >= packs) {
      const std::int64_t at = packs * kCount + (i - packs);
      T total = sources[0][at];
      for (int s = 1; s < count; ++s) total = total + sources[s][at];
      out[at] = total;
      return;
    }
    Pack<T> total = reinterpret_cast<const Pack<T>*>(sources[0])[i];
    for (int s = 1; s < count; ++s) {
      const Pack<T> next = reinterpret_cast<const Pack<T>*>(sources[s])[i];
      for (int k = 0; k < kCount; ++k) total.values[k] = total.values[k] + next.values[k];
    }
    reinterpret_cast<Pack<T>*>(out)[i] = total;
  }
};

template <class T, class Sources>
void run(const Launch& on, T* out, const Sources& list, const void* const* sources, int count,
         std::int64_t n) {
  std::uintptr_t bits = reinterpret_cast<std::uintptr_t>(out);
  for (int s = 0; s < count; ++s) bits |= reinterpret_cast<std::uintptr_t>(sources[s]);
  const std::int64_t packs = bits % 16 == 0 ? n / Pack<T>::kCount : 0;
  for_each(on, packs + (n - packs * Pack<T>::kCount), Fold<T, Sources>{out, list, count, packs});
}

template <class T>
void run(const Launch& on, void* out, const void* const* sources, int count, std::int64_t n,
         void* list) {
  T* const to = static_cast<T*>(out);
  if (count > kMaxFold)
    return run(on, to, Listed<T>{static_cast<const T* const*>(list)}, sources, count, n);
  Given<T> given{};
  for (int s = 0; s < count; ++s) given.sources[s] = static_cast<const T*>(sources[s]);
  run(on, to, given, sources, count, n);
}

}  // namespace

void fold(const Launch& on, DType dtype, void* out, const void* const* sources, int count,
          std::int64_t n) {
  const List list(on, sources, count);
  if (dtype == DType::f64)
    run<double>(on, out, sources, count, n, list.data);
  else
    run<float>(on, out, sources, count, n, list.data);
}

}  // namespace sg::cuda

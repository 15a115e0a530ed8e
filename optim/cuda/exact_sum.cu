// Threads keep what they add in registers (ExactPieces::Window) and then add to one of several
// copies of the words, as a word that all add to would take their additions one by one. A second
// launch adds up the copies.
#include "optim/cuda/exact_sum.h"

#include "core/cuda/launch.h"
#include "core/exact_sum.h"

namespace sg::cuda {
Launch on(const char* op, Device device);  // core/cuda/context.h, which device code cannot include
}

namespace sg::optim::cuda {
namespace {

constexpr std::int64_t kCopies = 64;
constexpr std::int64_t kWords = ExactPieces::kWords;

struct AddTo {
  std::int64_t* words;
  SG_HD void operator()(int word, std::int64_t value) const {
#if defined(__CUDA_ARCH__)
    atomicAdd(reinterpret_cast<unsigned long long*>(words + word),
              static_cast<unsigned long long>(value));
#else
    words[word] += value;  // one thread's work after another's
#endif
  }
};

struct Sum {
  const double* terms;
  std::int64_t n, threads;
  std::int64_t* words;
  SG_HD void operator()(std::int64_t thread) const {
    const AddTo add{words + (thread % kCopies) * kWords};
    ExactPieces::Window window;
    for (std::int64_t i = thread; i < n; i += threads) window.add(terms[i], add);
    window.close(add);
  }
};

struct AddUp {
  std::int64_t* words;
  SG_HD void operator()(std::int64_t word) const {
    std::int64_t sum = 0;
    for (std::int64_t c = 0; c < kCopies; ++c) sum += words[c * kWords + word];
    words[word] = sum;
  }
};

}  // namespace

std::int64_t exact_sum_words() { return kCopies * kWords; }

void sum_exactly(const char* name, Device device, const double* terms, std::int64_t n,
                 std::int64_t* words) {
  const sg::cuda::Launch on = sg::cuda::on(name, device);
  sg::cuda::check_call(
      on, cudaMemsetAsync(words, 0, kCopies * kWords * sizeof(std::int64_t), on.stream),
      "cudaMemsetAsync");
  const std::int64_t threads = std::min<std::int64_t>(n, std::int64_t{on.processors} * 512);
  sg::cuda::for_each(on, threads, Sum{terms, n, threads, words});
  sg::cuda::for_each(on, kWords, AddUp{words});
}

}  // namespace sg::optim::cuda

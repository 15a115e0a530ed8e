#include "dist/step_loss.h"

#include <utility>

#include "core/cuda/lanes.h"
#include "core/rank.h"

namespace sg::dist {

struct StepLoss::State {
  double value = 0;
  // Of losses that are under way: what is copied, and its copies, the last of what was found wrong.
  // Without a mark there are none.
  std::vector<Tensor> on_gpu, copies;
  cuda::Context* gpu = nullptr;
  std::shared_ptr<cuda::Mark> copied;
  bool told = false;

  ~State() {
    if (!SG_CUDA || copied == nullptr) return;
    try {
      cuda::wait(*copied);  // both sides of the copies go now
    } catch (const std::exception&) {
      // The device is lost; its error was thrown where it was found.
    }
  }
};

StepLoss::StepLoss(double value) : state_(std::make_shared<State>()) { state_->value = value; }

StepLoss::StepLoss(std::vector<Tensor> losses) : state_(std::make_shared<State>()) {
  State& s = *state_;
  if (!SG_CUDA || !losses.front().is_cuda()) {
    for (const Tensor& loss : losses) s.value += loss.item();
    s.value /= static_cast<double>(losses.size());
    return;
  }
  using cuda::Lane;
  const Scoped kind(current_rank().kind, Kind::buffers);
  s.gpu = cuda::current(losses.front().device());
  s.on_gpu = std::move(losses);
  s.on_gpu.push_back(Tensor::empty({cuda::kFoundWords}, DType::i64, s.on_gpu.front().device()));
  for (const Tensor& from : s.on_gpu)
    s.copies.push_back(Tensor::empty_pinned(from.shape(), from.dtype()));
  cuda::take_found(*s.gpu, s.on_gpu.back().raw_data());
  cuda::wait(*s.gpu, Lane::copies_out, *cuda::mark(*s.gpu, Lane::compute));
  for (std::size_t i = 0; i < s.copies.size(); ++i)
    cuda::download(*s.gpu, Lane::copies_out, s.copies[i].raw_data(), s.on_gpu[i].raw_data(),
                   static_cast<std::size_t>(s.copies[i].bytes()));
  s.copied = cuda::mark(*s.gpu, Lane::copies_out);
}

bool StepLoss::ready() const {
  return !SG_CUDA || state_->copied == nullptr || cuda::reached(*state_->copied);
}

double StepLoss::get() const {
  State& s = *state_;
  if (!SG_CUDA || s.copied == nullptr) return s.value;
  try {
    cuda::wait(*s.gpu, *s.copied, s.copies.back().data<std::int64_t>());
  } catch (...) {
    s.told = true;
    throw;
  }
  s.value = 0;
  for (std::size_t i = 0; i + 1 < s.copies.size(); ++i) s.value += s.copies[i].item();
  s.value /= static_cast<double>(s.copies.size() - 1);
  s.on_gpu.clear();
  s.copied = nullptr;
  return s.value;
}

void StepLoss::check() const {
  if (!state_->told) get();
}

}  // namespace sg::dist

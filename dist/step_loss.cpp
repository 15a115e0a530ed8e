#include "dist/step_loss.h"

#include <utility>

#include "core/cuda/cuda.h"
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

  void start();
  const std::int64_t* found() const { return copies.back().data<std::int64_t>(); }
  ~State() {
    if (!SG_CUDA || copied == nullptr) return;
    try {
      cuda::wait(*copied);  // both sides of the copies go now
      // Whoever waits next shall know.
      if (!told && found()[0] != 0) cuda::put_found(*gpu, on_gpu.back().raw_data());
    } catch (const std::exception&) {
      // The device is lost; its error was thrown where it was found.
    }
  }
};

void StepLoss::State::start() {
  if (!SG_CUDA) return;  // nor are there lanes
  using cuda::Lane;
  cuda::copy_found(*gpu, on_gpu.back().raw_data());
  cuda::wait(*gpu, Lane::copies_out, *cuda::mark(*gpu, Lane::compute));
  for (std::size_t i = 0; i < copies.size(); ++i)
    cuda::download(*gpu, Lane::copies_out, copies[i].raw_data(), on_gpu[i].raw_data(),
                   static_cast<std::size_t>(copies[i].bytes()));
  copied = cuda::mark(*gpu, Lane::copies_out);
}

StepLoss::StepLoss(double value) : state_(std::make_shared<State>()) { state_->value = value; }

StepLoss::StepLoss(std::vector<Tensor> losses) : state_(std::make_shared<State>()) {
  State& s = *state_;
  const Device device = losses.front().device();
  if (!SG_CUDA || !device.is_cuda()) {
    for (const Tensor& loss : losses) s.value += loss.item();
    s.value /= static_cast<double>(losses.size());
    return;
  }
  const Scoped there(current_rank().device, device);
  const Scoped kind(current_rank().kind, Kind::buffers);
  s.gpu = cuda::current(device);
  s.on_gpu = std::move(losses);
  s.on_gpu.push_back(Tensor::empty({cuda::kFoundWords}, DType::i64, device));
  for (const Tensor& from : s.on_gpu)
    s.copies.push_back(Tensor::empty_pinned(from.shape(), from.dtype()));
  try {
    s.start();
  } catch (...) {
    // Copies may be under way, and nothing else waits for them.
    cuda::drain(*s.gpu, cuda::Lane::copies_out);
    throw;
  }
}

bool StepLoss::ready() const {
  return !SG_CUDA || state_->copied == nullptr || cuda::reached(*state_->copied);
}

double StepLoss::get() const {
  State& s = *state_;
  if (!SG_CUDA || s.copied == nullptr) return s.value;
  cuda::wait(*s.gpu, *s.copied);
  s.told = true;
  cuda::check_found(s.found());
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

void StepLoss::taken() const {
  if (SG_CUDA && state_->copied != nullptr) cuda::clear_found(*state_->gpu);
}

}  // namespace sg::dist

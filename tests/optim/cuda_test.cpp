// Updates on a GPU have the bits of the CPU's.
#include "core/cuda/cuda.h"

#include "core/ops.h"
#include "optim/clip.h"
#include "optim/elementwise.h"
#include "optim/span_optimizer.h"
#include "tests/optim/support.h"

namespace sg::optim {
namespace {

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (cuda::device_count() == 0) GTEST_SKIP() << "no GPU: " << cuda::why_none();
  }
  static constexpr Device kGpu = cuda_device(0);
};

Tensor noise(std::int64_t n, DType dtype, unsigned seed, bool positive = false) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(n));
  for (double& v : values) v = positive ? std::abs(normal(random)) : normal(random);
  return Tensor::from(values, {n}).to(kCpu).to(dtype);
}

void update(const OptimizerPtr& optimizer, const Tensor& param, const Tensor& grad,
            const std::vector<Tensor>& states, const std::vector<Section>& sections,
            const StepValues& values) {
  Update step(optimizer, param, states, sections);
  step.set(values);
  step.run(grad);
}

// The whole span in one group, or three sections of two groups with gaps between them.
std::vector<Section> sections_of(const Optimizer& optimizer, std::int64_t n, bool several) {
  const Hyper& usual = optimizer.defaults();
  if (!several) return {{0, n, usual}};
  return {{0, 70, usual}, {128, 64, optimizer.group({.lr = 0.3})}, {320, n - 320, usual}};
}

void expect_same_on_gpu(const OptimizerPtr& optimizer, const StepValues& values) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const std::int64_t n : {1, 3, 64, 1000, 4099}) {
      SCOPED_TRACE(fmt::format("{} {} x {}", optimizer->name(), n, name_of(dtype)));
      const DType sums = dtype == DType::bf16 ? DType::f32 : dtype;
      const Tensor param = noise(n, dtype, 1), grad = noise(n, sums, 2);
      std::vector<Tensor> states;
      for (int s = 0; s < optimizer->state_slots(); ++s) states.push_back(noise(n, sums, 3, true));
      const Tensor there = param.to(Device{DeviceType::cuda, 0});
      std::vector<Tensor> states_there;
      for (const Tensor& s : states) states_there.push_back(s.to(there.device()));
      const auto sections = sections_of(*optimizer, n, n >= 1000);
      update(optimizer, there, grad.to(there.device()), states_there, sections, values);
      update(optimizer, param, grad, states, sections, values);
      EXPECT_EQ(there.to_doubles(), param.to_doubles());
      for (std::size_t s = 0; s < states.size(); ++s)
        EXPECT_EQ(states_there[s].to_doubles(), states[s].to_doubles());
    }
}

TEST_F(Gpu, UpdatesHaveTheBitsOfTheCpu) {
  for (const double divisor : {1.0, 3.0, 8.0}) {
    const StepValues values{
        .step = 3, .grad_divisor = divisor, .clip_scale = 0.7, .lr_factor = 0.5};
    expect_same_on_gpu(adam({.lr = 1e-2}), values);
    expect_same_on_gpu(adam({.lr = 1e-2, .weight_decay = 0.1}), values);
    expect_same_on_gpu(adamw({.lr = 1e-2}), values);
    expect_same_on_gpu(sgd({.lr = 1e-2}), values);
    expect_same_on_gpu(sgd({.lr = 1e-2, .momentum = 0.9, .dampening = 0.1}), values);
    expect_same_on_gpu(sgd({.lr = 1e-2, .momentum = 0.9, .nesterov = true}), values);
  }
}

TEST_F(Gpu, UpdatesThatAreSetTogetherHaveTheBitsOfThoseSetAlone) {
  const OptimizerPtr optimizer = adamw({.lr = 1e-2});
  const auto run = [&](bool together) {
    std::vector<Tensor> params;
    std::vector<Update> updates;
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16, DType::f32}) {
      const std::int64_t n = 500 + 100 * std::ssize(params);
      const DType sums = state_dtype(dtype);
      params.push_back(noise(n, dtype, 1).to(kGpu));
      updates.emplace_back(
          optimizer, params.back(),
          std::vector<Tensor>{noise(n, sums, 2).to(kGpu), noise(n, sums, 3, true).to(kGpu)},
          sections_of(*optimizer, n, params.size() != 2));
    }
    std::vector<Update*> all;
    for (Update& update : updates) all.push_back(&update);
    for (const std::int64_t step : {1, 2, 7}) {
      const StepValues values{.step = step, .grad_divisor = 2, .lr_factor = 1.0 / step};
      if (together) Update::set(all, values);
      for (std::size_t i = 0; i < updates.size(); ++i) {
        if (!together) updates[i].set(values);
        const DType sums = state_dtype(params[i].dtype());
        updates[i].run(noise(params[i].numel(), sums, 4).to(kGpu));
      }
    }
    std::vector<std::vector<double>> values;
    for (const Tensor& param : params) values.push_back(param.to_doubles());
    return values;
  };
  EXPECT_EQ(run(true), run(false));
}

TEST_F(Gpu, SquaresHaveTheBitsOfTheCpu) {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const std::int64_t n : {1, 63, 64, 65, 5000}) {
      const Tensor grad = noise(n, dtype, 4);
      ExactSum here, there;
      add_squares(grad, 3, here);
      add_squares(grad.to(kGpu), 3, there);
      EXPECT_EQ(here.value(), there.value()) << n;
      EXPECT_GT(there.value(), 0);
    }
}

// Of every size that squares have, with what is no number; and split over spans.
TEST_F(Gpu, SquaresOfAnySizeAreSummedExactly) {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const double special : {0.0, inf, -inf, nan}) {
    std::mt19937_64 random(7);
    std::vector<double> values(64 * 3000 + 5);
    for (double& v : values)
      v = std::ldexp(static_cast<double>(static_cast<std::int64_t>(random())),
                     static_cast<int>(random() % 900) - 500);
    for (std::size_t i = 64; i < 640; ++i) values[i] = 0;
    values[777] = special;
    const Tensor grad = Tensor::from(values, {std::ssize(values)}).to(kCpu);
    const Tensor there = grad.to(kGpu);
    ExactSum here, whole, parts;
    add_squares(grad, 1, here);
    add_squares(there, 1, whole);
    for (std::int64_t at = 0, size = 64; at < there.numel(); at += size, size *= 3)
      add_squares(there.slice(0, at, std::min(size, there.numel() - at)), 1, parts);
    EXPECT_EQ(whole.words(), here.words()) << special;
    EXPECT_EQ(parts.words(), here.words()) << special;
    EXPECT_GT(std::isnan(here.value()) ? 1 : here.value(), 0);
  }
}

TEST_F(Gpu, PlainTrainingTakesParametersThere) {
  const Tensor weight = noise(100, DType::f32, 5), grad = noise(100, DType::f32, 6);
  const auto run = [&](Device device) {
    const Tensor w = weight.clone().to(device);
    SpanOptimizer optimizer(adam(), {{"w", w, adam()->defaults()}});
    const Tensor g = grad.to(device);
    for (int i = 0; i < 3; ++i) optimizer.step({&g, 1});
    EXPECT_EQ(optimizer.state("w", "exp_avg").device(), device);
    return std::pair(w.to_doubles(), optimizer.grad_norm({&g, 1}));
  };
  EXPECT_EQ(run(kGpu), run(kCpu));
}

TEST_F(Gpu, SpansThatBeginAnywhereAreUpdated) {
  for (const std::int64_t begin : {1, 2, 3}) {
    const auto run = [&](Device device) {
      const Tensor whole = noise(300, DType::f32, 8).to(device), grad = noise(200, DType::f32, 9);
      const std::vector<Tensor> states{noise(200, DType::f32, 10).to(device)};
      const auto optimizer = sgd({.lr = 0.1, .momentum = 0.9});
      update(optimizer, whole.slice(0, begin, 200), grad.to(device), states,
             sections_of(*optimizer, 200, false), {.step = 2});
      return whole.to_doubles();
    };
    EXPECT_EQ(run(kGpu), run(kCpu));
  }
}

TEST_F(Gpu, NothingIsUpdatedAfterAnError) {
  const Tensor w = noise(100, DType::f32, 11).to(kGpu), table = noise(12, DType::f32, 12);
  const std::vector<double> before = w.to_doubles();
  const Tensor indices = Tensor::from<std::int64_t>({7}, {1}).to(kGpu);
  const Tensor row = ops::embedding(indices, table.reshape({4, 3}).to(kGpu));
  const auto optimizer = sgd({.lr = 0.1});
  update(optimizer, w, w, {}, sections_of(*optimizer, 100, false), {});
  EXPECT_EQ(error_of([&] { w.to_doubles(); }),
            "[embedding] index 7 at position 0 is outside [0, 4)");
  EXPECT_EQ(w.to_doubles(), before);
  update(optimizer, w, w, {}, sections_of(*optimizer, 100, false), {});
  EXPECT_NE(w.to_doubles(), before);
}

TEST_F(Gpu, SectionsBeginAtBlocks) {
  const Tensor w = noise(100, DType::f32, 13).to(kGpu);
  const auto optimizer = sgd({.lr = 0.1});
  EXPECT_EQ(error_of([&] {
              Update(optimizer, w, {}, {{32, 64, optimizer->defaults()}});
            }),
            "[sgd] on a GPU sections begin at multiples of 64 elements, got 32");
}

struct Plain {
  static constexpr const char* name = "plain";
  static std::vector<std::string> hyper_names() { return {"lr"}; }
  static std::vector<std::string> state_names() { return {}; }
  static void check(const Hyper&) {}
  template <class T>
  static auto rule(const Hyper& h, const StepValues&) {
    return [lr = T(h.lr)](T& p, T g) { p -= lr * g; };
  }
};

TEST_F(Gpu, ARuleOfTheCpuIsRefusedByName) {
  const Tensor w = noise(4, DType::f32, 7).to(kGpu);
  const auto optimizer = elementwise<Plain>();
  EXPECT_EQ(error_of([&] {
              Update(optimizer, w, {}, {{0, 4, optimizer->defaults()}});
            }),
            "[plain] its rule is compiled for the CPU alone; on cuda:0 use one of the library's "
            "optimizers");
}

}  // namespace
}  // namespace sg::optim

// Shared by the tests of dist.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "core/tensor.h"
#include "dist/arrows.h"
#include "dist/comm/threads.h"
#include "dist/launch.h"
#include "tests/support/testing.h"

namespace sg::dist {

using std::chrono::milliseconds;

using test::error_of;

#define EXPECT_HAS(text, part) EXPECT_PRED_FORMAT2(::sg::dist::has, text, part)

inline testing::AssertionResult has(const char*, const char*, const std::string& text,
                                    const std::string& part) {
  if (text.find(part) != std::string::npos) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "\"" << text << "\" has no \"" << part << "\"";
}

inline double seconds_of(const std::function<void()>& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

inline void sleep_ms(int ms) { std::this_thread::sleep_for(milliseconds(ms)); }

inline std::string name_of(Executor executor) {
  return executor == Executor::thread ? "thread" : "inline";
}

inline constexpr Executor kExecutors[] = {Executor::inlined, Executor::thread};

/// A group whose ranks may fail each by itself: nobody is told, so each finds out what it can. What
/// fn throws is in errors()[rank], "" for nothing.
class LooseGroup {
 public:
  LooseGroup(int ranks, Executor executor, milliseconds deadline = milliseconds(20'000))
      : world(ranks, {.deadline = deadline, .spin = std::chrono::microseconds(0)}) {
    for (int r = 0; r < ranks; ++r) {
      contexts.push_back(std::make_unique<Rank>(r, ranks, 1, 0));
      comms.push_back(std::make_unique<Comm>(world.transport(r), executor));
    }
  }
  std::vector<std::string> run(const std::function<void(Comm&)>& fn) {
    std::vector<std::string> errors(comms.size());
    std::vector<std::thread> threads;
    for (std::size_t r = 0; r < comms.size(); ++r)
      threads.emplace_back([&, r] {
        const RankScope rank(*contexts[r]);
        const CommScope comm(*comms[r]);
        try {
          fn(*comms[r]);
        } catch (const std::exception& e) {
          errors[r] = e.what();
        }
      });
    for (std::thread& thread : threads) thread.join();
    world.poison(0, "the test is over");
    for (const auto& comm : comms) comm->stop();
    return errors;
  }

  ThreadWorld world;
  std::vector<std::unique_ptr<Rank>> contexts;
  std::vector<std::unique_ptr<Comm>> comms;
};

/// Numbers of very different sizes: their sum depends on the order.
template <class T>
std::vector<T> wild_numbers(std::size_t n, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::uniform_int_distribution<int> exponent(-12, 12);
  std::vector<T> values(n);
  for (T& v : values) v = static_cast<T>(std::ldexp(normal(random), exponent(random)));
  return values;
}

template <class T>
using BitsOf = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;

template <class T>
std::vector<BitsOf<T>> bits_of(std::span<const T> values) {
  std::vector<BitsOf<T>> bits;
  for (const T v : values) bits.push_back(std::bit_cast<BitsOf<T>>(v));
  return bits;
}
template <class T>
std::vector<BitsOf<T>> bits_of(const std::vector<T>& values) {
  return bits_of(std::span<const T>(values));
}
template <class T>
std::vector<BitsOf<T>> bits_of(const Tensor& t) {
  return bits_of(t.to_vector<T>());
}

/// An all-gather: in round k rank r takes s + 10 k from rank s.
struct Round {
  Tensor mine, full;
  Ready<Tensor> operation;
  static Round start(Comm& comm, int k) {
    Round round{Tensor::full({64}, comm.rank() + 10 * k), Tensor::empty({64 * comm.size()}), {}};
    round.operation = start_all_gather(comm, k, round.mine, round.full);
    return round;
  }
  void check(int k) const {
    const std::vector<float> values = full.to_vector<float>();
    for (std::size_t r = 0; r < values.size() / 64; ++r)
      ASSERT_EQ(values[r * 64], static_cast<float>(r) + static_cast<float>(10 * k));
  }
};

}  // namespace sg::dist

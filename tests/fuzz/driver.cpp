// Stands in for libFuzzer where the compiler has none: random changes of the seeds, the same for
// the same seed of the generator. No coverage guides it; what it finds it leaves in crash-store.
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>

#include "core/check.h"
#include "tests/fuzz/store_fuzz.h"

namespace {

using Random = std::mt19937_64;

std::string current;  // for the handler: the input under way

extern "C" void keep_input(int) {
  std::ofstream("crash-store", std::ios::binary) << current;
  std::fputs("store_fuzz: the input is in crash-store\n", stderr);
  std::_Exit(1);
}

std::size_t below(Random& random, std::size_t n) { return n == 0 ? 0 : random() % n; }

void change(std::string& text, const std::vector<std::string>& seeds, Random& random) {
  static const std::string lengths[] = {std::string(4, '\0'), std::string(4, '\xff'),
                                        std::string("\0\0\x10\0", 4), std::string("\1\0\0\0", 4)};
  const std::size_t at = below(random, text.size() + 1);
  const std::size_t some = below(random, 16);
  switch (random() % 7) {
    case 0:
      if (at < text.size()) text[at] = static_cast<char>(random());
      break;
    case 1:
      if (at < text.size()) text[at] ^= static_cast<char>(1 << random() % 8);
      break;
    case 2:
      text.erase(at, some);
      break;
    case 3:
      text.insert(at, some, static_cast<char>(random()));
      break;
    case 4:
      text.insert(at, text.substr(below(random, text.size()), some * 4));
      break;
    case 5: {
      const std::string& other = seeds[below(random, seeds.size())];
      text.insert(at, other.substr(below(random, other.size())));
      break;
    }
    default:
      text.replace(at, std::min<std::size_t>(4, text.size() - at), lengths[random() % 4]);
  }
}

void try_input(const std::string& input) {
  current = input;
  sg::dist::fuzz_store(input);
}

}  // namespace

// A sanitizer would end the program without the handler.
extern "C" const char* __asan_default_options() { return "abort_on_error=1"; }
extern "C" const char* __ubsan_default_options() { return "abort_on_error=1"; }

int main(int argc, char** argv) {
  char* end = nullptr;
  const double seconds = argc > 1 ? std::strtod(argv[1], &end) : 5;
  if (argc > 1 && *end != '\0') {
    for (int i = 1; i < argc; ++i) {
      std::ifstream file(argv[i], std::ios::binary);
      SG_CHECK(file, "[store_fuzz] cannot read {}", argv[i]);
      try_input({std::istreambuf_iterator<char>(file), {}});
    }
    return 0;
  }
  std::signal(SIGABRT, keep_input);
  std::signal(SIGSEGV, keep_input);
  Random random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  const auto seeds = sg::dist::store_seeds();
  for (const std::string& seed : seeds) try_input(seed);
  const auto stop = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::uint64_t inputs = 0;
  for (; std::chrono::steady_clock::now() < stop; ++inputs) {
    std::string text = seeds[below(random, seeds.size())];
    for (std::size_t n = 1 + below(random, 8); n > 0; --n) change(text, seeds, random);
    try_input(text);
  }
  fmt::print("store_fuzz: {} inputs, no fault\n", inputs);
  return inputs > 0 ? 0 : 1;
}

// The job's store, given to what asks for Gloo's.
#include <gtest/gtest.h>

#include "tests/dist/support.h"

#if SG_GLOO

#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/prefix_store.h>
#include <gloo/transport/tcp/device.h>

#include <array>
#include <thread>

#include "dist/processes/gloo_store.h"
#include "dist/processes/sigpipe.h"
#include "tests/dist/store_support.h"

namespace sg::dist {
namespace {

TEST(GlooStore, IsGloosStore) {
  const TestStore store(2);
  const auto ranks = store.clients(2);
  GlooStore zero(*ranks[0], kSoon), one(*ranks[1], milliseconds(30));
  ::gloo::rendezvous::Store &mine = zero, &theirs = one;
  const std::vector<char> value{'a', '\0', 'b'};
  mine.set("key", value);
  EXPECT_EQ(theirs.get("key"), value);
  theirs.wait({"key"});
  // Its own timeout, and that of a call.
  EXPECT_EQ(error_of([&] { theirs.get("absent"); }),
            "[store] rank 1: get of 'absent': not there within 0.03 s");
  EXPECT_EQ(error_of([&] { theirs.wait({"absent"}); }),
            "[store] rank 1: wait for 'absent', one of 1 keys: not there within 0.03 s");
  EXPECT_EQ(error_of([&] {
              theirs.wait({"key", "absent"}, milliseconds(50));
            }),
            "[store] rank 1: wait for 'absent', one of 2 keys: not there within 0.05 s");
  // A wait is ended by the key, and by the end of the job.
  std::thread late([&] {
    sleep_ms(50);
    theirs.set("late", {});
    theirs.set("before the end", {});
  });
  EXPECT_EQ(mine.get("late"), std::vector<char>());
  late.join();
  std::thread failing([&] {
    sleep_ms(50);
    ranks[1]->fail("no more");
  });
  EXPECT_HAS(error_of([&] { mine.get("never"); }), "no more");
  failing.join();
}

// Gloo connects ranks and sums in its own way, through nothing of ours but the store.
TEST(GlooStore, GloosRendezvousAndCollectivesWorkByIt) {
  constexpr int kRanks = 3;
  const TestStore store(kRanks);
  const auto clients = store.clients(kRanks);
  std::array<std::vector<float>, kRanks> sums;
  std::array<std::string, kRanks> errors;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank)
    threads.emplace_back([&, rank] {
      const auto r = static_cast<std::size_t>(rank);
      errors[r] = error_of([&] {
        const NoSigpipe quiet;
        GlooStore all(*clients[r], kSoon);
        ::gloo::rendezvous::PrefixStore mine("a group", all);
        auto device = ::gloo::transport::tcp::CreateDevice("127.0.0.1");
        const auto context = std::make_shared<::gloo::rendezvous::Context>(rank, kRanks);
        context->setTimeout(kSoon);
        context->connectFullMesh(mine, device);
        std::vector<float> values{static_cast<float>(rank + 1), 0.5f};
        ::gloo::AllreduceOptions options(context);
        options.setOutput(values.data(), values.size());
        void (*sum)(void*, const void*, const void*, std::size_t) = &::gloo::sum<float>;
        options.setReduceFunction(sum);
        ::gloo::allreduce(options);
        sums[r] = values;
      });
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t r = 0; r < kRanks; ++r) {
    EXPECT_EQ(errors[r], "no error") << r;
    EXPECT_EQ(sums[r], (std::vector<float>{6, 1.5f})) << r;
  }
}

}  // namespace
}  // namespace sg::dist

#endif

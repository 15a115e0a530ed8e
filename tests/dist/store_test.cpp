// The store's keys, its joins and its watch over the ranks, over real sockets. What strangers do to
// it is in store_strangers_test.cpp, its bytes in store_protocol_test.cpp.
#if SG_GLOO
#include <unistd.h>

#include <atomic>
#include <future>

#include "tests/dist/store_support.h"

namespace sg::dist {
namespace {

TEST(StoreKeys, AreSeenByAllClients) {
  const TestStore store(2);
  const auto ranks = store.clients(2);
  const std::string binary("a\0b\xff", 4);
  ranks[0]->set("key", bytes(binary));
  EXPECT_EQ(text(ranks[1]->get("key", kSoon)), binary);
  EXPECT_EQ(text(ranks[0]->get("key", kSoon)), binary);
  ranks[1]->set("key", {});  // again, and empty
  EXPECT_EQ(ranks[0]->get("key", kSoon).size(), 0u);
  EXPECT_EQ(ranks[0]->local_address(), "127.0.0.1");
}

TEST(StoreKeys, AGetWaitsForTheKey) {
  const TestStore store(2);
  const auto ranks = store.clients(2);
  std::string got;
  std::thread waiting([&] { got = text(ranks[1]->get("later", kSoon)); });
  std::thread others([&] { ranks[1]->wait({"later", "latest", "later"}, kSoon); });
  sleep_ms(20);
  ranks[1]->set("unrelated", bytes("x"));  // the same client is not held up by its waiting get
  ranks[0]->set("later", bytes("now"));
  ranks[0]->set("latest", {});
  waiting.join();
  others.join();
  EXPECT_EQ(got, "now");
}

TEST(StoreKeys, ManyAtOnce) {
  constexpr int kRanks = 4, kKeys = 500;
  const TestStore store(kRanks);
  const auto ranks = store.clients(kRanks);
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int rank = 0; rank < kRanks; ++rank) {
    threads.emplace_back([&, rank] {
      std::vector<std::string> all;
      for (int i = 0; i < kKeys; ++i) {
        ranks[rank]->set(fmt::format("{}/{}", rank, i), bytes(fmt::format("{}", rank * i)));
        for (int other = 0; other < kRanks; ++other) all.push_back(fmt::format("{}/{}", other, i));
      }
      ranks[rank]->wait(all, kSoon);
      const int next = (rank + 1) % kRanks;
      for (int i = 0; i < kKeys; ++i) {
        right += text(ranks[rank]->get(fmt::format("{}/{}", next, i), kSoon)) ==
                 fmt::format("{}", next * i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, kRanks * kKeys);
}

TEST(StoreKeys, TheLargestFitAndLargerOnesAreErrors) {
  const TestStore store(1);
  const auto rank = store.client(identity(0, 1));
  const std::string key(kMaxKey, 'k');
  rank->set(key, std::vector<char>(kMaxValue, 'v'));
  EXPECT_EQ(rank->get(key, kSoon), std::vector<char>(kMaxValue, 'v'));
  EXPECT_HAS(error_of([&] { rank->set(key + "k", {}); }), "[store] a key of 4097 bytes ('kkkk");
  EXPECT_HAS(error_of([&] { rank->get(key + "k", kSoon); }), "a key of 4097 bytes; at most 4096");
  EXPECT_EQ(error_of([&] { rank->set("a", std::vector<char>(kMaxValue + 1)); }),
            "[store] a value of 1048577 bytes for 'a'; at most 1048576");
  EXPECT_FALSE(rank->failure());
}

TEST(StoreKeys, ATimeoutNamesKeyAndSeconds) {
  const TestStore store(2);
  const auto ranks = store.clients(2);
  EXPECT_EQ(error_of([&] { ranks[1]->get("a/b", milliseconds(30)); }),
            "[store] rank 1: get of 'a/b': not there within 0.03 s");
  ranks[0]->set("there", {});
  EXPECT_EQ(error_of([&] {
              ranks[1]->wait({"there", "absent", "too"}, milliseconds(200));
            }),
            "[store] rank 1: wait for 'absent', one of 3 keys: not there within 0.2 s");
  ranks[0]->set("a/b", bytes("late"));  // answers nobody: the get was taken back
  EXPECT_EQ(text(ranks[1]->get("a/b", kSoon)), "late");
  EXPECT_FALSE(ranks[1]->failure());
}

TEST(StoreJoin, EightAtOnce) {
  const TestStore store(8);
  std::vector<std::unique_ptr<StoreClient>> ranks(8);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 8; ++rank) {
    threads.emplace_back([&, rank] {
      ranks[rank] = store.client(identity(rank, 8));
      ranks[rank]->wait_all_joined(kSoon);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& rank : ranks) EXPECT_FALSE(rank->failure());
}

TEST(StoreJoin, RefusesOtherJobsWithBothValues) {
  const TestStore store(4);
  const auto first = store.client(identity(1, 4));
  const auto refusal = [&](const JobIdentity& who) { return error_of([&] { store.client(who); }); };
  const std::string by = fmt::format("[store] refused by the job at 127.0.0.1:{}: ", store.port());
  EXPECT_EQ(refusal(identity(2, 3)), by + "rank 2 was started with world size 3, the job with 4");
  EXPECT_EQ(refusal(identity(4, 4)), by + "rank 4 is outside 0 to 3");
  EXPECT_EQ(refusal(identity(-1, 4)), by + "rank -1 is outside 0 to 3");
  const std::string twice = refusal(identity(1, 4));
  EXPECT_HAS(twice, by + "rank 1 has joined already, from 127.0.0.1:");
  JobIdentity other = identity(2, 4);
  other.job = "job-8";
  EXPECT_EQ(refusal(other), by + "rank 2 belongs to job 'job-8', the store to job 'job-7'");
  other = identity(2, 4);
  other.configuration = "decaf";
  EXPECT_EQ(refusal(other), by + "rank 2 has configuration decaf, the job c0ffee; start every rank "
                                 "with the same options");
  EXPECT_TRUE(comes_true([&] {  // the store's side says it as well
    return store.said->text().find("configuration decaf") != std::string::npos;
  }));
  EXPECT_HAS(store.said->text(), "rank 1 has joined already, from 127.0.0.1:");
  EXPECT_FALSE(first->failure()) << "a refused rank is no failure of the job";
  EXPECT_NE(error_of([&] { first->wait_all_joined(milliseconds(20)); }), "no error");
}

TEST(StoreJoin, AWrongTokenIsNamedAndNeverPrinted) {
  const TestStore store(1);
  JobIdentity wrong = identity(0, 1);
  wrong.token = "fedcba98765432100123456789abcdef";
  const std::string error = error_of([&] { store.client(wrong); });
  EXPECT_EQ(error, fmt::format("[store] rank 0: the job token is not that of the job at "
                               "127.0.0.1:{}; set SHARDGRAD_TOKEN to the same value everywhere",
                               store.port()));
  EXPECT_TRUE(comes_true([&] {
    return store.said->text().find("its job token is not that of the job") != std::string::npos;
  }));
  EXPECT_EQ(store.said->text().find(kTestToken), std::string::npos);
  EXPECT_EQ(store.said->text().find(wrong.token), std::string::npos);
  EXPECT_NO_THROW(store.client(identity(0, 1)));
  wrong.token = "";
  EXPECT_HAS(error_of([&] { store.client(wrong); }), "the job token is empty; set SHARDGRAD_TOKEN");
}

TEST(StoreJoin, ARankMayStartBeforeTheStore) {
  int port = 0;
  {
    const Fd free = listen_on("127.0.0.1", 0);
    port = own_port(free.get());
  }
  std::string got;
  std::thread early([&] {
    StoreClient client("localhost", port, identity(1, 2), kSoon);
    got = text(client.get("key", kSoon));
    client.leave(0);
  });
  sleep_ms(50);
  StoreServer::Options options;
  options.port = port;
  TestStore store(2, options);
  const auto rank = store.client(identity(0, 2));
  rank->set("key", bytes("value"));
  early.join();
  EXPECT_EQ(got, "value");
}

TEST(StoreJoin, NobodyListening) {
  int port = 0;
  {
    const Fd free = listen_on("127.0.0.1", 0);
    port = own_port(free.get());
  }
  const auto join = [&] { StoreClient("127.0.0.1", port, identity(3, 4), milliseconds(80)); };
  EXPECT_EQ(error_of(join),
            fmt::format("[store] rank 3 cannot join the store at 127.0.0.1:{} within 0.08 s: "
                        "Connection refused; is rank 0 running there, and is the port open?",
                        port));
}

TEST(StoreJoin, AMissingRankIsNamedAndAtTheDeadlineTheJobFails) {
  StoreServer::Options options;
  options.report_interval = milliseconds(200);
  options.join_deadline = milliseconds(500);
  const TestStore store(4, options);
  const auto first = store.client(identity(0, 4));
  const auto second = store.client(identity(2, 4));
  const std::string error = error_of([&] { first->wait_all_joined(kSoon); });
  EXPECT_EQ(error,
            "[store] rank 0 waited for all ranks to join: ranks 1, 3 of 4 did not join "
            "within 0.5 s");
  EXPECT_EQ(failure_of(*second), "ranks 1, 3 of 4 did not join within 0.5 s");
  EXPECT_EQ(second->failure()->rank, 1);
  EXPECT_HAS(store.said->text(), "[store] waiting for ranks 1, 3 of 4 (0.4 s)\n");
  EXPECT_HAS(store.said->text(), "ranks 1, 3 of 4 did not join");
  const auto late = store.client(identity(3, 4));  // told at once
  EXPECT_EQ(failure_of(*late), "ranks 1, 3 of 4 did not join within 0.5 s");
}

TEST(StoreJoin, ReportsNameTheMissing) {
  StoreServer::Options options;
  options.report_interval = milliseconds(30);
  const TestStore store(3, options);
  const auto first = store.client(identity(0, 3)), second = store.client(identity(1, 3));
  EXPECT_TRUE(comes_true([&] {
    return store.said->text().find("[store] waiting for rank 2 of 3 (") != std::string::npos;
  }));
  const auto last = store.client(identity(2, 3));
  last->wait_all_joined(kSoon);
  const std::string said = store.said->text();
  sleep_ms(70);
  EXPECT_EQ(store.said->text(), said) << "nobody is missing";
}

TEST(StoreFailure, OfALostConnectionIsSeenByAllWithinASecond) {
  const TestStore store(4);
  auto ranks = store.clients(4);
  std::thread waiting([&] {
    EXPECT_EQ(error_of([&] { ranks[0]->get("never", milliseconds(0)); }),
              "[store] rank 0: get of 'never': the job failed: rank 2 lost: its connection to the "
              "store ended without a goodbye");
  });
  sleep_ms(10);
  const double seconds = seconds_of([&] {
    ranks[2].reset();
    for (const int rank : {0, 1, 3}) {
      EXPECT_EQ(failure_of(*ranks[rank]),
                "rank 2 lost: its connection to the store ended without a goodbye");
      EXPECT_EQ(ranks[rank]->failure()->rank, 2);
    }
    waiting.join();
  });
  EXPECT_LT(seconds, 1);
  ranks[0]->set("last words", bytes("x"));  // keys can still be exchanged
  EXPECT_EQ(text(ranks[1]->get("last words", kSoon)), "x");
  EXPECT_HAS(error_of([&] { ranks[1]->get("absent", kSoon); }), "the job failed: rank 2 lost");
}

TEST(StoreFailure, TheFirstOneCounts) {
  const TestStore store(3);
  auto ranks = store.clients(3);
  ranks[1]->fail("rank 1: step 7: broken here");
  EXPECT_EQ(ranks[1]->failure()->text, "rank 1: step 7: broken here");
  ranks[0]->fail("rank 0: also broken");
  ranks[1].reset();
  for (const int rank : {0, 2}) {
    EXPECT_EQ(failure_of(*ranks[rank]), "rank 1: step 7: broken here");
    EXPECT_EQ(ranks[rank]->failure()->rank, 1);
  }
  EXPECT_HAS(error_of([&] { ranks[2]->wait_all_joined(kSoon); }), "step 7: broken here");
}

TEST(StoreFailure, OfManyAtOnceAllSeeTheSame) {
  const TestStore store(6);
  auto ranks = store.clients(6);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 6; ++rank) {
    threads.emplace_back([&, rank] { ranks[rank]->fail(fmt::format("cause {}", rank)); });
  }
  for (std::thread& thread : threads) thread.join();
  const Failure first = *ranks[0]->failure();
  EXPECT_EQ(first.text, fmt::format("cause {}", first.rank));
  for (const auto& rank : ranks) EXPECT_EQ(rank->failure()->text, first.text);
}

TEST(StoreFailure, AHugeTextIsCut) {
  const TestStore store(1);
  const auto rank = store.client(identity(0, 1));
  rank->fail(std::string(3 * kMaxText, 'x'));
  EXPECT_EQ(rank->failure()->text, std::string(kMaxText, 'x'));
}

TEST(StoreFailure, ALostStoreIsRankZero) {
  TestStore store(2);
  const auto rank = store.client(identity(1, 2));
  std::atomic<int> events{0};
  rank->on_event([&] { ++events; });
  std::string error;
  std::thread waiting([&] { error = error_of([&] { rank->get("never", milliseconds(0)); }); });
  sleep_ms(10);
  const int port = store.port();
  store.server.reset();
  const std::string text = failure_of(*rank);
  EXPECT_HAS(text, fmt::format("rank 0 lost: it holds the store at 127.0.0.1:{}", port));
  EXPECT_EQ(rank->failure()->rank, 0);
  EXPECT_TRUE(comes_true([&] { return events == 1; }));
  waiting.join();
  EXPECT_EQ(error, "[store] rank 1: get of 'never': " + text);
  rank->fail("too late");  // returns
  rank->leave(3);
  EXPECT_EQ(rank->failure()->text, text);
}

JobIdentity again(int rank, int world_size, int attempt = 1) {
  JobIdentity who = identity(rank, world_size);
  who.attempt = attempt;
  return who;
}

// As on a node that starts its ranks again before the others have: one that had joined, and one
// that had not.
TEST(StoreFailure, RanksOfALaterAttemptWaitForItsStore) {
  const Fd listener = listen_on("127.0.0.1", 0);  // whose port stays
  StoreServer::Options options;
  options.listening_socket = dup(listener.get());
  auto first = std::make_unique<TestStore>(3, options);
  const int port = first->port();
  auto zero = first->client(identity(0, 3));
  first->client(again(1, 3)).reset();  // an attempt of a living job is as good as any
  failure_of(*zero);
  const std::string early =
      error_of([&] { StoreClient("127.0.0.1", port, again(2, 3), kSoon, milliseconds(1000)); });
  EXPECT_HAS(early, "[store] rank 2 cannot join the store at 127.0.0.1:");
  EXPECT_HAS(early, " within 1 s: ");
  EXPECT_HAS(early, " failed: rank 1 lost: its connection to the store ended without a goodbye; ");
  // Launchers' counts may differ: this store knows as which attempt rank 1 was here.
  EXPECT_HAS(
      error_of([&] { StoreClient("127.0.0.1", port, again(1, 3, 2), kSoon, milliseconds(500)); }),
      "rank 1 cannot join the store at 127.0.0.1:");
  EXPECT_HAS(error_of([&] { first->client(again(1, 3)); }), "rank 1 has joined already, from ");
  // One that is no later is told that the job has failed, or that it is there already.
  EXPECT_HAS(failure_of(*first->client(identity(2, 3))), "rank 1 lost");
  EXPECT_HAS(error_of([&] { first->client(identity(1, 3)); }), "rank 1 has joined already, from ");
  EXPECT_EQ(first->said->text().find("rank 2"), std::string::npos) << first->said->text();

  std::vector<std::future<std::unique_ptr<StoreClient>>> back;
  for (const int rank : {1, 2})
    back.push_back(std::async(std::launch::async, [port, rank] {
      return std::make_unique<StoreClient>("127.0.0.1", port, again(rank, 3, 2), kSoon);
    }));
  sleep_ms(100);
  zero.reset();
  first.reset();
  options.listening_socket = dup(listener.get());
  const TestStore second(3, options);
  zero = second.client(again(0, 3));
  zero->wait_all_joined(kSoon);
  const auto one = back[0].get(), two = back[1].get();
  for (const auto* rank : {zero.get(), one.get(), two.get()}) EXPECT_FALSE(rank->failure());
}

TEST(StoreLeave, TellsHowManyPostings) {
  TestStore store(3);
  auto ranks = store.clients(3);
  EXPECT_FALSE(ranks[0]->left(1));
  std::atomic<int> events{0};
  ranks[0]->on_event([&] { ++events; });
  EXPECT_EQ(events, 0) << "nothing has happened";
  ranks[1]->leave(41);
  EXPECT_EQ(ranks[1]->left(1), 41u);
  EXPECT_TRUE(comes_true([&] { return ranks[0]->left(1).has_value(); }));
  EXPECT_EQ(ranks[0]->left(1), 41u);
  EXPECT_TRUE(comes_true([&] { return events == 1; }));
  std::atomic<int> at_once{0};
  ranks[0]->on_event([&] { ++at_once; });
  EXPECT_EQ(at_once, 1);
  ranks[1].reset();  // is not missed
  EXPECT_FALSE(store.server->wait_all_gone(milliseconds(20)));
  ranks[2]->leave(42);
  ranks[0]->leave(std::uint64_t{1} << 60);
  EXPECT_TRUE(store.server->wait_all_gone(kSoon));
  EXPECT_TRUE(comes_true([&] { return ranks[2]->left(0) == std::uint64_t{1} << 60; }));
  store.server.reset();  // nor is the store, by a rank that has left
  sleep_ms(10);
  for (const int rank : {0, 2}) EXPECT_FALSE(ranks[rank]->failure());
}

TEST(StoreLeave, AnEarlyLeaverIsToldToLateJoiners) {
  const TestStore store(2);
  const auto first = store.client(identity(0, 2));
  first->leave(5);
  const auto second = store.client(identity(1, 2));
  second->wait_all_joined(kSoon);
  EXPECT_EQ(second->left(0), 5u);
}

TEST(StoreLeave, ALostRankIsGone) {
  TestStore store(2);
  auto ranks = store.clients(2);
  EXPECT_FALSE(store.server->wait_all_gone(milliseconds(10)));
  ranks.clear();
  EXPECT_TRUE(store.server->wait_all_gone(kSoon));
}

TEST(StoreServer, APortInUse) {
  const TestStore store(1);
  StoreServer::Options options;
  options.port = store.port();
  EXPECT_EQ(error_of([&] { TestStore(1, options); }),
            fmt::format("[store] cannot listen on 127.0.0.1:{}: Address already in use; choose "
                        "another with --master-port or SHARDGRAD_PORT",
                        store.port()));
  options.port = 70000;
  EXPECT_EQ(error_of([&] { TestStore(1, options); }), "[store] port 70000; expected 0 to 65535");
  options.port = 0;
  options.address = "192.0.2.1";  // of documentation, nobody's
  EXPECT_HAS(error_of([&] { TestStore(1, options); }), "give the address of the host of rank 0");
}

TEST(StoreServer, TakesASocketThatListensAlready) {
  Fd mine = listen_on("127.0.0.1", 0);
  StoreServer::Options options;
  options.listening_socket = dup(mine.get());
  options.address = "192.0.2.1";  // not looked at
  const int port = own_port(mine.get());
  mine = Fd();
  TestStore store(1, options);
  EXPECT_EQ(store.port(), port);
  const auto rank = store.client(identity(0, 1));
  rank->set("a", {});

  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  options.listening_socket = ends[0];
  EXPECT_HAS(error_of([&] { TestStore(1, options); }), "but it is none");
  EXPECT_EQ(write(ends[1], "x", 1), 1) << "somebody else's file was closed";
  close(ends[0]);
  close(ends[1]);
}

TEST(StoreServer, OverIPv6) {
  try {
    listen_on("::1", 0);
  } catch (const Error& e) {
    GTEST_SKIP() << "this host has no IPv6 loopback: " << e.what();
  }
  StoreServer::Options options;
  options.address = "::1";
  const TestStore store(1, options);
  StoreClient rank("::1", store.port(), identity(0, 1), kSoon);
  EXPECT_EQ(rank.local_address(), "::1");
  rank.set("a", bytes("b"));
  EXPECT_EQ(text(rank.get("a", kSoon)), "b");
  EXPECT_HAS(
      error_of([&] { StoreClient("::1", store.port(), identity(0, 1), kSoon); }),
      fmt::format("the job at [::1]:{}: rank 0 has joined already, from [::1]:", store.port()));
}

TEST(StoreServer, OnEveryAddressOfTheHost) {
  for (const char* address : {"", "0.0.0.0"}) {
    StoreServer::Options options;
    options.address = address;
    const TestStore store(1, options);
    EXPECT_NO_THROW(store.client(identity(0, 1)));
  }
}

TEST(StoreServer, TwentyAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int i = 0; i < 20; ++i) {
    threads.emplace_back([&] {
      TestStore store(2);
      auto ranks = store.clients(2);
      for (int rank = 0; rank < 2; ++rank) {
        ranks[rank]->wait_all_joined(kSoon);
        ranks[rank]->set(fmt::format("{}", rank), bytes(fmt::format("{}", store.port())));
      }
      right += text(ranks[0]->get("1", kSoon)) == fmt::format("{}", store.port());
      for (const auto& rank : ranks) rank->leave(1);
      right += store.server->wait_all_gone(kSoon);
      for (const auto& rank : ranks) right += !rank->failure();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 20 * 4);
}

}  // namespace
}  // namespace sg::dist
#endif  // SG_GLOO

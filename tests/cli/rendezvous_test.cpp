// The store's socket: opened by the launcher, given to rank 0 alone.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <memory>

#include "dist/cli/listener.h"
#include "tests/cli/support.h"

namespace sg::cli {
namespace {

// Lists the sockets among a process's descriptors, and its port in hexadecimal digits if the socket
// SHARDGRAD_STORE_FD listens (state 0A of /proc/net/tcp).
const char* const kShow =
    "cd /proc/$$/fd; for fd in *; do case $(readlink $fd) in socket:*) echo socket $fd;; esac; "
    "done; "
    "echo named ${SHARDGRAD_STORE_FD:-none}; "
    "if [ -n \"$SHARDGRAD_STORE_FD\" ]; then "
    "inode=$(readlink $SHARDGRAD_STORE_FD | tr -dc 0-9); "
    "echo listens $(grep \" $inode \" /proc/net/tcp | tr -s ' ' | cut -d ' ' -f 3,5); fi; "
    "echo port $MASTER_PORT";

std::string after(const std::string& out, const std::string& text) {
  for (const std::string& line : lines_of(out))
    if (const std::size_t at = line.find(text); at != std::string::npos)
      return line.substr(at + text.size());
  return "";
}

TEST(Rendezvous, RankZeroInheritsTheListeningSocket) {
  Launch launch(shell({"--nproc-per-node", "3"}, kShow));
  ASSERT_EQ(launch.wait(), 0) << launch.err();
  const std::string& out = launch.out();
  const std::string named = after(out, "[rank0] named ");
  EXPECT_EQ(after(out, "[rank0] socket "), named) << out;
  const int port = std::stoi(after(out, "[rank0] port "));
  EXPECT_EQ(after(out, "[rank0] listens "), fmt::format("0100007F:{:04X} 0A", port)) << out;
  for (const char* rank : {"[rank1] ", "[rank2] "}) {
    EXPECT_EQ(after(out, std::string(rank) + "named "), "none");
    EXPECT_EQ(after(out, std::string(rank) + "socket "), "") << out;
    EXPECT_EQ(after(out, std::string(rank) + "port "), std::to_string(port));
  }
}

TEST(Rendezvous, TwentyLaunchesAtOnceHaveTwentyPorts) {
  // All are alive until the last has started.
  const TemporaryFolder folder;
  const std::string script = fmt::format(
      "[ $RANK = 0 ] && : > {0}/$MASTER_PORT; "
      "while [ $(ls {0} | wc -l) -lt 20 ]; do sleep 0.05; done; echo $MASTER_PORT",
      folder.path().string());
  std::vector<std::unique_ptr<Launch>> launches;
  for (int i = 0; i < 20; ++i)
    launches.push_back(
        std::make_unique<Launch>(shell({"--standalone", "--nproc-per-node", "2"}, script)));
  std::set<std::string> ports;
  for (const auto& launch : launches) {
    ASSERT_EQ(launch->wait(), 0) << launch->err();
    ports.insert(after(launch->out(), "[rank1] "));
  }
  EXPECT_EQ(ports.size(), 20u);
}

TEST(Rendezvous, APortInUseIsAnError) {
  const Listener taken = listen_at("127.0.0.1", 0, false);
  const std::string port = std::to_string(taken.port);
  Launch launch(shell({"--master-port", port}, "echo started"));
  EXPECT_EQ(launch.wait(), 2);
  EXPECT_EQ(launch.out(), "");
  EXPECT_NE(launch.err().find("port " + port +
                              " of 127.0.0.1 is in use; name another one by "
                              "--master-port"),
            std::string::npos)
      << launch.err();
}

// A port that was free a moment ago: somebody else may have taken it since. `f` is true if it came
// to use it; else another one is tried.
void with_free_port(bool every_interface, const std::function<bool(int)>& f) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    int port = 0;
    {
      const Listener free = listen_at("127.0.0.1", 0, every_interface);
      port = free.port;
    }
    if (f(port)) return;
  }
  FAIL() << "ten ports were taken";
}

bool port_was_taken(const Launch& launch) {
  return launch.err().find("is in use; name another one") != std::string::npos;
}

TEST(Rendezvous, ANamedPortServesEveryRestart) {
  with_free_port(false, [](int port) {
    Launch launch(shell({"--master-port", std::to_string(port), "--max-restarts", "1"},
                        "echo $MASTER_PORT; exit 1"));
    const int status = launch.wait();
    if (port_was_taken(launch)) return false;
    EXPECT_EQ(status, 1);
    EXPECT_EQ(launch.out(), fmt::format("[rank0] {0}\n[rank0] {0}\n", port)) << launch.err();
    return true;
  });
}

TEST(Rendezvous, AnAddressThatIsNotOurs) {
  Launch foreign(shell({"--master-addr", "192.0.2.1"}, "echo started"));  // RFC 5737: nobody's
  EXPECT_EQ(foreign.wait(), 2);
  EXPECT_NE(foreign.err().find("--master-addr 192.0.2.1 is no address of this machine"),
            std::string::npos)
      << foreign.err();
}

TEST(Rendezvous, NodeZeroListensOnEveryInterface) {
  with_free_port(true, [](int port) {
    const Words nodes{"--nnodes",          "2", "--master-addr", "127.0.0.1", "--master-port",
                      std::to_string(port)};
    Words second = nodes;
    for (const char* word : {"--node-rank", "1"}) second.push_back(word);
    Launch zero(shell(nodes, kShow), {{"SHARDGRAD_TOKEN", "s"}});
    Launch one(shell(second, kShow), {{"SHARDGRAD_TOKEN", "s"}});
    const int status = zero.wait();
    EXPECT_EQ(one.wait(), 0) << one.err();
    if (port_was_taken(zero)) return false;
    EXPECT_EQ(status, 0) << zero.err();
    EXPECT_EQ(after(zero.out(), "[rank0] listens "), fmt::format("00000000:{:04X} 0A", port));
    EXPECT_EQ(after(one.out(), "[rank1] named "), "none") << one.out();
    return true;
  });
}

}  // namespace
}  // namespace sg::cli

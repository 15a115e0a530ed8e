// How a rank gets into the store: connect, prove, join.
#include <algorithm>

#include "dist/processes/store_client.h"
#include "dist/say.h"

namespace sg::dist {

using namespace store;
using std::chrono::milliseconds;

namespace {

template <class... Args>
[[noreturn]] void not_found(fmt::format_string<Args...> format, Args&&... args) {
  throw StoreNotFound(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace

StoreClient::StoreClient(const std::string& address, int port, JobIdentity identity,
                         milliseconds limit, milliseconds search)
    : identity_(std::move(identity)), where_(endpoint_text(address, port)) {
  SG_CHECK(!identity_.token.empty(), "[store] the job token is empty; set SHARDGRAD_TOKEN");
  SG_CHECK(port > 0 && port <= 65535, "[store] port {}; expected 1 to 65535", port);
  if (search == milliseconds(0)) search = limit;
  const Deadline deadline(limit), found(search);
  std::string over;  // why the attempt of the store there has failed
  for (milliseconds pause(10);; pause = std::min(2 * pause, milliseconds(1000))) {
    std::string why = "nobody listens there";
    socket_ = connect_to(address, port, found, why);
    if (socket_.open() && handshake(found, deadline, why, over)) break;
    socket_ = Fd();
    if (found.passed()) {
      if (!over.empty() && !why.ends_with(over)) why += "; before, an attempt failed: " + over;
      not_found(
          "[store] rank {} cannot join the store at {} within {}: {}; is rank 0 running there, and "
          "is the port open?",
          identity_.rank, where_, seconds_text(search), why);
    }
    std::this_thread::sleep_for(found.left(pause));
  }
  local_address_ = own_address(socket_.get());
  reader_ = start_quiet_thread([this] { read(); });
}

// Waits until input_ holds so many bytes.
bool StoreClient::receive_front(std::size_t bytes, const Deadline& deadline, std::string& why) {
  while (input_.size() < bytes) {
    if (!receive_some(socket_.get(), input_, deadline, why)) return false;
  }
  return true;
}

// False: it may go better next time. Throws what will not.
bool StoreClient::handshake(const Deadline& found, const Deadline& deadline, std::string& why,
                            std::string& over) {
  input_.clear();
  const auto wrong_version = [&](std::uint32_t version) {
    sg::fail(
        "[store] the store at {} speaks protocol version {}, rank {} version {}; run the same "
        "build everywhere",
        where_, version, identity_.rank, kStoreVersion);
  };
  const auto check_magic = [&](std::uint32_t& version) {
    if (parse_opening(input_, version) != Parse::ok) {
      not_found(
          "[store] what listens at {} is no store of a job; choose another port with "
          "--master-port or SHARDGRAD_PORT",
          where_);
    }
    if (version != kStoreVersion) wrong_version(version);
  };

  Greeting greeting;
  if (!receive_front(kOpeningBytes, found, why)) return false;
  check_magic(greeting.version);
  if (!receive_front(kGreetingBytes, found, why)) return false;
  parse(input_, greeting);
  input_.erase(0, kGreetingBytes);

  const Nonce nonce = random_nonce();
  const Mac proof = client_proof(identity_.token, greeting.nonce, nonce, kStoreVersion);
  const std::string hello = encode(Hello{kStoreVersion, nonce, proof});
  if (!send_all(socket_.get(), hello, found, why)) return false;

  Verdict verdict;
  if (!receive_front(kVerdictBytes, found, why)) return false;
  check_magic(verdict.version);
  const bool known = parse(input_, verdict) == Parse::ok;
  input_.erase(0, kVerdictBytes);
  if (known && verdict.status == Status::wrong_version) wrong_version(verdict.version);
  // A store that cannot prove the token is refused as it would refuse us.
  const Mac expected = server_proof(identity_.token, greeting.nonce, nonce);
  if (!known || verdict.status != Status::welcome || !same(verdict.mac, expected)) {
    not_found(
        "[store] rank {}: the job token is not that of the job at {}; set SHARDGRAD_TOKEN to the "
        "same value everywhere",
        identity_.rank, where_);
  }

  const std::string join = encode(Message{.type = MessageType::join,
                                          .rank = identity_.rank,
                                          .world_size = identity_.world_size,
                                          .job = identity_.job,
                                          .configuration = identity_.configuration,
                                          .attempt = identity_.attempt});
  if (!send_all(socket_.get(), join, deadline, why)) return false;
  Message reply;
  std::size_t used = 0;
  Parse got;
  while ((got = parse_message(input_, reply, used)) == Parse::more) {
    if (!receive_some(socket_.get(), input_, deadline, why)) return false;
  }
  SG_CHECK(got == Parse::ok && (reply.type == MessageType::done || !reply.text.empty()),
           "[store] the store at {} answered rank {} with what is no answer to a join", where_,
           identity_.rank);
  if (reply.type == MessageType::over) {
    why = "it is the store of an attempt that has failed: " + reply.text;
    if (over.empty()) {
      say_error("[store] rank {} waits for the next store at {}: {}\n", identity_.rank, where_,
                why);
    }
    over = reply.text;
    return false;
  }
  SG_CHECK(reply.type == MessageType::done, "[store] refused by the job at {}: {}", where_,
           reply.text);
  input_.erase(0, used);
  return true;
}

}  // namespace sg::dist

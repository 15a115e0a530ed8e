#include "dist/processes/store_session.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace sg::dist::store {

Session::Session(StoreJob& job, std::string peer, const Nonce& nonce, Time now)
    : job_(job), peer_(std::move(peer)), nonce_(nonce), incomplete_since_(now) {
  output_ = encode(Greeting{kStoreVersion, nonce_});
}

std::size_t Session::wants() const {
  if (closing_) return 0;
  return proven_ ? std::size_t{65536} : kHelloBytes - input_.size();
}

void Session::feed(Bytes bytes, Time now) {
  if (closing_) return;
  input_.append(bytes.data(), bytes.size());
  if (!proven_ && !prove()) return;
  std::size_t at = 0;
  while (!closing_) {
    Message message;
    std::size_t used = 0;
    const auto rest = Bytes(input_).subspan(at);
    const Parse got = parse_message(rest, message, used, joined() ? kMaxFrame : kMaxJoin);
    if (got == Parse::more) break;
    if (got == Parse::bad) {
      close("it sent bytes that are no message of the store");
      break;
    }
    at += used;
    act(message);
  }
  input_.erase(0, at);
  if (!joined()) return;  // the handshake's time goes on, however much arrives
  if (input_.empty()) {
    incomplete_since_.reset();
  } else if (at > 0 || !incomplete_since_) {
    incomplete_since_ = now;
  }
}

bool Session::prove() {
  std::uint32_t version = 0;
  const Parse opening = parse_opening(input_, version);
  if (opening == Parse::bad) close("it sent bytes that are no greeting of a rank");
  if (opening != Parse::ok) return false;
  if (version != kStoreVersion) {
    refuse(Status::wrong_version,
           fmt::format("it speaks protocol version {}, this store {}", version, kStoreVersion));
    return false;
  }
  Hello hello;
  if (parse(input_, hello) != Parse::ok) return false;
  spoke_well_ = true;
  const std::string& token = job_.identity().token;
  if (!same(hello.mac, client_proof(token, nonce_, hello.nonce, version))) {
    refuse(Status::wrong_token, "its job token is not that of the job");
    return false;
  }
  proven_ = true;
  input_.erase(0, kHelloBytes);
  output_ +=
      encode(Verdict{kStoreVersion, Status::welcome, server_proof(token, nonce_, hello.nonce)});
  return true;
}

void Session::refuse(Status status, const std::string& reason) {
  output_ += encode(Verdict{kStoreVersion, status, Mac{}});
  close(reason);
}

void Session::act(const Message& message) {
  if (joined()) return job_.serve(*this, message);
  if (message.type != MessageType::join) return close("it asked before it joined");
  if (const auto answer = job_.join(*this, message)) {
    send(*answer);
    close(answer->type == MessageType::over ? kTooEarly : answer->text);
  }
}

void Session::send(const Message& message) {
  if (closing_) return;
  output_ += encode(message);
  if (output_.size() <= kMaxOutput) return;
  output_.clear();
  output_.shrink_to_fit();
  close("it does not read what the store sends");
}

void Session::close(const std::string& reason) {
  if (closing_) return;
  // A rank that is dropped is told why: else it would think that the store is gone.
  if (joined() && reason != kNoGoodbye)
    output_ += encode(
        Message{.type = MessageType::failed, .rank = rank_, .text = lost_text(rank_, reason)});
  closing_ = true;
  reason_ = reason;
}

std::optional<Session::Time> Session::due(std::chrono::milliseconds limit) const {
  if (!incomplete_since_ || closing_) return std::nullopt;
  return *incomplete_since_ + limit;
}

bool Session::late(Time now, std::chrono::milliseconds limit) const {
  const auto at = due(limit);
  return at && now >= *at;
}

std::string ranks_text(const std::vector<int>& ranks) {
  constexpr std::size_t kNamed = 16;
  std::string text = ranks.size() == 1 ? "rank" : "ranks";
  for (std::size_t i = 0; i < std::min(ranks.size(), kNamed); ++i) {
    text += fmt::format("{} {}", i == 0 ? "" : ",", ranks[i]);
  }
  if (ranks.size() > kNamed) text += fmt::format(" and {} more", ranks.size() - kNamed);
  return text;
}

}  // namespace sg::dist::store

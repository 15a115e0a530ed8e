#include "dist/processes/store_client.h"

#include <sys/socket.h>

#include <algorithm>

#include "core/check.h"

namespace sg::dist {

using namespace store;
using std::chrono::milliseconds;

namespace {

// What the store answers at once; and what an ending rank has no more time for.
constexpr milliseconds kPrompt{30'000};
constexpr milliseconds kLastWords{10'000};

}  // namespace

StoreClient::~StoreClient() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  shutdown(socket_.get(), SHUT_RDWR);  // wakes the reading thread
  reader_.join();
}

void StoreClient::set(const std::string& key, const std::vector<char>& value) {
  SG_CHECK(key.size() <= kMaxKey, "[store] a key of {} bytes ('{}...'); at most {}", key.size(),
           key.substr(0, 32), kMaxKey);
  SG_CHECK(value.size() <= kMaxValue, "[store] a value of {} bytes for '{}'; at most {}",
           value.size(), key, kMaxValue);
  Message message{.type = MessageType::set, .key = key};
  message.value.assign(value.begin(), value.end());
  ask({std::move(message)}, kPrompt, [&](std::size_t) { return fmt::format("set of '{}'", key); });
}

std::vector<char> StoreClient::get(const std::string& key, milliseconds timeout) {
  const auto what = [&](std::size_t) { return fmt::format("get of '{}'", key); };
  const auto replies = ask({{.type = MessageType::get, .key = key}}, timeout, what);
  return {replies[0].value.begin(), replies[0].value.end()};
}

void StoreClient::wait(const std::vector<std::string>& keys, milliseconds timeout) {
  const Deadline deadline(timeout);
  // No more at once than the store lets a rank wait for.
  constexpr std::size_t kAtOnce = kMaxParked / 4;
  for (std::size_t start = 0; start < keys.size(); start += kAtOnce) {
    std::vector<Message> messages;
    for (std::size_t i = start; i < std::min(keys.size(), start + kAtOnce); ++i) {
      messages.push_back({.type = MessageType::wait, .key = keys[i]});
    }
    const auto what = [&](std::size_t i) {
      return fmt::format("wait for '{}', one of {} keys", keys[start + i], keys.size());
    };
    ask(std::move(messages), timeout, what, &deadline);
  }
}

std::vector<Message> StoreClient::ask(std::vector<Message> messages, milliseconds timeout,
                                      const std::function<std::string(std::size_t)>& what,
                                      const Deadline* of_all) {
  const Deadline deadline = of_all ? *of_all : Deadline(timeout);
  std::vector<std::uint32_t> ids;
  std::string bytes;
  std::vector<Message> answers;
  std::unique_lock lock(mutex_);
  for (Message& message : messages) {
    do {
      message.request = next_request_++;
    } while (message.request == 0 || replies_.contains(message.request));
    SG_CHECK(message.key.size() <= kMaxKey, "[store] {}: a key of {} bytes; at most {}",
             what(ids.size()), message.key.size(), kMaxKey);
    bytes += encode(message);
    ids.push_back(message.request);
  }
  for (const std::uint32_t id : ids) replies_[id];
  lock.unlock();
  send(bytes);
  lock.lock();

  const auto unanswered = [&] {
    return std::find_if(ids.begin(), ids.end(), [&](auto id) { return !replies_[id]; });
  };
  await(lock, deadline, [&] { return lost_ || unanswered() == ids.end(); });
  const auto first = unanswered();
  std::string cancels;
  for (const std::uint32_t id : ids) {
    if (auto& reply = replies_[id]) {
      answers.push_back(std::move(*reply));
    } else {
      cancels += encode(Message{.type = MessageType::cancel, .request = id});
    }
    replies_.erase(id);
  }
  const auto lost = lost_;
  lock.unlock();
  if (first != ids.end()) {
    const std::string text = what(static_cast<std::size_t>(first - ids.begin()));
    SG_CHECK(!lost, "[store] rank {}: {}: {}", identity_.rank, text, *lost);
    send(cancels);
    const MessageType asked = messages[first - ids.begin()].type;
    const bool waits = asked == MessageType::get || asked == MessageType::wait;
    sg::fail("[store] rank {}: {}: {} within {}", identity_.rank, text,
             waits ? "not there" : "no answer", seconds_text(timeout));
  }
  for (std::size_t i = 0; i < answers.size(); ++i) {
    SG_CHECK(answers[i].type != MessageType::refused, "[store] rank {}: {}: {}", identity_.rank,
             what(i), answers[i].text);
  }
  return answers;
}

void StoreClient::wait_all_joined(milliseconds timeout) {
  const Deadline deadline(timeout);
  std::unique_lock lock(mutex_);
  await(lock, deadline, [&] { return ready_ || failure_ || lost_; });
  SG_CHECK(!failure_, "[store] rank {} waited for all ranks to join: {}", identity_.rank,
           failure_->text);
  SG_CHECK(ready_, "[store] rank {}: not all of {} ranks joined within {}", identity_.rank,
           identity_.world_size, seconds_text(timeout));
}

void StoreClient::fail(const std::string& text) noexcept {
  try {
    ask({{.type = MessageType::fail, .text = text.substr(0, kMaxText)}}, kLastWords,
        [](std::size_t) { return "a failure's message"; });
  } catch (const std::exception&) {
    lose("it does not answer");
  }
}

void StoreClient::leave(std::uint64_t postings) noexcept {
  try {
    ask({{.type = MessageType::leave, .postings = postings}}, kLastWords,
        [](std::size_t) { return "goodbye"; });
  } catch (const std::exception&) {
    lose("it does not answer");
  }
}

std::optional<Failure> StoreClient::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::optional<std::uint64_t> StoreClient::left(int rank) const {
  const std::lock_guard lock(mutex_);
  const auto it = left_.find(rank);
  return it == left_.end() ? std::nullopt : std::optional(it->second);
}

void StoreClient::on_event(std::function<void()> event) {
  const std::lock_guard lock(event_mutex_);
  event_ = std::move(event);
  bool now = false;
  {
    const std::lock_guard state(mutex_);
    now = failure_ || !left_.empty();
  }
  if (event_ && now) event_();
}

template <class Done>
void StoreClient::await(std::unique_lock<std::mutex>& lock, const Deadline& deadline, Done done) {
  if (deadline.at()) {
    changed_.wait_until(lock, *deadline.at(), done);
  } else {
    changed_.wait(lock, done);
  }
}

void StoreClient::send(const std::string& bytes) {
  const std::lock_guard lock(send_mutex_);
  std::string why;
  // Half a message makes the rest of the stream worthless: the reading thread finds it ended.
  if (!send_all(socket_.get(), bytes, Deadline(kPrompt), why)) shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace sg::dist

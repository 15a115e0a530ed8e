// The reading thread of a rank's end of the store.
#include "core/check.h"
#include "dist/processes/store_client.h"

namespace sg::dist {

using namespace store;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kRest{5'000};  // for the rest of a message that has begun

}  // namespace

void StoreClient::read() {
  try {
    std::string why = "it sent bytes that are no message";
    std::optional<Deadline> rest;
    for (std::size_t messages = 0; read_messages(messages);) {
      if (input_.empty() || messages > 0) rest.reset();
      if (!input_.empty() && !rest) rest.emplace(kRest);
      if (!receive_some(socket_.get(), input_, rest ? *rest : Deadline(milliseconds(0)), why)) {
        if (rest && rest->passed())
          why = fmt::format("{} bytes of a message and then nothing", input_.size());
        break;
      }
      why = "it sent bytes that are no message";
    }
    lose(why);
  } catch (const std::exception& e) {
    lose(e.what());
  }
}

// False: they are none. `count`: those that were whole.
bool StoreClient::read_messages(std::size_t& count) {
  std::size_t at = 0;
  for (count = 0;; ++count) {
    Message message;
    std::size_t used = 0;
    const Parse got = parse_message(Bytes(input_).subspan(at), message, used);
    if (got == Parse::bad) return false;
    if (got == Parse::more) break;
    at += used;
    take(std::move(message));
  }
  input_.erase(0, at);
  return true;
}

void StoreClient::take(Message&& message) {
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    if (message.type == MessageType::ready) {
      ready_ = true;
    } else if (message.type == MessageType::failed) {
      news = !failure_;
      if (!failure_) failure_ = Failure{message.rank, message.text};
    } else if (message.type == MessageType::left) {
      left_[message.rank] = message.postings;
      news = true;
    } else if (const auto it = replies_.find(message.request); it != replies_.end()) {
      it->second = std::move(message);  // else: cancelled in the meantime
    }
  }
  changed_.notify_all();
  if (news) tell();
}

void StoreClient::lose(const std::string& why) {
  bool news = false;
  {
    const std::lock_guard lock(mutex_);
    if (!lost_) {
      lost_ =
          lost_text(0, fmt::format("it holds the store at {}, and that is gone ({})", where_, why));
    }
    if (!closing_ && !failure_ && !left_.contains(identity_.rank)) {
      failure_ = Failure{0, *lost_};
      news = true;
    }
  }
  changed_.notify_all();
  if (news) tell();
}

void StoreClient::tell() {
  const std::lock_guard lock(event_mutex_);
  if (event_) event_();
}

}  // namespace sg::dist

#include <algorithm>
#include <utility>

#include "core/check.h"
#include "dist/processes/store_session.h"

namespace sg::dist::store {
namespace {

// Of a text of any length, what a message takes.
std::string capped(const std::string& text) { return text.substr(0, kMaxText); }

Message done(std::uint32_t request) {
  return Message{.type = MessageType::done, .request = request};
}

Message refused(std::uint32_t request, const std::string& text) {
  return Message{.type = MessageType::refused, .request = request, .text = capped(text)};
}

Message found(std::uint32_t request, MessageType asked, const std::string& value) {
  if (asked == MessageType::wait) return done(request);
  return Message{.type = MessageType::value, .request = request, .value = value};
}

Message failed(const Failure& failure) {
  return Message{.type = MessageType::failed, .rank = failure.rank, .text = failure.text};
}

}  // namespace

StoreJob::StoreJob(JobIdentity identity) : StoreJob(std::move(identity), Limits{}) {}

StoreJob::StoreJob(JobIdentity identity, Limits limits)
    : identity_(std::move(identity)), limits_(limits) {
  SG_CHECK(identity_.world_size >= 1, "[store] world size {}; expected 1 or more",
           identity_.world_size);
  SG_CHECK(!identity_.token.empty(), "[store] the job token is empty; set SHARDGRAD_TOKEN");
  places_.resize(identity_.world_size);
}

std::string StoreJob::mismatch(const Message& m) const {
  if (m.job != identity_.job) {
    return fmt::format("rank {} belongs to job '{}', the store to job '{}'", m.rank, m.job,
                       identity_.job);
  }
  if (m.world_size != identity_.world_size) {
    return fmt::format("rank {} was started with world size {}, the job with {}", m.rank,
                       m.world_size, identity_.world_size);
  }
  if (m.rank < 0 || m.rank >= identity_.world_size) {
    return fmt::format("rank {} is outside 0 to {}", m.rank, identity_.world_size - 1);
  }
  if (m.configuration != identity_.configuration) {
    return fmt::format(
        "rank {} has configuration {}, the job {}; start every rank with the same options", m.rank,
        m.configuration, identity_.configuration);
  }
  return "";
}

std::optional<Message> StoreJob::join(Session& session, const Message& m) {
  if (const std::string text = mismatch(m); !text.empty()) return refused(m.request, text);
  Place& place = places_[m.rank];
  // Another node's launcher was quicker to start its ranks again than this store to end. Counts of
  // launchers may differ: what counts is this rank's own, where it was here before.
  const int before = place.peer.empty() ? identity_.attempt : place.attempt;
  if (failure_ && m.attempt > before)
    return Message{.type = MessageType::over, .request = m.request, .text = capped(failure_->text)};
  if (!place.peer.empty()) {
    return refused(m.request,
                   fmt::format("rank {} has joined already, from {}", m.rank, place.peer));
  }
  place.session = &session;
  place.peer = session.peer();
  place.attempt = m.attempt;
  session.rank_ = m.rank;
  ++joined_;
  ++present_;
  session.send(done(m.request));
  if (failure_) session.send(failed(*failure_));
  for (int rank = 0; rank < identity_.world_size; ++rank) {
    if (!places_[rank].left) continue;
    session.send({.type = MessageType::left, .rank = rank, .postings = places_[rank].postings});
  }
  if (ready()) broadcast({.type = MessageType::ready});
  return std::nullopt;
}

void StoreJob::serve(Session& session, const Message& m) {
  switch (m.type) {
    case MessageType::set:
      return set(session, m);
    case MessageType::get:
    case MessageType::wait:
      return find(session, m);
    case MessageType::cancel:
      return unpark(session, m.request);
    case MessageType::fail:
      fail_job(session.rank(), m.text);
      return session.send(done(m.request));
    case MessageType::leave:
      leave(session, m.postings);
      return session.send(done(m.request));
    default:
      return session.close("it sent a message that is not a joined rank's to send");
  }
}

void StoreJob::set(Session& session, const Message& m) {
  auto it = values_.find(m.key);
  const std::size_t freed = it == values_.end() ? 0 : m.key.size() + it->second.size();
  const std::size_t bytes = stored_ - freed + m.key.size() + m.value.size();
  if (it == values_.end() && values_.size() == limits_.keys) {
    return session.send(
        refused(m.request, fmt::format("the store is full: {} keys", limits_.keys)));
  }
  if (bytes > limits_.bytes) {
    return session.send(refused(
        m.request, fmt::format("the store is full: {} bytes, at most {}", bytes, limits_.bytes)));
  }
  stored_ = bytes;
  values_.insert_or_assign(m.key, m.value);
  session.send(done(m.request));
  const auto waiting = parked_.find(m.key);
  if (waiting == parked_.end()) return;
  for (const Parked& p : waiting->second) {
    p.session->parked_.erase(p.request);
    p.session->send(found(p.request, p.type, m.value));
  }
  parked_.erase(waiting);
}

void StoreJob::find(Session& session, const Message& m) {
  if (const auto it = values_.find(m.key); it != values_.end()) {
    return session.send(found(m.request, m.type, it->second));
  }
  if (failure_) return session.send(refused(m.request, "the job failed: " + failure_->text));
  if (session.parked_.size() == kMaxParked) {
    return session.send(
        refused(m.request, fmt::format("{} requests of this rank wait already", kMaxParked)));
  }
  if (!session.parked_.emplace(m.request, m.key).second) {
    return session.close("it used the number of a waiting request twice");
  }
  parked_[m.key].push_back({&session, m.request, m.type});
}

void StoreJob::unpark(Session& session, std::uint32_t request) {
  const auto it = session.parked_.find(request);
  if (it == session.parked_.end()) return;  // answered in the meantime
  const auto waiting = parked_.find(it->second);
  std::erase_if(waiting->second,
                [&](const Parked& p) { return p.session == &session && p.request == request; });
  if (waiting->second.empty()) parked_.erase(waiting);
  session.parked_.erase(it);
}

void StoreJob::leave(Session& session, std::uint64_t postings) {
  Place& place = places_[session.rank()];
  if (place.left) return;
  place.left = true;
  place.postings = postings;
  --present_;
  broadcast({.type = MessageType::left, .rank = session.rank(), .postings = postings});
}

void StoreJob::remove(Session& session, const std::string& reason) {
  while (!session.parked_.empty()) unpark(session, session.parked_.begin()->first);
  if (!session.joined()) return;
  Place& place = places_[session.rank()];
  place.session = nullptr;
  if (place.left) return;
  --present_;
  fail_job(session.rank(), lost_text(session.rank(), reason));
}

void StoreJob::fail_job(int rank, const std::string& text) {
  if (failure_) return;
  failure_ = Failure{rank, capped(text)};
  broadcast(failed(*failure_));
  for (const auto& [key, waiting] : std::exchange(parked_, {})) {
    for (const Parked& p : waiting) {
      p.session->parked_.erase(p.request);
      p.session->send(refused(p.request, "the job failed: " + failure_->text));
    }
  }
}

void StoreJob::broadcast(const Message& message) {
  for (const Place& place : places_) {
    if (place.session) place.session->send(message);
  }
}

std::vector<int> StoreJob::missing() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < identity_.world_size; ++rank) {
    if (places_[rank].peer.empty()) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace sg::dist::store

// Ready<T>: a value that another stream produces. Waiting is the only way to it, so stream order is
// a type, not a habit.
#pragma once

#include <memory>
#include <utility>

namespace sg {

/// The two moments that matter about memory which crosses streams.
class Event {
 public:
  virtual ~Event() = default;
  /// Returns when the value is there. Throws what went wrong while it was made.
  virtual void wait() = 0;
  /// Returns when, besides, everybody who was given this memory to read is done with it: it may
  /// change or be freed.
  virtual void wait_readers() { wait(); }
};

template <class T>
class Ready {
 public:
  /// Nothing: get() gives a default value, waits return at once.
  Ready() = default;
  /// A value that is there already.
  explicit Ready(T value) : value_(std::move(value)) {}
  Ready(T value, std::shared_ptr<Event> event)
      : value_(std::move(value)), event_(std::move(event)) {}

  /// The value, when it is there.
  const T& get() const {
    if (event_ != nullptr) event_->wait();
    return value_;
  }
  /// Before the memory is changed or freed.
  void wait_readers() const {
    if (event_ != nullptr) event_->wait_readers();
  }
  /// Whether anything was ever started.
  bool pending() const { return event_ != nullptr; }

 private:
  T value_{};
  std::shared_ptr<Event> event_;
};

}  // namespace sg

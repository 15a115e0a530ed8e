// The job's store behind Gloo's interface. Our ranks leave their addresses there by it, and what
// of Gloo's asks for a Store can be given one.
#pragma once

#include <gloo/rendezvous/store.h>

#include <chrono>
#include <string>
#include <vector>

#include "dist/processes/store_client.h"

namespace sg::dist {

class GlooStore final : public ::gloo::rendezvous::Store {
 public:
  /// `timeout`: of each wait that names none; 0: no limit. The client must outlive it. Errors: the
  /// client's.
  GlooStore(StoreClient& client, std::chrono::milliseconds timeout)
      : client_(client), timeout_(timeout) {}

  void set(const std::string& key, const std::vector<char>& value) override {
    client_.set(key, value);
  }
  /// Waits until the key is there.
  std::vector<char> get(const std::string& key) override { return client_.get(key, timeout_); }
  void wait(const std::vector<std::string>& keys) override { client_.wait(keys, timeout_); }
  void wait(const std::vector<std::string>& keys,
            const std::chrono::milliseconds& timeout) override {
    client_.wait(keys, timeout);
  }

 private:
  StoreClient& client_;
  const std::chrono::milliseconds timeout_;
};

}  // namespace sg::dist

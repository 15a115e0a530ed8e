// Where the job's store is and the token to prove to it, on one host where nobody set
// SHARDGRAD_TOKEN: a file that only this user can read and that rank 0 writes.
#pragma once

#include <chrono>
#include <string>

namespace sg::dist {

class TokenFile {
 public:
  struct Content {
    int port = 0;
    std::string token;
  };

  /// Of the job whose launcher named `port`: shardgrad-<uid>-<port>.token in XDG_RUNTIME_DIR, or
  /// else in the folder for temporary files.
  explicit TokenFile(int port);
  /// Removes it, if this process wrote it.
  ~TokenFile();

  /// Replaces what an earlier job may have left. Mode 0600.
  void write(const Content& content);
  /// Waits until it is there. An error if it does not come within `deadline` (0: none), belongs to
  /// another user or can be read by others.
  Content read(std::chrono::milliseconds deadline) const;

 private:
  std::string path_;
  bool mine_ = false;
};

}  // namespace sg::dist

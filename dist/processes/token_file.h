// The job's token on one host, where nobody set SHARDGRAD_TOKEN: a file that only this user can
// read and that rank 0 writes.
#pragma once

#include <chrono>
#include <string>

namespace sg::dist {

class TokenFile {
 public:
  /// Of the job whose store is at `port`: shardgrad-<uid>-<port>.token in XDG_RUNTIME_DIR, or else
  /// in the folder for temporary files.
  explicit TokenFile(int port);
  /// Removes it, if this process wrote it.
  ~TokenFile();

  /// Replaces what an earlier job may have left. Mode 0600.
  void write(const std::string& token);
  /// Waits until it is there. An error if it does not come within `deadline` (0: none), belongs to
  /// another user or can be read by others.
  std::string read(std::chrono::milliseconds deadline) const;

 private:
  std::string path_;
  bool mine_ = false;
};

}  // namespace sg::dist

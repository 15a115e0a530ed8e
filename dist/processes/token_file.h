// Where the job's store is and the token to prove to it, on one host where nobody set
// SHARDGRAD_TOKEN: a file that only this user can read, which rank 0 writes and the others read
// while the job joins.
//
// Rank 0 holds a lock (flock) on the file for as long as it is good. So the others can tell a file
// that somebody who died has left, however fresh it looks; and only who holds the lock of the file
// that is in place removes it, so that nobody removes that of another job.
#pragma once

#include <chrono>
#include <string>

#include "dist/processes/store_socket.h"

namespace sg::dist {

class TokenFile {
 public:
  struct Content {
    int port = 0;
    std::string token;
  };

  /// Of the job of that id whose launcher named `port`: shardgrad-<uid>-<hash of the
  /// id>-<port>.token in XDG_RUNTIME_DIR, or else in the folder for temporary files.
  TokenFile(const std::string& job, int port);
  /// Removes it, if this process wrote it or whoever did is dead.
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  const std::string& path() const { return path_; }
  /// Takes the place of what a dead process has left. Mode 0600. SIGINT, SIGTERM and SIGHUP remove
  /// the file from here to the destructor, where they end the process. One such object of a process
  /// at a time. Errors: it cannot be written; somebody else's; held by a living process, after 2 s.
  void write(const Content& content);
  /// Waits until it is there and its writer lives. An error if that is not so within `deadline` (0:
  /// none), or it belongs to another user or can be read by others.
  Content read(std::chrono::milliseconds deadline) const;

 private:
  bool take_place();

  std::string path_;
  Fd file_;  ///< the writer's, which holds the lock
};

}  // namespace sg::dist

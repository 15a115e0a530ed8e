// The socket of the job's store. The launcher opens it and rank 0 inherits it, so that nobody can
// take the port between the choice and the use.
#pragma once

#include <string>

#include "dist/cli/fd.h"

namespace sg::cli {

struct Listener {
  Fd socket;
  int port = 0;
};

/// Listens at `address`, or at every interface of that address's family. Port 0: a free one. Throws
/// UsageError if the address is none of this machine's, or the port is in use.
Listener listen_at(const std::string& address, int port, bool every_interface);

}  // namespace sg::cli

// Processes that a test starts and watches.
#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace sg::test {

using Words = std::vector<std::string>;
using Variables = std::map<std::string, std::string>;

/// This process's variables as NAME=value, with those of `set` in their place and without those
/// whose names are `dropped`.
Words environment_with(const Variables& set,
                       const std::function<bool(const std::string&)>& dropped = {});

/// Starts the program `path` with `words` (the first is its name) and `environment`; its id.
/// Standard input is empty; `out` and `err` become its standard output and error.
pid_t start(const std::string& path, Words words, Words environment, int out, int err);

/// A status of waitpid as a shell shows it: 128 + n if signal n ended the process.
int exit_status(int raw);
/// A process that is there and no zombie.
bool alive(pid_t pid);
/// Waits until f() or for so many seconds; what f() said last.
bool eventually(const std::function<bool()>& f, double seconds = 20);

}  // namespace sg::test

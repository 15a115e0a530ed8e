#include "core/fault.h"

#if SG_FAULTS
#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "core/check.h"
#include "core/rank.h"

namespace sg::fault {
namespace {

struct Fault {
  std::string_view action, site;
  int delay = 0;  // ms
  int rank = 0;
  std::int64_t count = 0;
};

template <class T>
T number(std::string_view text, std::string_view whole) {
  T n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  SG_CHECK(error == std::errc() && end == text.data() + text.size() && n >= 0,
           "[fault] SHARDGRAD_FAULT: '{}' in '{}' is no number", text, whole);
  return n;
}

Fault parse(std::string_view text) {
  const std::size_t at = text.find("@rank"), colon = text.find(':'), hash = text.find('#');
  SG_CHECK(at < colon && colon < hash && hash != std::string_view::npos,
           "[fault] SHARDGRAD_FAULT: '{}' is not of the form ACTION@rankN:SITE#COUNT", text);
  Fault f{.action = text.substr(0, at), .site = text.substr(colon + 1, hash - colon - 1)};
  f.rank = number<int>(text.substr(at + 5, colon - at - 5), text);
  f.count = number<std::int64_t>(text.substr(hash + 1), text);
  if (f.action.starts_with("delay")) {
    f.delay = number<int>(f.action.substr(5), text);
    f.action = "delay";
  }
  for (const std::string_view known :
       {"kill", "stop", "throw", "exit", "delay", "skip", "wrongshape", "nan", "wrong"})
    if (f.action == known) return f;
  fail("[fault] SHARDGRAD_FAULT: there is no action '{}'", f.action);
}

const std::vector<Fault>& faults() {
  static const std::vector<Fault> all = [] {
    std::vector<Fault> result;
    const char* text = std::getenv("SHARDGRAD_FAULT");
    for (std::string_view rest = text != nullptr ? text : ""; !rest.empty();) {
      const std::size_t comma = std::min(rest.find(','), rest.size());
      result.push_back(parse(rest.substr(0, comma)));
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
    return result;
  }();
  return all;
}

}  // namespace

Action at(std::string_view site, std::initializer_list<Action> known) {
  if (faults().empty()) return Action::none;
  Rank& rank = current_rank();
  if (rank.device.is_meta()) return Action::none;
  const std::int64_t count = rank.fault_counts[std::string(site)]++;
  for (const Fault& f : faults()) {
    if (f.site != site || f.rank != rank.index || f.count != count) continue;
    if (f.action == "kill") std::raise(SIGKILL);
    if (f.action == "stop") std::raise(SIGSTOP);
    if (f.action == "exit") std::_Exit(3);
    if (f.action == "throw") fail("[fault] thrown at {} {} of rank {}", site, count, rank.index);
    if (f.action == "delay") std::this_thread::sleep_for(std::chrono::milliseconds(f.delay));
    const Action action = f.action == "skip"         ? Action::skip
                          : f.action == "wrongshape" ? Action::wrongshape
                          : f.action == "nan"        ? Action::nan
                          : f.action == "wrong"      ? Action::wrong
                                                     : Action::none;
    if (action == Action::none) continue;  // a delay, which is over
    SG_CHECK(std::find(known.begin(), known.end(), action) != known.end(),
             "[fault] SHARDGRAD_FAULT: the site '{}' knows no '{}'", site, f.action);
    return action;
  }
  return Action::none;
}

}  // namespace sg::fault
#endif

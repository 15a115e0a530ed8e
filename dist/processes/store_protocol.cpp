#include "dist/processes/store_protocol.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "core/check.h"

namespace sg::dist {

std::string lost_text(int rank, std::string_view how) {
  return fmt::format("rank {} lost: {}", rank, how);
}

std::optional<std::string> Failure::loss() const {
  const std::string start = lost_text(rank, "");
  if (!text.starts_with(start)) return std::nullopt;
  return text.substr(start.size());
}

}  // namespace sg::dist

namespace sg::dist::store {
namespace {

constexpr std::size_t kFrameHead = 5;  // type and request, which the length counts

template <class Int>
void put(std::string& out, Int value) {
  auto bits = static_cast<std::make_unsigned_t<Int>>(value);
  for (std::size_t i = 0; i < sizeof(Int); ++i) {
    out.push_back(static_cast<char>(bits >> (8 * i) & 0xff));
  }
}

template <class Int>
Int take(const char* in) {
  std::make_unsigned_t<Int> bits = 0;
  for (std::size_t i = 0; i < sizeof(Int); ++i) {
    bits |= static_cast<std::make_unsigned_t<Int>>(static_cast<unsigned char>(in[i])) << (8 * i);
  }
  return static_cast<Int>(bits);
}

std::string opening(std::uint32_t version) {
  std::string out(kStoreMagic.begin(), kStoreMagic.end());
  put(out, version);
  return out;
}

// The fields of a message, once for both directions: what is written is what is read.
template <class M, class Visit>
bool fields(M& m, Visit&& visit) {
  switch (m.type) {
    case MessageType::join:
      return visit(m.rank) && visit(m.world_size) && visit(m.job, kMaxName) &&
             visit(m.configuration, kMaxName) && visit(m.attempt);
    case MessageType::set:
      return visit(m.key, kMaxKey) && visit(m.value, kMaxValue);
    case MessageType::get:
    case MessageType::wait:
      return visit(m.key, kMaxKey);
    case MessageType::fail:
    case MessageType::refused:
    case MessageType::over:
      return visit(m.text, kMaxText);
    case MessageType::leave:
      return visit(m.postings);
    case MessageType::value:
      return visit(m.value, kMaxValue);
    case MessageType::failed:
      return visit(m.rank) && visit(m.text, kMaxText);
    case MessageType::left:
      return visit(m.rank) && visit(m.postings);
    case MessageType::cancel:
    case MessageType::done:
    case MessageType::ready:
      return true;
  }
  return false;  // a type of another version, or none
}

struct Writer {
  std::string& out;
  template <class Int>
  bool operator()(Int value) {
    put(out, value);
    return true;
  }
  bool operator()(const std::string& text, std::size_t cap) {
    SG_CHECK(text.size() <= cap, "[store] a field of {} bytes; at most {} fit", text.size(), cap);
    put(out, static_cast<std::uint32_t>(text.size()));
    out += text;
    return true;
  }
};

struct Reader {
  Bytes in;
  template <class Int>
  bool operator()(Int& value) {
    if (in.size() < sizeof(Int)) return false;
    value = take<Int>(in.data());
    in = in.subspan(sizeof(Int));
    return true;
  }
  bool operator()(std::string& text, std::size_t cap) {
    std::uint32_t size = 0;
    if (!(*this)(size) || size > cap || size > in.size()) return false;
    text.assign(in.data(), size);
    in = in.subspan(size);
    return true;
  }
};

template <class T>
std::string text_of(const T& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

}  // namespace

Parse parse_opening(Bytes in, std::uint32_t& version) {
  const std::size_t known = std::min(in.size(), kStoreMagic.size());
  if (!std::equal(in.begin(), in.begin() + known, kStoreMagic.begin())) return Parse::bad;
  if (in.size() < kOpeningBytes) return Parse::more;
  version = take<std::uint32_t>(in.data() + kStoreMagic.size());
  return Parse::ok;
}

std::string encode(const Greeting& greeting) {
  return opening(greeting.version) + text_of(greeting.nonce);
}

std::string encode(const Hello& hello) {
  return opening(hello.version) + text_of(hello.nonce) + text_of(hello.mac);
}

std::string encode(const Verdict& verdict) {
  std::string out = opening(verdict.version);
  put(out, static_cast<std::uint32_t>(verdict.status));
  return out + text_of(verdict.mac);
}

Parse parse(Bytes in, Greeting& out) {
  const Parse start = parse_opening(in, out.version);
  if (start != Parse::ok) return start;
  if (in.size() < kGreetingBytes) return Parse::more;
  std::memcpy(out.nonce.data(), in.data() + kOpeningBytes, kNonceBytes);
  return Parse::ok;
}

Parse parse(Bytes in, Hello& out) {
  const Parse start = parse_opening(in, out.version);
  if (start != Parse::ok) return start;
  if (in.size() < kHelloBytes) return Parse::more;
  std::memcpy(out.nonce.data(), in.data() + kOpeningBytes, kNonceBytes);
  std::memcpy(out.mac.data(), in.data() + kOpeningBytes + kNonceBytes, kMacBytes);
  return Parse::ok;
}

Parse parse(Bytes in, Verdict& out) {
  const Parse start = parse_opening(in, out.version);
  if (start != Parse::ok) return start;
  if (in.size() < kVerdictBytes) return Parse::more;
  const auto status = take<std::uint32_t>(in.data() + kOpeningBytes);
  if (status > static_cast<std::uint32_t>(Status::wrong_token)) return Parse::bad;
  out.status = static_cast<Status>(status);
  std::memcpy(out.mac.data(), in.data() + kOpeningBytes + 4, kMacBytes);
  return Parse::ok;
}

std::string encode(const Message& message) {
  std::string body;
  put(body, static_cast<std::uint8_t>(message.type));
  put(body, message.request);
  SG_CHECK(fields(message, Writer{body}), "[store] no message has type {}",
           static_cast<int>(message.type));
  std::string out;
  put(out, static_cast<std::uint32_t>(body.size()));
  return out + body;
}

Parse parse_message(Bytes in, Message& out, std::size_t& used, std::size_t limit) {
  if (in.size() < 4) return Parse::more;
  const std::size_t size = take<std::uint32_t>(in.data());
  if (size < kFrameHead || size > limit) return Parse::bad;
  if (in.size() - 4 < size) return Parse::more;
  Reader read{in.subspan(4, size)};
  std::uint8_t type = 0;
  out = Message{};
  read(type);
  out.type = static_cast<MessageType>(type);
  read(out.request);
  if (!fields(out, read) || !read.in.empty()) return Parse::bad;
  used = 4 + size;
  return Parse::ok;
}

std::string seconds_text(std::chrono::milliseconds time) {
  return fmt::format("{:g} s", static_cast<double>(time.count()) / 1000);
}

}  // namespace sg::dist::store

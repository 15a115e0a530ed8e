// The store's protocol as bytes: pure functions, no sockets, so that a fuzzer can have them.
//
//   server -> client  Greeting   magic, version, nonce
//   client -> server  Hello      magic, version, nonce, HMAC-SHA256(token, "client" | both nonces |
//                                version); of fixed size, and all that is read from a stranger
//   server -> client  Verdict    magic, version, status, HMAC-SHA256(token, "server" | both nonces)
//   then both ways    Message    u32 length of what follows, u8 type, u32 request, fields
//
// Numbers are little-endian; a string is a u32 length and its bytes. What precedes the version
// never changes, so that two versions can name each other. The proofs keep strangers out; what
// follows them is neither signed nor hidden from who can read or change the network's packets.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace sg::dist {

/// Who asks, or who is asked. All ranks of a job must agree on all but rank and attempt.
struct JobIdentity {
  std::string token;  ///< the secret; never sent, never in a text
  int rank = 0;       ///< ignored for the server
  int world_size = 1;
  std::string job;            ///< an id, at most store::kMaxName bytes
  std::string configuration;  ///< a hash in hex, at most store::kMaxName bytes
  int attempt = 0;            ///< how often its launcher has started it again; need not agree
};

/// The first failure of a job; the text names the rank where it matters.
struct Failure {
  int rank = 0;
  std::string text;
  /// How it was noticed, if this is a lost_text().
  std::optional<std::string> loss() const;
};

/// That a rank has ended without a word: "rank 2 lost: <how>".
std::string lost_text(int rank, std::string_view how);

/// 32 bytes of the system's randomness in hex: a job token.
std::string random_token();

}  // namespace sg::dist

namespace sg::dist::store {

inline constexpr std::uint32_t kStoreVersion = 2;
inline constexpr std::array<char, 8> kStoreMagic{'s', 'g', 's', 't', 'o', 'r', 'e', '\n'};
inline constexpr std::size_t kNonceBytes = 32;
inline constexpr std::size_t kMacBytes = 32;
inline constexpr std::size_t kOpeningBytes = 12;  ///< magic and version
inline constexpr std::size_t kGreetingBytes = kOpeningBytes + kNonceBytes;
inline constexpr std::size_t kHelloBytes = kOpeningBytes + kNonceBytes + kMacBytes;
inline constexpr std::size_t kVerdictBytes = kOpeningBytes + 4 + kMacBytes;

// Caps, in bytes where not said otherwise.
inline constexpr std::size_t kMaxName = 256;  ///< job, configuration
inline constexpr std::size_t kMaxKey = 4096;
inline constexpr std::size_t kMaxValue = std::size_t{1} << 20;
inline constexpr std::size_t kMaxText = 16384;              ///< of a failure or a refusal
inline constexpr std::size_t kMaxJoin = 2 * kMaxName + 32;  ///< frame before a rank has joined
inline constexpr std::size_t kMaxFrame = kMaxValue + kMaxKey + 32;
inline constexpr std::size_t kMaxKeys = 65536;                     ///< keys of a store
inline constexpr std::size_t kMaxStored = std::size_t{256} << 20;  ///< keys and values together
inline constexpr std::size_t kMaxParked = 4096;                    ///< waiting requests of a rank
inline constexpr std::size_t kMaxOutput = std::size_t{16} << 20;   ///< unread by a client

using Bytes = std::span<const char>;
using Nonce = std::array<char, kNonceBytes>;
using Mac = std::array<char, kMacBytes>;

enum class Parse {
  more,  ///< right so far, not complete
  ok,
  bad  ///< never right, whatever follows
};

/// Magic and version, the first 12 bytes of greeting, hello and verdict. Bad as soon as a byte is
/// not the magic's.
Parse parse_opening(Bytes in, std::uint32_t& version);

struct Greeting {
  std::uint32_t version = kStoreVersion;
  Nonce nonce{};
};

struct Hello {
  std::uint32_t version = kStoreVersion;
  Nonce nonce{};
  Mac mac{};
};

enum class Status : std::uint32_t { welcome, wrong_version, wrong_token };

struct Verdict {
  std::uint32_t version = kStoreVersion;
  Status status = Status::welcome;
  Mac mac{};  ///< zeros if refused
};

std::string encode(const Greeting& greeting);
std::string encode(const Hello& hello);
std::string encode(const Verdict& verdict);
/// They read the first k...Bytes of `in` and ignore what follows; the version may be any.
Parse parse(Bytes in, Greeting& out);
Parse parse(Bytes in, Hello& out);
Parse parse(Bytes in, Verdict& out);

Mac client_proof(const std::string& token, const Nonce& server, const Nonce& client,
                 std::uint32_t version);
Mac server_proof(const std::string& token, const Nonce& server, const Nonce& client);
/// Takes equally long wherever they differ.
bool same(const Mac& a, const Mac& b);
Nonce random_nonce();

enum class MessageType : std::uint8_t {
  // Of a rank. Each is answered by done, value, refused or over with its request number.
  join = 1,  ///< rank, world_size, job, configuration, attempt; the first, and only once
  set,       ///< key, value
  get,       ///< key; answered when it is there
  wait,      ///< key; as get, without the value
  cancel,    ///< the waiting request of this number is dropped; not answered
  fail,      ///< text
  leave,     ///< postings
  // Of the store. Ready, failed and left are sent unasked, request 0.
  done = 65,
  value,    ///< value
  refused,  ///< text
  ready,    ///< all ranks have joined
  failed,   ///< rank, text
  left,     ///< rank, postings
  over      ///< text; an answer to a join: the job has failed, and that of this attempt comes
};

/// One message; a type uses the fields that its comment names.
struct Message {
  MessageType type = MessageType::done;
  std::uint32_t request = 0;
  std::int32_t rank = 0;
  std::int32_t world_size = 0;
  std::uint64_t postings = 0;
  std::string key{};
  std::string value{};
  std::string text{};
  std::string job{};
  std::string configuration{};
  std::int32_t attempt = 0;
};

/// Error: a field is longer than its cap.
std::string encode(const Message& message);
/// Reads one message from the front of `in`; `used` is its size if ok. A frame longer than `limit`
/// is bad before its body is there.
Parse parse_message(Bytes in, Message& out, std::size_t& used, std::size_t limit = kMaxFrame);

/// "0.5 s"
std::string seconds_text(std::chrono::milliseconds time);

}  // namespace sg::dist::store

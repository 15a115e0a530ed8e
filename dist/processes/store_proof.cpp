// The proofs of the job's token, by OpenSSL.
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "core/check.h"
#include "dist/processes/store_protocol.h"

namespace sg::dist::store {
namespace {

Mac hmac(const std::string& token, const std::string& text) {
  Mac mac{};
  unsigned size = 0;
  const auto* made = HMAC(EVP_sha256(), token.data(), static_cast<int>(token.size()),
                          reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                          reinterpret_cast<unsigned char*>(mac.data()), &size);
  SG_CHECK(made && size == kMacBytes, "[store] OpenSSL cannot make an HMAC-SHA256");
  return mac;
}

template <class T>
std::string text_of(const T& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

void fill_random(char* out, std::size_t size) {
  SG_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(out), static_cast<int>(size)) == 1,
           "[store] OpenSSL has no random bytes to give");
}

}  // namespace

Mac client_proof(const std::string& token, const Nonce& server, const Nonce& client,
                 std::uint32_t version) {
  std::string text = "client" + text_of(server) + text_of(client);
  for (int i = 0; i < 4; ++i) text.push_back(static_cast<char>(version >> (8 * i) & 0xff));
  return hmac(token, text);
}

Mac server_proof(const std::string& token, const Nonce& server, const Nonce& client) {
  return hmac(token, "server" + text_of(client) + text_of(server));
}

bool same(const Mac& a, const Mac& b) { return CRYPTO_memcmp(a.data(), b.data(), kMacBytes) == 0; }

Nonce random_nonce() {
  Nonce nonce;
  fill_random(nonce.data(), nonce.size());
  return nonce;
}

}  // namespace sg::dist::store

namespace sg::dist {

std::string random_token() {
  const store::Nonce bytes = store::random_nonce();
  std::string text;
  for (const char byte : bytes) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace sg::dist

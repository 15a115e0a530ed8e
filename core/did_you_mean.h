// Advice for a name that does not exist.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace sg {

/// "; did you mean gloo?" with the first of the nearest choices, or nothing where more than half of
/// `word` would have to change.
std::string did_you_mean(std::string_view word, std::span<const std::string_view> choices);

}  // namespace sg

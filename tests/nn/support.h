// Shared by the tests of nn.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "core/check.h"
#include "tests/support/files.h"
#include "tests/support/testing.h"

namespace sg::nn {

using test::error_of;
using test::TemporaryFolder;

}  // namespace sg::nn

// The nets of `--net`: plain modules with PyTorch's parameter names and layouts.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "nn/module.h"

namespace sg::cifar {

/// What --net takes.
std::span<const std::string_view> net_names();

/// A net for [N, 3, 32, 32] and ten classes; nothing is allocated yet. With `checkpoint` its blocks
/// compute their activations again in backward. An unknown name throws.
nn::ModulePtr make_net(const std::string& name, bool checkpoint = false, DType dtype = DType::f32);

}  // namespace sg::cifar

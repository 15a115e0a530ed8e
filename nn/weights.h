// Weights in and out as safetensors, under the names of PyTorch's state dict.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/module.h"

namespace sg::nn {

/// A tensor that a file should have.
struct Expected {
  std::string name;
  Shape shape;
  DType dtype = DType::f32;
  bool optional = false;
  std::vector<std::string> aliases =
      {};  ///< other names; a file may have any of them, any number of times
};

/// What a file of the module's weights should have: parameters, then buffers (num_batches_tracked
/// is optional).
std::vector<Expected> expected_tensors(const Module& module);

/// Compares names, shapes and kinds of dtype (floating dtypes are converted, others must be equal).
/// Returns the name in the file of each expected tensor, empty if it is optional and absent. Throws
/// one error that lists every difference:
/// "[load] F does not fit the model: missing fc1.bias; unexpected foo [3]; conv1.weight is [6, 3,
/// 3, 3], expected [6, 3, 5, 5]".
std::vector<std::string> match_tensors(const SafetensorsFile& file,
                                       std::span<const Expected> expected);

/// Loads parameters and buffers. All is compared first: on an error of match_tensors() nothing has
/// changed. A parameter that is only declared stays so, and is read when its values are wanted, by
/// each rank its own span: the file may be replaced in the meantime, but not changed in place.
void load_weights(Module& module, const std::filesystem::path& path);

/// Saves parameters and buffers, a tensor at a time; those only declared, with their initial
/// values. Tied parameters are saved once, under the first name; the metadata say alias -> name, as
/// in safetensors.torch.save_model.
void save_weights(const Module& module, const std::filesystem::path& path);

}  // namespace sg::nn

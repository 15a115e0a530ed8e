// Work that crosses a GPU's streams, for code that includes no CUDA header. A lane is a stream of a
// rank; a mark is a moment in a lane, which another lane, of the same rank or another one, waits
// for. None of these functions makes the CPU wait, unless it says so.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "core/device.h"
#include "core/scalar.h"

namespace sg::cuda {

class Context;
class Mark;

enum class Lane { compute, communication };

/// The current rank's, to be used on other threads as well, which must not outlive it.
Context* current(Device device);

/// The end of what is queued on a lane so far.
std::shared_ptr<Mark> mark(Context& context, Lane lane);
/// What is queued on the lane from now on runs after the mark.
void wait(Context& context, Lane lane, const Mark& mark);
/// The CPU waits.
void wait(const Mark& mark);

void copy(Context& context, Lane lane, void* to, const void* from, std::size_t bytes);
void zero(Context& context, Lane lane, void* to, std::size_t bytes);
/// out[i] = ((sources[0][i] + sources[1][i]) + sources[2][i]) + ..., of n values of f32 or f64.
/// `out` may be one of the first 256 sources; an error if it is a later one.
void fold(Context& context, Lane lane, DType dtype, void* out, std::span<const void* const> sources,
          std::int64_t n);

}  // namespace sg::cuda

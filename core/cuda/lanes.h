// Work that crosses a GPU's streams, for code that includes no CUDA header. A lane is a stream of a
// rank; a mark is a moment in a lane, which another lane, of the same rank or another one, waits
// for. None of these functions makes the CPU wait, unless it says so.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "core/device.h"
#include "core/scalar.h"

namespace sg::cuda {

class Context;
class Mark;

enum class Lane { compute, communication, copies_in, copies_out };

/// The current rank's, to be used on other threads as well, which must not outlive it.
Context* current(Device device);

/// Lets cuda:0 to cuda:gpus-1 read and write what comes from the pool of `device`, as far as the
/// machine can: work of theirs is to, where the ranks of several GPUs are threads.
void share_pool(Device device, int gpus);

/// What the collectives of a rank say to those who ask its GPU.
class Collectives {
 public:
  virtual ~Collectives() = default;
  /// The last that was started, for error texts; empty before the first.
  virtual std::string last() const = 0;
  /// Throws what they were given up for, if they were: values on the GPU are worth nothing then.
  virtual void check() const = 0;
};
/// Whom waits for this GPU and errors of it ask from now on.
void set_collectives(Context& context, std::weak_ptr<const Collectives> collectives);

/// The end of what is queued on a lane so far.
std::shared_ptr<Mark> mark(Context& context, Lane lane);
/// What is queued on the lane from now on runs after the mark.
void wait(Context& context, Lane lane, const Mark& mark);
/// The CPU waits.
void wait(const Mark& mark);
/// The CPU waits, then throws what the rank's collectives were given up for, if they were.
void wait(Context& context, const Mark& mark);
/// The CPU waits for what is queued on the lane: where an error is being thrown already. A device
/// that is lost says so elsewhere.
void drain(Context& context, Lane lane) noexcept;
/// Whether the lane has come to it. On any thread. Errors: that can no longer be known, as the
/// device is lost.
bool reached(const Mark& mark);
/// Makes the GPU the calling thread's current one, for a thread that has no rank.
void use(Device device);

void copy(Context& context, Lane lane, void* to, const void* from, std::size_t bytes);
void zero(Context& context, Lane lane, void* to, std::size_t bytes);
/// From pinned memory (Tensor::empty_pinned) to the GPU's: it must stay as it is until a later mark
/// of the lane has been reached.
void upload(Context& context, Lane lane, void* to, const void* from, std::size_t bytes);
/// The other way: it is there when a later mark of the lane has been reached.
void download(Context& context, Lane lane, void* to, const void* from, std::size_t bytes);
/// Words on the GPU that kernels write what they find wrong to (an index outside an embedding), and
/// that the next wait throws: their copy, clearing them, and a copy put back, in the order of the
/// compute lane.
inline constexpr int kFoundWords = 4;  // i64
void copy_found(Context& context, void* to);
void clear_found(Context& context);
void put_found(Context& context, const void* from);
/// Throws what such words in main memory say, if they say anything.
void check_found(const std::int64_t* found);
/// out[i] = ((sources[0][i] + sources[1][i]) + sources[2][i]) + ..., of n values of f32 or f64.
/// `out` may be any of the sources.
void fold(Context& context, Lane lane, DType dtype, void* out, std::span<const void* const> sources,
          std::int64_t n);

}  // namespace sg::cuda

#include "core/cuda/ops.h"

#include <algorithm>

#include "core/cuda/context.h"
#include "core/cuda/kernels.h"
#include "core/cuda/make_walk.h"

namespace sg::cuda {
namespace {

// All defined operands visit the same contiguous run of memory in the same order.
template <int kOperands>
bool is_flat(const Walk<kOperands>& walk, const bool* defined) {
  if (walk.size[0] == 1 && walk.dims == 1) return true;
  for (int k = 0; k < kOperands; ++k)
    if (defined[k] && (walk.dims != 1 || walk.stride[k][0] != 1)) return false;
  return true;
}

std::size_t bytes_of(const Tensor& t) { return static_cast<std::size_t>(t.bytes()); }

// Both sides dense in the same order of dimensions: one block of memory each.
bool same_block(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || !a.is_dense() || !b.is_dense()) return false;
  for (int i = 0; i < a.dim_count(); ++i)
    if (a.shape()[i] != 1 && a.strides()[i] != b.strides()[i]) return false;
  return true;
}

void copy_block(const Tensor& source, const Tensor& destination, cudaMemcpyKind kind,
                Context& context) {
  if (kind != cudaMemcpyDeviceToDevice) context.check_not_capturing("copy");
  check(cudaMemcpyAsync(destination.raw_data(), source.raw_data(), bytes_of(source), kind,
                        context.compute()),
        "copy", "cudaMemcpyAsync");
}

void copy_within(const Tensor& source, const Tensor& destination) {
  SG_CHECK(source.device() == destination.device(), "[copy] from {} to {}: copy by way of the CPU",
           name_of(source.device()), name_of(destination.device()));
  Context& c = context(destination.device());
  if (same_block(source, destination))
    return copy_block(source, destination, cudaMemcpyDeviceToDevice, c);
  const Tensor* others[] = {&source};
  copy_strided(on("copy", destination.device()), destination.dtype(), source.dtype(),
               destination.numel(), make_walk<2>(destination, others), source.raw_data(),
               destination.raw_data());
}

}  // namespace

void elementwise(const char* name, const Elementwise& op, const Tensor& out,
                 std::initializer_list<const Tensor*> inputs) {
  if (out.numel() == 0) return;
  if (!out.is_dense() && (op.family == Family::unary || op.family == Family::unary_grad)) {
    const Scoped kind(current_rank().kind, Kind::buffers);  // a view, changed in place
    const Tensor block = Tensor::empty(out.shape(), out.dtype(), out.device());
    elementwise(name, op, block, inputs);
    return copy_within(block, out);
  }
  const bool dense = op.family == Family::unary || op.family == Family::unary_grad;
  Tensor values[kMaxInputs];
  const Tensor* operands[kMaxInputs] = {};
  const void* data[kMaxInputs] = {};
  bool defined[kMaxInputs + 1] = {true};
  int count = 0;
  DType dtype = out.dtype();
  for (const Tensor* input : inputs) {
    if (input->defined()) {
      values[count] = *input;
      if (dense && input->strides() != out.strides() &&
          !(input->is_contiguous() && out.is_contiguous())) {
        values[count] =
            Tensor::empty_strided(out.shape(), out.strides(), input->dtype(), out.device());
        copy_within(*input, values[count]);
      }
      operands[count] = &values[count];
      data[count] = values[count].raw_data();
      defined[count + 1] = true;
      if (op.family != Family::where || count > 0) dtype = input->dtype();
    }
    ++count;
  }
  const Launch launch = on(name, out.device());
  if (dense) return elementwise(launch, op, dtype, out.numel(), nullptr, data, out.raw_data());
  const auto walk = make_walk<kMaxInputs + 1>(out, operands);
  elementwise(launch, op, dtype, out.numel(), is_flat(walk, defined) ? nullptr : &walk, data,
              out.raw_data());
}

void copy(const Tensor& source, const Tensor& destination) {
  if (destination.numel() == 0) return;
  if (source.device().is_cuda() && destination.device().is_cuda())
    return copy_within(source, destination);
  const bool down = source.device().is_cuda();
  const Device device = down ? source.device() : destination.device();
  // Casts and changes of order are the GPU's work; the bus carries one block in the source's dtype.
  const Tensor& host = down ? destination : source;
  const Tensor& there = down ? source : destination;
  if (same_block(source, destination)) {
    copy_block(source, destination, down ? cudaMemcpyDeviceToHost : cudaMemcpyHostToDevice,
               context(device));
  } else if (down) {
    const Scoped kind(current_rank().kind, Kind::buffers);
    const bool dense = host.is_dense();
    const Tensor staged = Tensor::empty_strided(
        host.shape(), dense ? host.strides() : contiguous_strides(host.shape()), host.dtype(),
        device);
    copy_within(there, staged);
    if (dense) {
      copy_block(staged, host, cudaMemcpyDeviceToHost, context(device));
    } else {
      const Tensor block = Tensor::empty(host.shape(), host.dtype(), kCpu);
      copy_block(staged, block, cudaMemcpyDeviceToHost, context(device));
      context(device).synchronize("copy");
      return host.copy_from(block);
    }
  } else {
    const Scoped kind(current_rank().kind, Kind::buffers);
    const Tensor block = host.is_dense() ? host : host.contiguous();
    const Tensor staged =
        Tensor::empty_strided(block.shape(), block.strides(), block.dtype(), device);
    copy_block(block, staged, cudaMemcpyHostToDevice, context(device));
    copy_within(staged, there);
  }
  // The CPU may read, or overwrite, its side as soon as this returns. Drivers take pageable
  // memory's values before cudaMemcpyAsync returns, unless the GPU reads them where they are, as it
  // does pinned ones.
  if (down)
    context(device).synchronize("copy");
  else if (context(device).reads_host_memory() || host.storage()->pinned())
    check(cudaStreamSynchronize(context(device).compute()), "copy", "cudaStreamSynchronize");
}

void fill(const Tensor& destination, double value) {
  if (destination.numel() == 0) return;
  fill_strided(on("fill", destination.device()), destination.dtype(), destination.numel(),
               make_walk<1>(destination, nullptr), value, destination.raw_data());
}

}  // namespace sg::cuda

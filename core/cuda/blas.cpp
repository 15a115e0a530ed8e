// Matrix products by cuBLASLt. The library is loaded when a rank first multiplies on a GPU: its 400
// MB would cost every process 80 ms at its start, and most never use a GPU.
#include "core/cuda/blas.h"

#include <cublasLt.h>
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "core/cuda/context.h"
#include "core/cuda/kernels_matmul.h"
#include "core/dtype.h"
#include "core/tensor.h"

namespace sg::cuda {
namespace {

#define SG_TEXT_OF(x) #x
#define SG_TEXT(x) SG_TEXT_OF(x)

// The functions that are used, with the types of the header.
struct Library {
  void* handle = nullptr;
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtDestroy) destroy = nullptr;
  decltype(&cublasLtGetStatusString) text_of = nullptr;
  decltype(&cublasLtMatmulDescCreate) make_product = nullptr;
  decltype(&cublasLtMatmulDescDestroy) destroy_product = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) set_product = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) make_layout = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) destroy_layout = nullptr;
  decltype(&cublasLtMatrixLayoutSetAttribute) set_layout = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) make_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) destroy_preference = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) set_preference = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmul) multiply = nullptr;

  Library() {
    std::string why;
    // The version that the header is of, then others: what is used has not changed since 11.
    for (const char* name : {"libcublasLt.so." SG_TEXT(CUBLAS_VER_MAJOR), "libcublasLt.so.13",
                             "libcublasLt.so.12", "libcublasLt.so"}) {
      handle = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (handle != nullptr) break;
      if (why.empty()) why = dlerror();
    }
    SG_CHECK(handle != nullptr,
             "[matmul] cuBLASLt, which multiplies matrices on GPUs, cannot be loaded: {}; install "
             "libcublas of CUDA {} or put its folder on LD_LIBRARY_PATH",
             why, CUBLAS_VER_MAJOR);
    find(create, "cublasLtCreate");
    find(destroy, "cublasLtDestroy");
    find(text_of, "cublasLtGetStatusString");
    find(make_product, "cublasLtMatmulDescCreate");
    find(destroy_product, "cublasLtMatmulDescDestroy");
    find(set_product, "cublasLtMatmulDescSetAttribute");
    find(make_layout, "cublasLtMatrixLayoutCreate");
    find(destroy_layout, "cublasLtMatrixLayoutDestroy");
    find(set_layout, "cublasLtMatrixLayoutSetAttribute");
    find(make_preference, "cublasLtMatmulPreferenceCreate");
    find(destroy_preference, "cublasLtMatmulPreferenceDestroy");
    find(set_preference, "cublasLtMatmulPreferenceSetAttribute");
    find(heuristic, "cublasLtMatmulAlgoGetHeuristic");
    find(multiply, "cublasLtMatmul");
  }

 private:
  template <class F>
  void find(F& function, const char* name) {
    function = reinterpret_cast<F>(dlsym(handle, name));
    SG_CHECK(function != nullptr,
             "[matmul] the cuBLASLt that was loaded has no {}; install libcublas of CUDA 12 or "
             "later",
             name);
  }
};

const Library& library() {
  static const Library loaded;
  return loaded;
}

void check(cublasStatus_t status, const char* op, const char* call) {
  if (status == CUBLAS_STATUS_SUCCESS) [[likely]]
    return;
  fail("[{}] {} on {}: {}", op, call, where(), library().text_of(status));
}

cudaDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
      return CUDA_R_64F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

// TensorFloat-32 rounds the factors of f32 products to 10 bits: many times faster, and only on
// request.
bool use_tf32() {
  static const bool use = [] {
    const char* text = std::getenv("SHARDGRAD_TF32");
    return text != nullptr && std::string_view(text) == "1";
  }();
  return use;
}

constexpr std::size_t kWorkspace = std::size_t{32} << 20;  // what NVIDIA advises for an H100
constexpr std::uint32_t kAlignment = 16;                   // more serves no kernel

std::int64_t item(DType dtype) { return static_cast<std::int64_t>(size_of(dtype)); }

// What lines and matrices of a batch keep if the first element has it.
std::uint32_t alignment_of(std::int64_t ld, std::int64_t stride, std::int64_t batches,
                           DType dtype) {
  const auto size = item(dtype);
  std::int64_t bytes = kAlignment;
  while (ld * size % bytes != 0 || (batches > 1 && stride * size % bytes != 0)) bytes /= 2;
  return static_cast<std::uint32_t>(bytes);
}

// Frees what the library made, also where an exception passes.
template <class T>
using Owned = std::unique_ptr<T, cublasStatus_t (*)(T*)>;
using Product = Owned<cublasLtMatmulDescOpaque_t>;
using Layout = Owned<cublasLtMatrixLayoutOpaque_t>;
using Preference = Owned<cublasLtMatmulPreferenceOpaque_t>;

}  // namespace

/// A rank's handle, its workspace and the algorithms that it has looked up.
class Blas {
 public:
  explicit Blas(Context& context) : context_(context), workspace_(context.workspace(kWorkspace)) {
    check(library().create(&handle_), "matmul", "cublasLtCreate");
  }
  ~Blas() {
    plans_.clear();
    library().destroy(handle_);
  }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  void multiply(const char* op, Device device, const Gemm& g);

 private:
  // The library's matrices are by columns, so it computes the transpose, out^T = b^T a^T: its A is
  // our b and its B is our a. A matrix by rows is, without a change, its transpose by columns.
  struct Plan {
    Product product{nullptr, nullptr};
    Layout a{nullptr, nullptr}, b{nullptr, nullptr}, out{nullptr, nullptr};
    cublasLtMatmulAlgo_t algorithm{};
    bool adds_bias = false;
  };
  using Key = std::array<std::int64_t, 14>;

  const Plan& plan_of(const char* op, const Gemm& g);
  Plan make_plan(const char* op, const Gemm& g, bool with_bias, bool* found);

  Context& context_;
  cublasLtHandle_t handle_ = nullptr;
  void* const workspace_;
  std::map<Key, Plan> plans_;
};

namespace {

Layout make_layout(const char* op, DType dtype, std::int64_t rows, std::int64_t columns,
                   std::int64_t ld, std::int64_t batches, std::int64_t stride) {
  const Library& l = library();
  cublasLtMatrixLayout_t raw = nullptr;
  check(l.make_layout(&raw, type_of(dtype), static_cast<std::uint64_t>(rows),
                      static_cast<std::uint64_t>(columns), ld),
        op, "cublasLtMatrixLayoutCreate");
  Layout layout(raw, l.destroy_layout);
  if (batches > 1) {
    const auto count = static_cast<std::int32_t>(batches);
    check(l.set_layout(raw, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count), op,
          "cublasLtMatrixLayoutSetAttribute");
    check(l.set_layout(raw, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride, sizeof stride),
          op, "cublasLtMatrixLayoutSetAttribute");
  }
  return layout;
}

// An operand of ours as the library sees it: lines x length, by columns.
Layout make_operand(const char* op, const Gemm& g, const Matrix& x, std::int64_t rows,
                    std::int64_t columns) {
  return x.by_columns ? make_layout(op, g.dtype, rows, columns, x.ld, g.batches, x.stride)
                      : make_layout(op, g.dtype, columns, rows, x.ld, g.batches, x.stride);
}

// Where the bytes of a batch of matrices end: lines of `length`, from the first element.
std::int64_t extent(std::int64_t lines, std::int64_t length, std::int64_t ld, std::int64_t stride,
                    std::int64_t batches) {
  return (batches - 1) * stride + (lines - 1) * ld + length;
}

bool is_aligned(const void* data, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % bytes == 0;
}

}  // namespace

Blas::Plan Blas::make_plan(const char* op, const Gemm& g, bool with_bias, bool* found) {
  const Library& l = library();
  Plan plan;
  plan.adds_bias = with_bias;
  const bool wide = g.dtype == DType::f64;
  const cublasComputeType_t compute = wide ? CUBLAS_COMPUTE_64F
                                      : g.dtype == DType::f32 && use_tf32()
                                          ? CUBLAS_COMPUTE_32F_FAST_TF32
                                          : CUBLAS_COMPUTE_32F;
  cublasLtMatmulDesc_t product = nullptr;
  check(l.make_product(&product, compute, wide ? CUDA_R_64F : CUDA_R_32F), op,
        "cublasLtMatmulDescCreate");
  plan.product = Product(product, l.destroy_product);
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, auto value) {
    check(l.set_product(product, attribute, &value, sizeof value), op,
          "cublasLtMatmulDescSetAttribute");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, g.b.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, g.a.by_columns ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (with_bias) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    // The heuristic looks at the address's alignment, and a plan serves others as well: no more
    // than multiply() guarantees.
    const void* const bias = static_cast<const char*>(workspace_) + kAlignment;
    set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
    set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, static_cast<std::int32_t>(type_of(g.dtype)));
  }
  plan.a = make_operand(op, g, g.b, g.k, g.n);
  plan.b = make_operand(op, g, g.a, g.m, g.k);
  plan.out = make_layout(op, g.out_dtype, g.n, g.m, g.out_ld, g.batches, g.out_stride);

  cublasLtMatmulPreference_t raw = nullptr;
  check(l.make_preference(&raw), op, "cublasLtMatmulPreferenceCreate");
  const Preference preference(raw, l.destroy_preference);
  const auto prefer = [&](cublasLtMatmulPreferenceAttributes_t attribute, auto value) {
    check(l.set_preference(raw, attribute, &value, sizeof value), op,
          "cublasLtMatmulPreferenceSetAttribute");
  };
  prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{kWorkspace});
  // A product whose k is split over blocks keeps its parts, in the type they are computed in, in
  // the workspace, and a second kernel adds them in order. Adding in place would round parts of
  // 16-bit results one after the other.
  prefer(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
         std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
  // Of what the sizes allow, whatever the addresses are: equal problems have equal bits.
  const std::uint32_t of_out = alignment_of(g.out_ld, g.out_stride, g.batches, g.out_dtype);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
         alignment_of(g.b.ld, g.b.stride, g.batches, g.dtype));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
         alignment_of(g.a.ld, g.a.stride, g.batches, g.dtype));
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, of_out);
  prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, of_out);
  cublasLtMatmulHeuristicResult_t result{};
  int count = 0;
  const cublasStatus_t status =
      l.heuristic(handle_, product, plan.a.get(), plan.b.get(), plan.out.get(), plan.out.get(), raw,
                  1, &result, &count);
  *found = status == CUBLAS_STATUS_SUCCESS && count == 1 && result.state == CUBLAS_STATUS_SUCCESS;
  if (!*found && !with_bias)
    fail("[{}] cuBLASLt has no algorithm for {} products of {} [{}, {}] x [{}, {}] on {}: {}", op,
         g.batches, name_of(g.dtype), g.m, g.k, g.k, g.n, where(),
         l.text_of(status == CUBLAS_STATUS_SUCCESS ? CUBLAS_STATUS_NOT_SUPPORTED : status));
  plan.algorithm = result.algo;
  return plan;
}

const Blas::Plan& Blas::plan_of(const char* op, const Gemm& g) {
  const Key key{g.m,
                g.n,
                g.k,
                g.batches,
                g.a.ld,
                g.b.ld,
                g.out_ld,
                g.a.stride,
                g.b.stride,
                g.out_stride,
                static_cast<std::int64_t>(g.dtype),
                static_cast<std::int64_t>(g.out_dtype),
                g.a.by_columns * 2 + g.b.by_columns,
                g.bias != nullptr};
  const auto known = plans_.find(key);
  if (known != plans_.end()) return known->second;
  bool found = false;
  Plan plan = make_plan(op, g, g.bias != nullptr, &found);
  // Then the bias is added afterwards, to values that are rounded in 16-bit dtypes.
  if (!found) plan = make_plan(op, g, false, &found);
  return plans_.emplace(key, std::move(plan)).first->second;
}

void Blas::multiply(const char* op, Device device, const Gemm& g) {
  const Library& l = library();
  const Plan& plan = plan_of(op, g);
  const Scoped kind(current_rank().kind, Kind::buffers);
  const auto bytes_copied = [&](void* to, const void* from, std::int64_t bytes) {
    check(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice,
                          context_.compute()),
          op, "cudaMemcpyAsync");
  };
  // The algorithm counts on alignments that a view into a larger block may not have.
  const auto aligned = [&](const void* data, std::int64_t elements, std::uint32_t bytes,
                           Tensor& copy) {
    if (is_aligned(data, bytes)) return data;
    copy = Tensor::empty({elements * item(g.dtype)}, DType::u8, device);
    bytes_copied(copy.raw_data(), data, copy.bytes());
    return static_cast<const void*>(copy.raw_data());
  };
  const auto operand = [&](const Matrix& x, std::int64_t rows, std::int64_t columns, Tensor& copy) {
    const std::int64_t lines = x.by_columns ? columns : rows,
                       length = x.by_columns ? rows : columns;
    return aligned(x.data, extent(lines, length, x.ld, x.stride, g.batches),
                   alignment_of(x.ld, x.stride, g.batches, g.dtype), copy);
  };
  Tensor copies[4];
  const void* const a = operand(g.b, g.k, g.n, copies[0]);
  const void* const b = operand(g.a, g.m, g.k, copies[1]);
  void* out = g.out;
  if (!is_aligned(out, alignment_of(g.out_ld, g.out_stride, g.batches, g.out_dtype))) {
    const std::int64_t elements = extent(g.m, g.n, g.out_ld, g.out_stride, g.batches);
    copies[2] = Tensor::empty({elements * item(g.out_dtype)}, DType::u8, device);
    out = copies[2].raw_data();
    // Also what lies between the lines of the result comes back.
    if (g.accumulate || elements != g.batches * g.m * g.n)
      bytes_copied(out, g.out, copies[2].bytes());
  }
  if (plan.adds_bias) {
    const void* const bias = aligned(g.bias, g.n, kAlignment, copies[3]);
    check(l.set_product(plan.product.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias),
          op, "cublasLtMatmulDescSetAttribute");
  }
  const double one = 1, zero = 0;
  const float one_f = 1, zero_f = 0;
  const bool wide = g.dtype == DType::f64;
  const void* const alpha = wide ? static_cast<const void*>(&one) : &one_f;
  const void* const beta = g.accumulate ? alpha : wide ? static_cast<const void*>(&zero) : &zero_f;
  check(l.multiply(handle_, plan.product.get(), alpha, a, plan.a.get(), b, plan.b.get(), beta, out,
                   plan.out.get(), out, plan.out.get(), &plan.algorithm, workspace_, kWorkspace,
                   context_.compute()),
        op, "cublasLtMatmul");
  // relu is ours: the library's says nothing of NaN, which it may turn into 0.
  const bool bias_left = g.bias != nullptr && !plan.adds_bias;
  if (bias_left || g.relu)
    bias_relu(on(op, device), g.out_dtype, g.m, g.n, g.out_ld, out, bias_left ? g.bias : nullptr,
              g.relu);
  if (out != g.out) bytes_copied(g.out, out, copies[2].bytes());
}

void gemm(const char* op, Device device, const Gemm& g) {
  Context& c = context(device);
  if (c.blas() == nullptr) c.blas() = std::make_shared<Blas>(c);
  // Kernels count a batch in a grid's z dimension, which ends at 65535.
  constexpr std::int64_t kMost = 65535;
  for (std::int64_t first = 0; first < g.batches; first += kMost) {
    Gemm part = g;
    part.batches = std::min(kMost, g.batches - first);
    const auto shift = [&](const void* data, std::int64_t stride, DType dtype) {
      return static_cast<const char*>(data) + first * stride * item(dtype);
    };
    part.a.data = shift(g.a.data, g.a.stride, g.dtype);
    part.b.data = shift(g.b.data, g.b.stride, g.dtype);
    part.out = static_cast<char*>(g.out) + first * g.out_stride * item(g.out_dtype);
    c.blas()->multiply(op, device, part);
  }
}

}  // namespace sg::cuda

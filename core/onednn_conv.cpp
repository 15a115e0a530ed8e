#include "core/onednn_conv.h"

#if SG_ONEDNN

#include <oneapi/dnnl/dnnl.hpp>

#include <cstring>
#include <string>
#include <unordered_map>

#include "core/parallel.h"
#include "core/tensor.h"

namespace sg::onednn {
namespace {

using dnnl::memory;
using kernels::ConvGeometry;
using Forward = dnnl::convolution_forward;
using BackwardData = dnnl::convolution_backward_data;
using BackwardWeights = dnnl::convolution_backward_weights;

enum class Pass : int { forward, forward_relu, input, weight };

struct Key {
  ConvGeometry geometry;
  Pass pass;
  bool bias;
  int threads;
  bool operator==(const Key&) const = default;
};

struct KeyHash {
  std::size_t operator()(const Key& key) const {
    static_assert(sizeof(ConvGeometry) == 16 * sizeof(std::int64_t), "no padding in the hash");
    std::uint64_t words[16];
    std::memcpy(words, &key.geometry, sizeof words);
    std::uint64_t hash = static_cast<std::uint64_t>(key.threads) * 8 +
                         static_cast<std::uint64_t>(key.pass) * 2 + (key.bias ? 1 : 0);
    for (const std::uint64_t word : words) hash = (hash ^ word) * 0x9E3779B97F4A7C15ull;
    return hash ^ (hash >> 32);
  }
};

// One primitive with the reorder of its weights; memory objects are bound to the buffers of a call.
// `outer` is the weights' plain form, `inner` the form that the primitive chose.
struct Plan {
  dnnl::primitive conv, reorder;
  memory x, y, bias, outer, inner, scratchpad;
  bool reorders = false;
};

dnnl::engine& engine() {
  static dnnl::engine e(dnnl::engine::kind::cpu, 0);
  return e;
}

dnnl::stream& stream() {
  thread_local dnnl::stream s(engine());
  return s;
}

memory::desc dense(const memory::dims& dims, memory::format_tag tag) {
  return memory::desc(dims, memory::data_type::f32, tag);
}

struct Descs {
  memory::desc x, y, bias, any, plain;
  memory::dims stride, dilation, padding_low, padding_high;

  Descs(const ConvGeometry& g, bool with_bias) {
    using tag = memory::format_tag;
    x = dense({g.n, g.c, g.h, g.w}, tag::nhwc);
    y = dense({g.n, g.o, g.oh, g.ow}, tag::nhwc);
    if (with_bias) bias = dense({g.o}, tag::x);
    if (g.groups == 1) {
      any = dense({g.o, g.c, g.kh, g.kw}, tag::any);
      plain = dense({g.o, g.c, g.kh, g.kw}, tag::oihw);
    } else {
      const memory::dims dims{g.groups, g.o / g.groups, g.c / g.groups, g.kh, g.kw};
      any = dense(dims, tag::any);
      plain = dense(dims, tag::goihw);
    }
    stride = {g.sh, g.sw};
    dilation = {g.dh - 1, g.dw - 1};
    padding_low = {g.ph, g.pw};
    // What the output's size leaves of the padding after the last window; negative where rows are
    // left over.
    padding_high = {(g.oh - 1) * g.sh + (g.kh - 1) * g.dh + 1 - g.h - g.ph,
                    (g.ow - 1) * g.sw + (g.kw - 1) * g.dw + 1 - g.w - g.pw};
  }
};

// oneDNN 3 makes a primitive's description in one step, oneDNN 2 from that of an operation.
template <class Primitive, class... Args>
auto description(const dnnl::primitive_attr& attr, const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine(), args..., attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(args...), attr, engine());
#endif
}

// The same of a backward pass, which the forward one's choices guide.
template <class Primitive, class... Args>
auto description(const Forward::primitive_desc& forward, const dnnl::primitive_attr& attr,
                 const Args&... args) {
#if DNNL_VERSION_MAJOR >= 3
  return typename Primitive::primitive_desc(engine(), args..., forward, attr);
#else
  return typename Primitive::primitive_desc(typename Primitive::desc(args...), attr, engine(),
                                            forward);
#endif
}

// Scratchpads are ours, so that they are booked.
dnnl::primitive_attr attributes() {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  return attr;
}

constexpr auto kDirect = dnnl::algorithm::convolution_direct;

Forward::primitive_desc forward_desc(const Descs& d, bool relu) {
  dnnl::primitive_attr attr = attributes();
  if (relu) {
    dnnl::post_ops ops;
#if DNNL_VERSION_MAJOR >= 3
    ops.append_eltwise(dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#else
    ops.append_eltwise(1.0f, dnnl::algorithm::eltwise_relu, 0.0f, 0.0f);
#endif
    attr.set_post_ops(ops);
  }
  // A zero bias descriptor means no bias in both versions.
  return description<Forward>(attr, dnnl::prop_kind::forward_training, kDirect, d.x, d.any, d.bias,
                              d.y, d.stride, d.dilation, d.padding_low, d.padding_high);
}

BackwardData::primitive_desc input_desc(const Descs& d) {
  return description<BackwardData>(forward_desc(d, false), attributes(), kDirect, d.x, d.any, d.y,
                                   d.stride, d.dilation, d.padding_low, d.padding_high);
}

BackwardWeights::primitive_desc weight_desc(const Descs& d) {
  return description<BackwardWeights>(forward_desc(d, false), attributes(), kDirect, d.x, d.any,
                                      d.bias, d.y, d.stride, d.dilation, d.padding_low,
                                      d.padding_high);
}

Plan make_plan(const Key& key) {
  const Descs d(key.geometry, key.bias);
  Plan plan;
  memory::desc chosen, scratchpad;
  if (key.pass == Pass::forward || key.pass == Pass::forward_relu) {
    const auto pd = forward_desc(d, key.pass == Pass::forward_relu);
    plan.conv = Forward(pd);
    chosen = pd.weights_desc();
    scratchpad = pd.scratchpad_desc();
  } else if (key.pass == Pass::input) {
    const auto pd = input_desc(d);
    plan.conv = BackwardData(pd);
    chosen = pd.weights_desc();
    scratchpad = pd.scratchpad_desc();
  } else {
    const auto pd = weight_desc(d);
    plan.conv = BackwardWeights(pd);
    chosen = pd.diff_weights_desc();
    scratchpad = pd.scratchpad_desc();
  }
  const auto unbound = [](const memory::desc& md) { return memory(md, engine(), nullptr); };
  plan.x = unbound(d.x);
  plan.y = unbound(d.y);
  if (key.bias) plan.bias = unbound(d.bias);
  plan.outer = unbound(d.plain);
  plan.inner = unbound(chosen);
  plan.scratchpad = unbound(scratchpad);
  plan.reorders = chosen != d.plain;
  if (plan.reorders) {
    plan.reorder = key.pass == Pass::weight ? dnnl::reorder(plan.inner, plan.outer)
                                            : dnnl::reorder(plan.outer, plan.inner);
  }
  return plan;
}

Plan& plan_for(const ConvGeometry& g, Pass pass, bool bias) {
  const int threads =
      set_library_threads();  // oneDNN asks when a primitive is made and when it runs
  thread_local std::unordered_map<Key, Plan, KeyHash> plans;
  const Key key{g, pass, bias, threads};
  auto it = plans.find(key);
  if (it == plans.end()) {
    try {
      it = plans.emplace(key, make_plan(key)).first;
    } catch (const dnnl::error& error) {
      fail(
          "[conv2d] oneDNN makes no primitive for input [{}, {}, {}, {}], weight [{}, {}, {}, {}], "
          "groups {}: {}",
          g.n, g.c, g.h, g.w, g.o, g.c / g.groups, g.kh, g.kw, g.groups, error.what());
    }
  }
  return it->second;
}

// Bytes for the scratchpad and the reordered weights of one call, booked as buffers.
struct Scratch {
  Tensor weights, pad;

  explicit Scratch(Plan& plan) {
    Scoped kind(current_rank().kind, Kind::buffers);
    const auto bytes = [](const memory& m) {
      return Shape{static_cast<std::int64_t>(m.get_desc().get_size())};
    };
    if (plan.reorders) weights = Tensor::empty(bytes(plan.inner), DType::u8, kCpu);
    if (plan.scratchpad.get_desc().get_size() > 0)
      pad = Tensor::empty(bytes(plan.scratchpad), DType::u8, kCpu);
    plan.scratchpad.set_data_handle(pad.defined() ? pad.raw_data() : nullptr);
  }
};

// oneDNN's handles are not const.
void* handle(const float* pointer) { return const_cast<float*>(pointer); }

}  // namespace

void conv_forward(const ConvGeometry& g, const float* x, const float* weight, const float* bias,
                  float* y, bool relu) {
  Plan& plan = plan_for(g, relu ? Pass::forward_relu : Pass::forward, bias != nullptr);
  const Scratch scratch(plan);
  plan.x.set_data_handle(handle(x));
  plan.y.set_data_handle(y);
  plan.outer.set_data_handle(handle(weight));
  plan.inner.set_data_handle(plan.reorders ? scratch.weights.raw_data() : handle(weight));
  if (plan.reorders)
    plan.reorder.execute(stream(), {{DNNL_ARG_FROM, plan.outer}, {DNNL_ARG_TO, plan.inner}});
  std::unordered_map<int, memory> args{{DNNL_ARG_SRC, plan.x},
                                       {DNNL_ARG_WEIGHTS, plan.inner},
                                       {DNNL_ARG_DST, plan.y},
                                       {DNNL_ARG_SCRATCHPAD, plan.scratchpad}};
  if (bias != nullptr) {
    plan.bias.set_data_handle(handle(bias));
    args.emplace(DNNL_ARG_BIAS, plan.bias);
  }
  plan.conv.execute(stream(), args);
}

void conv_backward_input(const ConvGeometry& g, const float* dy, const float* weight, float* dx) {
  Plan& plan = plan_for(g, Pass::input, false);
  const Scratch scratch(plan);
  plan.x.set_data_handle(dx);
  plan.y.set_data_handle(handle(dy));
  plan.outer.set_data_handle(handle(weight));
  plan.inner.set_data_handle(plan.reorders ? scratch.weights.raw_data() : handle(weight));
  if (plan.reorders)
    plan.reorder.execute(stream(), {{DNNL_ARG_FROM, plan.outer}, {DNNL_ARG_TO, plan.inner}});
  plan.conv.execute(stream(), {{DNNL_ARG_DIFF_SRC, plan.x},
                               {DNNL_ARG_WEIGHTS, plan.inner},
                               {DNNL_ARG_DIFF_DST, plan.y},
                               {DNNL_ARG_SCRATCHPAD, plan.scratchpad}});
}

void conv_backward_weight(const ConvGeometry& g, const float* dy, const float* x, float* dw,
                          float* db) {
  Plan& plan = plan_for(g, Pass::weight, db != nullptr);
  const Scratch scratch(plan);
  plan.x.set_data_handle(handle(x));
  plan.y.set_data_handle(handle(dy));
  plan.outer.set_data_handle(dw);
  plan.inner.set_data_handle(plan.reorders ? scratch.weights.raw_data() : dw);
  std::unordered_map<int, memory> args{{DNNL_ARG_SRC, plan.x},
                                       {DNNL_ARG_DIFF_DST, plan.y},
                                       {DNNL_ARG_DIFF_WEIGHTS, plan.inner},
                                       {DNNL_ARG_SCRATCHPAD, plan.scratchpad}};
  if (db != nullptr) {
    plan.bias.set_data_handle(db);
    args.emplace(DNNL_ARG_DIFF_BIAS, plan.bias);
  }
  plan.conv.execute(stream(), args);
  if (plan.reorders)
    plan.reorder.execute(stream(), {{DNNL_ARG_FROM, plan.inner}, {DNNL_ARG_TO, plan.outer}});
}

}  // namespace sg::onednn

#endif  // SG_ONEDNN

// Reductions of any layout, read where they lie. Two kernels: rows, where the innermost dimension
// is reduced (a team of threads to each result), and columns, where it is kept (a thread to a few
// neighbouring results). Long reductions are cut into pieces; their results, in double, are reduced
// in the same way again.
#include "core/cuda/kernels_reduce.h"

#include "core/cuda/any_dtype.h"
#include "core/cuda/map.h"
#include "core/cuda/reduce_parts.h"

namespace sg::cuda {
namespace {

using kernels::Fold;
using kernels::ReduceDims;
using kernels::ReducePlan;

constexpr std::int64_t kPiece = 1 << 14;        // values that one team folds
constexpr std::int64_t kRows = 32;              // rows, about, that a thread folds at least
constexpr std::int64_t kColumnUnits = 1 << 19;  // columns times pieces that fill any GPU
constexpr int kUnroll = 8;                      // rows that such a thread reads at once

// prepare() comes before any fold; a minimum is the maximum of mirrored values.
struct Sum {
  template <class A>
  SG_HD static constexpr A start() {
    return A(0);
  }
  template <class A>
  SG_HD A prepare(A value, A) const {
    return value;
  }
  template <class A>
  SG_HD A finish(A value) const {
    return value;
  }
  using Op = Plus;
};
struct Squares : Sum {
  template <class A>
  SG_HD A prepare(A value, A centre) const {
    return (value - centre) * (value - centre);
  }
};
struct Extreme {
  bool mirrored;
  template <class A>
  SG_HD static constexpr A start() {
    return lowest<A>();
  }
  template <class A>
  SG_HD A prepare(A value, A) const {
    return finish(value);
  }
  template <class A>
  SG_HD A finish(A value) const {
    if constexpr (std::is_integral_v<A>)
      return mirrored ? ~value : value;
    else
      return mirrored ? -value : value;
  }
  using Op = Larger;
};

struct Result {
  void* data;
  DType dtype;
  double divisor;

  SG_HD void put(std::int64_t i, double value) const { put_value(data, dtype, i, value / divisor); }
  SG_HD void put(std::int64_t i, std::int64_t value) const {
    if (dtype == DType::i64)
      static_cast<std::int64_t*>(data)[i] = value;
    else if (dtype == DType::i32)
      static_cast<std::int32_t*>(data)[i] = static_cast<std::int32_t>(value);
    else
      static_cast<std::uint8_t*>(data)[i] = static_cast<std::uint8_t>(value);
  }
};

SG_HD std::int64_t source(const ReduceDims& dims, std::int64_t index) {
  if (dims.count == 1) return index * dims.from[0];
  std::int64_t from, to;
  locate(dims, index, from, to);
  return from;
}

// Unit (output, piece) folds piece `piece` of what is reduced into result `output`.
template <class T, class Rule>
struct RowFold {
  using N = Near<T>;
  using F = Far<T>;
  static constexpr int kGroup = Pack<T>::kCount;
  static_assert(kPiece % kGroup == 0);
  Rule rule;
  const T* x;
  const double* centre;
  ReducePlan plan;
  std::int64_t length, pieces;
  bool packed;  ///< groups of neighbours lie on 16 bytes
  Result result;

  template <class Team>
  SG_HD void operator()(const Team& team, std::int64_t unit) const {
    std::int64_t output = unit, piece = 0, from, to;
    if (pieces > 1) divide(unit, pieces, output, piece);
    locate(plan.kept, output, from, to);
    const N middle = centre != nullptr ? static_cast<N>(centre[to]) : N(0);
    const std::int64_t start = piece * kPiece,
                       n = length - start < kPiece ? length - start : kPiece;
    const F value = team.template fold<F>(
        Rule::template start<F>(), (n + kGroup - 1) / kGroup,
        [&](std::int64_t g) { return group(from, start + g * kGroup, start + n, middle); },
        typename Rule::Op{});
    if (team.first()) result.put(pieces > 1 ? unit : to, rule.finish(value));
  }

 private:
  SG_HD N group(std::int64_t base, std::int64_t first, std::int64_t end, N middle) const {
    const typename Rule::Op op;
    std::int64_t at = base + source(plan.reduced, first);
    if (packed && first + kGroup <= end) {
      const Pack<T> p = *reinterpret_cast<const Pack<T>*>(x + at);
      N value = rule.prepare(static_cast<N>(p.values[0]), middle);
      for (int j = 1; j < kGroup; ++j)
        value = op(value, rule.prepare(static_cast<N>(p.values[j]), middle));
      return value;
    }
    N value = rule.prepare(static_cast<N>(x[at]), middle);
    for (int j = 1; j < kGroup && first + j < end; ++j) {
      at = base + source(plan.reduced, first + j);
      value = op(value, rule.prepare(static_cast<N>(x[at]), middle));
    }
    return value;
  }
};

// Unit (o, piece, pack): kWide neighbouring columns, of which each is folded over rows piece,
// piece + pieces, ...: the threads of a warp read neighbouring memory however narrow the rows are.
template <class T, class Rule, int kWide>
struct ColumnFold {
  using N = Near<T>;
  using F = Far<T>;
  Rule rule;
  const T* x;
  const double* centre;
  ReduceDims outer, reduced;
  std::int64_t width, column_from, column_to;  ///< strides of columns
  std::int64_t rows, pieces;
  Result result;

  SG_HD void operator()(std::int64_t unit) const {
    const typename Rule::Op op;
    std::int64_t pack, piece = 0, o, from, to;
    divide(unit, width / kWide, o, pack);
    if (pieces > 1) divide(o, pieces, o, piece);
    locate(outer, o, from, to);
    const std::int64_t column = pack * kWide;
    const T* const top = x + from + column * column_from;
    N middle[kWide];
    F total[kWide];
    for (int k = 0; k < kWide; ++k) {
      middle[k] = centre != nullptr ? static_cast<N>(centre[to + (column + k) * column_to]) : N(0);
      total[k] = Rule::template start<F>();
    }
    std::int64_t r = piece;
    for (; r + (kUnroll - 1) * pieces < rows; r += kUnroll * pieces) {
      Values v[kUnroll];
      for (int j = 0; j < kUnroll; ++j) v[j] = load(top, r + j * pieces);
      for (int k = 0; k < kWide; ++k) {
        N near = rule.prepare(static_cast<N>(v[0].values[k]), middle[k]);
        for (int j = 1; j < kUnroll; ++j)
          near = op(near, rule.prepare(static_cast<N>(v[j].values[k]), middle[k]));
        total[k] = op(total[k], static_cast<F>(near));
      }
    }
    for (; r < rows; r += pieces) {
      const Values v = load(top, r);
      for (int k = 0; k < kWide; ++k)
        total[k] =
            op(total[k], static_cast<F>(rule.prepare(static_cast<N>(v.values[k]), middle[k])));
    }
    for (int k = 0; k < kWide; ++k)
      result.put(
          pieces > 1 ? (o * pieces + piece) * width + column + k : to + (column + k) * column_to,
          rule.finish(total[k]));
  }

 private:
  struct alignas(kWide * sizeof(T)) Values {
    T values[kWide];
  };
  SG_HD Values load(const T* top, std::int64_t r) const {
    return *reinterpret_cast<const Values*>(top + source(reduced, r));
  }
};

bool is_integer(DType dtype) {
  return dtype == DType::i64 || dtype == DType::i32 || dtype == DType::u8;
}

// How a reduction is cut. By sizes alone: the bits do not depend on alignment or the device.
struct Cut {
  bool columns;
  std::int64_t outputs, length, pieces;

  explicit Cut(const Reduction& r)
      : columns(!r.plan.inner_reduced && r.plan.kept.count > 0 && !is_integer(r.from)),
        outputs(r.plan.kept.total()),
        length(r.plan.reduced.total()) {
    if (columns)
      pieces =
          std::min((length + kRows - 1) / kRows, std::max<std::int64_t>(kColumnUnits / outputs, 1));
    else
      pieces = (length + kPiece - 1) / kPiece;
  }
};

// What remains when the results of the pieces lie in `partial`: [outputs, pieces] after rows,
// [outer outputs, pieces, width] after columns.
Reduction of_pieces(const Reduction& r, const Cut& cut, const void* partial) {
  Reduction next = r;
  next.x = partial;
  next.from = is_integer(r.from) ? DType::i64 : DType::f64;
  next.centre = nullptr;
  const ReduceDims& kept = r.plan.kept;
  const std::int64_t width = cut.columns ? kept.size[kept.count - 1] : 1;
  next.plan = {};
  next.plan.inner_reduced = !cut.columns;
  next.plan.reduced.append(cut.pieces, width, 0);
  std::int64_t inside = cut.outputs;
  for (int d = 0; d < kept.count; ++d) {
    inside /= kept.size[d];
    const bool is_column = cut.columns && d == kept.count - 1;
    next.plan.kept.append(kept.size[d], is_column ? 1 : inside * cut.pieces, kept.to[d]);
  }
  return next;
}

template <class T>
bool on_packs(const Reduction& r) {
  return reinterpret_cast<std::uintptr_t>(r.x) % sizeof(Pack<T>) == 0;
}

// The first `count` strides of the source keep to whole packs.
template <class T>
bool steps_by_packs(const ReduceDims& dims, int count) {
  for (int d = 0; d < count; ++d)
    if (dims.from[d] % Pack<T>::kCount != 0) return false;
  return true;
}

template <class T, class Rule>
void rows(const Launch& on, const Reduction& r, const Cut& cut, const Rule& rule,
          const Result& result) {
  constexpr int kGroup = Pack<T>::kCount;
  const ReduceDims& reduced = r.plan.reduced;
  const int inner = reduced.count - 1;
  const bool packed = reduced.count > 0 && reduced.from[inner] == 1 && on_packs<T>(r) &&
                      steps_by_packs<T>(r.plan.kept, r.plan.kept.count) &&
                      steps_by_packs<T>(reduced, inner) &&
                      (inner == 0 || reduced.size[inner] % kGroup == 0);
  const RowFold<T, Rule> fold{
      rule, static_cast<const T*>(r.x), r.centre, r.plan, cut.length, cut.pieces, packed, result};
  // A thread alone would read packs far from its neighbours': it gets half as many as elsewhere.
  for_rows(on, cut.outputs * cut.pieces, 2 * ((std::min(cut.length, kPiece) + kGroup - 1) / kGroup),
           fold);
}

template <class T, class Rule, int kWide>
void columns(const Launch& on, const Reduction& r, const Cut& cut, const Rule& rule,
             const Result& result) {
  ReduceDims outer = r.plan.kept;
  const int inner = --outer.count;
  for_each(on, cut.outputs * cut.pieces / kWide,
           ColumnFold<T, Rule, kWide>{rule, static_cast<const T*>(r.x), r.centre, outer,
                                      r.plan.reduced, outer.size[inner], outer.from[inner],
                                      outer.to[inner], cut.length, cut.pieces, result});
}

template <class T, class Rule>
void stage(const Launch& on, const Reduction& r, const Cut& cut, const Rule& rule,
           const Result& result) {
  if constexpr (!std::is_integral_v<T>) {
    if (cut.columns) {
      constexpr int kWide = Pack<T>::kCount;
      const ReduceDims& kept = r.plan.kept;
      const int inner = kept.count - 1;
      if (kept.from[inner] == 1 && kept.size[inner] % kWide == 0 && on_packs<T>(r) &&
          steps_by_packs<T>(kept, inner) && steps_by_packs<T>(r.plan.reduced, r.plan.reduced.count))
        return columns<T, Rule, kWide>(on, r, cut, rule, result);
      return columns<T, Rule, 1>(on, r, cut, rule, result);
    }
  }
  rows<T>(on, r, cut, rule, result);
}

template <class T>
void stage(const Launch& on, const Reduction& r, const Cut& cut, const Result& result) {
  if (r.fold != Fold::sum) return stage<T>(on, r, cut, Extreme{r.fold == Fold::min}, result);
  if constexpr (!std::is_integral_v<T>)
    if (r.centre != nullptr) return stage<T>(on, r, cut, Squares{}, result);
  stage<T>(on, r, cut, Sum{}, result);
}

}  // namespace

std::int64_t reduce_scratch(const Reduction& r) {
  const Cut cut(r);
  if (cut.pieces <= 1) return 0;
  return cut.outputs * cut.pieces + reduce_scratch(of_pieces(r, cut, nullptr));
}

void reduce(const Launch& on, const Reduction& r, void* scratch) {
  const Cut cut(r);
  const bool last = cut.pieces <= 1;
  const DType partial = is_integer(r.from) ? DType::i64 : DType::f64;
  const Result result = last ? Result{r.out, r.to, r.divisor} : Result{scratch, partial, 1.0};
  visit(r.from, [&](auto type) { stage<typename decltype(type)::type>(on, r, cut, result); });
  if (last) return;
  reduce(on, of_pieces(r, cut, scratch),
         static_cast<std::int64_t*>(scratch) + cut.outputs * cut.pieces);
}

}  // namespace sg::cuda

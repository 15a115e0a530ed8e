// Row programs: softmax, layer norm, cross entropy, each written once against a Team, "the workers
// that share one row": one CPU thread (SerialTeam in isa/rows.cpp), or a thread, a warp or a block
// of a GPU (core/cuda/launch.h). A team has
//
//   each(n, f)      f(i) for every i < n, in any order
//   sum<T>(n, f)    the sum of f(i); the same value in every worker
//   max<T>(n, f)    the maximum of f(i), NaN winning
//   first()         true in one worker: who writes what the row has once
//
// T is the type computed in (float for 16-bit values). n is the length of a row. Rows are pointers
// to T, or (capital letters) what is indexed like one and gives or takes values of T.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "core/kernels/math.h"

namespace sg::rows {

namespace math = kernels::math;

/// What indexing a row that is read gives.
template <class Row>
using value_t = std::remove_cvref_t<decltype(std::declval<const Row&>()[0])>;

/// y = exp(x - max) / sum
template <class Team, class X, class Y, class T = value_t<X>>
SG_HD void softmax(const Team& team, X x, Y y, std::int64_t n) {
  const T top = team.template max<T>(n, [&](std::int64_t i) { return x[i]; });
  const T total = team.template sum<T>(n, [&](std::int64_t i) {
    const T e = math::exp(x[i] - top);
    y[i] = e;
    return e;
  });
  const T factor = T(1) / total;
  team.each(n, [&](std::int64_t i) { y[i] = y[i] * factor; });
}

/// The same for a y that is only written: one of 16 bits would be rounded twice, and a GPU computes
/// exp again sooner than it reads y.
template <class Team, class X, class Y, class T = value_t<X>>
SG_HD void softmax_write_once(const Team& team, X x, Y y, std::int64_t n) {
  const T top = team.template max<T>(n, [&](std::int64_t i) { return x[i]; });
  const T factor =
      T(1) / team.template sum<T>(n, [&](std::int64_t i) { return math::exp(x[i] - top); });
  team.each(n, [&](std::int64_t i) { y[i] = math::exp(x[i] - top) * factor; });
}

template <class Team, class X, class Y, class T = value_t<X>>
SG_HD void softmax_grad(const Team& team, X y, X g, Y gx, std::int64_t n) {
  const T dot = team.template sum<T>(n, [&](std::int64_t i) { return g[i] * y[i]; });
  team.each(n, [&](std::int64_t i) { gx[i] = (g[i] - dot) * y[i]; });
}

/// log(sum(exp(x))) in two parts whose sum it is: the maximum, and the rest. Subtracting them one
/// after the other keeps the precision that one rounded number would lose.
template <class T>
struct LogSumExp {
  T top, rest;
};

template <class Team, class X, class T = value_t<X>>
SG_HD LogSumExp<T> log_sum_exp(const Team& team, X x, std::int64_t n) {
  const T top = team.template max<T>(n, [&](std::int64_t i) { return x[i]; });
  const T total = team.template sum<T>(n, [&](std::int64_t i) { return math::exp(x[i] - top); });
  return {top, math::log(total)};
}

template <class Team, class X, class Y, class T = value_t<X>>
SG_HD void log_softmax(const Team& team, X x, Y y, std::int64_t n) {
  const LogSumExp<T> lse = log_sum_exp(team, x, n);
  team.each(n, [&](std::int64_t i) { y[i] = (x[i] - lse.top) - lse.rest; });
}

template <class Team, class X, class Y, class T = value_t<X>>
SG_HD void log_softmax_grad(const Team& team, X y, X g, Y gx, std::int64_t n) {
  const T total = team.template sum<T>(n, [&](std::int64_t i) { return g[i]; });
  team.each(n, [&](std::int64_t i) { gx[i] = g[i] - math::exp(y[i]) * total; });
}

/// y = (x - mean) rstd weight + bias; weight and bias may be null (Ba et al., "Layer
/// normalization", 2016).
template <class Team, class X, class Y, class T>
SG_HD void layer_norm(const Team& team, X x, X weight, X bias, Y y, std::int64_t n, T eps,
                      T* mean_out, T* rstd_out) {
  const T mean = team.template sum<T>(n, [&](std::int64_t i) { return x[i]; }) / T(n);
  const T squares = team.template sum<T>(n, [&](std::int64_t i) {
    const T d = x[i] - mean;
    return d * d;
  });
  const T rstd = T(1) / math::sqrt(squares / T(n) + eps);
  if (weight != nullptr && bias != nullptr)
    team.each(n, [&](std::int64_t i) { y[i] = (x[i] - mean) * rstd * weight[i] + bias[i]; });
  else if (weight != nullptr)
    team.each(n, [&](std::int64_t i) { y[i] = (x[i] - mean) * rstd * weight[i]; });
  else if (bias != nullptr)
    team.each(n, [&](std::int64_t i) { y[i] = (x[i] - mean) * rstd + bias[i]; });
  else
    team.each(n, [&](std::int64_t i) { y[i] = (x[i] - mean) * rstd; });
  if (team.first()) {
    *mean_out = mean;
    *rstd_out = rstd;
  }
}

/// With h = (x - mean) rstd and u = g weight: gx = rstd (u - mean(u) - h mean(u h)).
template <class Team, class X, class Y, class T>
SG_HD void layer_norm_grad(const Team& team, X x, X weight, X g, Y gx, std::int64_t n, T mean,
                           T rstd) {
  const auto run = [&](auto u) {
    const T a = team.template sum<T>(n, [&](std::int64_t i) { return u(i); }) / T(n);
    const T b = team.template sum<T>(n, [&](std::int64_t i) {
      return u(i) * ((x[i] - mean) * rstd);
    }) / T(n);
    team.each(n, [&](std::int64_t i) { gx[i] = rstd * (u(i) - a - ((x[i] - mean) * rstd) * b); });
  };
  if (weight != nullptr)
    run([=](std::int64_t i) { return g[i] * weight[i]; });
  else
    run([=](std::int64_t i) { return g[i]; });
}

/// Loss of a row whose target is class `target`: (1 - s) (lse - x[target]) + s (lse - mean(x)), s
/// the label smoothing.
template <class Team, class X, class T>
SG_HD T cross_entropy(const Team& team, X x, std::int64_t n, std::int64_t target, T smoothing,
                      LogSumExp<T>* kept) {
  const LogSumExp<T> lse = log_sum_exp(team, x, n);
  if (team.first()) *kept = lse;
  const T hit = (lse.top - x[target]) + lse.rest;
  if (smoothing == T(0)) return hit;
  const T all =
      team.template sum<T>(n, [&](std::int64_t i) { return (lse.top - x[i]) + lse.rest; });
  return (T(1) - smoothing) * hit + smoothing * (all / T(n));
}

template <class Team, class X, class Y, class T>
SG_HD void cross_entropy_grad(const Team& team, X x, Y gx, std::int64_t n, std::int64_t target,
                              T smoothing, LogSumExp<T> lse, T scale) {
  const T miss = smoothing / T(n), hit = T(1) - smoothing;
  team.each(n, [&](std::int64_t i) {
    const T p = math::exp((x[i] - lse.top) - lse.rest) - miss;
    gx[i] = scale * (i == target ? p - hit : p);
  });
}

/// Loss against class probabilities t: -sum(t' log_softmax(x)), t' = (1 - s) t + s / n.
template <class Team, class X, class T>
SG_HD T cross_entropy_soft(const Team& team, X x, X t, std::int64_t n, T smoothing,
                           LogSumExp<T>* kept) {
  const LogSumExp<T> lse = log_sum_exp(team, x, n);
  if (team.first()) *kept = lse;
  const T miss = smoothing / T(n), keep = T(1) - smoothing;
  return team.template sum<T>(
      n, [&](std::int64_t i) { return (keep * t[i] + miss) * ((lse.top - x[i]) + lse.rest); });
}

template <class Team, class X, class Y, class T>
SG_HD void cross_entropy_soft_grad(const Team& team, X x, X t, Y gx, std::int64_t n, T smoothing,
                                   LogSumExp<T> lse, T scale) {
  const T miss = smoothing / T(n), keep = T(1) - smoothing;
  const T weight = team.template sum<T>(n, [&](std::int64_t i) { return keep * t[i] + miss; });
  team.each(n, [&](std::int64_t i) {
    gx[i] = scale * (math::exp((x[i] - lse.top) - lse.rest) * weight - (keep * t[i] + miss));
  });
}

}  // namespace sg::rows

// The autograd nodes of core/kernels/elementwise_list.h. The named functions of autograd/ops.h are
// one line each; an op that has no name yet is elementwise<ew::Mish>(x).
#pragma once

#include "autograd/node.h"
#include "core/ops.h"

namespace sg {
namespace detail {

inline Saved save_if(bool wanted, const Tensor& tensor) { return wanted ? Saved(tensor) : Saved(); }

}  // namespace detail

/// Op of the list ew::Unary, with its parameters a and b if it takes some.
template <class Op>
requires(ew::index_of<Op, ew::Unary> >= 0) Var
    elementwise(const Var& x, double a = 0, double b = 0) {
  constexpr unsigned saves = ew::saves_of<Op>();
  const Tensor in = x.value(), out = ops::unary<Op>(in, a, b);
  return record(
      Op::name, {x}, out,
      [x = detail::save_if((saves & ew::kInput) != 0, in),
       y = detail::save_if((saves & ew::kOutput) != 0, out), ab = std::pair(a, b)](Backward& back) {
        if constexpr (requires { Op::df_is_one; })
          back.set(0, back.grad());
        else
          back.set(0, ops::unary_grad<Op>(x.get(), y.get(), back.grad(), ab.first, ab.second));
      });
}

/// Op of the list ew::Binary, with broadcasting.
template <class Op>
requires(ew::index_of<Op, ew::Binary> >= 0) Var elementwise(const Var& a, const Var& b) {
  const Tensor x = a.value(), y = b.value();
  const unsigned saves =
      (a.requires_grad() ? Op::da_saves : 0u) | (b.requires_grad() ? Op::db_saves : 0u);
  return record(Op::name, {a, b}, ops::binary<Op>(x, y),
                [x = detail::save_if((saves & ew::kFirst) != 0, x),
                 y = detail::save_if((saves & ew::kSecond) != 0, y)](Backward& back) {
                  if (back.needs(0)) {
                    if constexpr (requires { Op::da_is_one; })
                      back.set(0, back.grad());
                    else
                      back.set(0, ops::binary_grad<Op>(true, x.get(), y.get(), back.grad()));
                  }
                  if (back.needs(1)) {
                    if constexpr (requires { Op::db_is_one; })
                      back.set(1, back.grad());
                    else
                      back.set(1, ops::binary_grad<Op>(false, x.get(), y.get(), back.grad()));
                  }
                });
}

}  // namespace sg

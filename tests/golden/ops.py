"""Golden values of every op, from PyTorch in double: outputs and gradients. Inputs are exact in bfloat16, so that the
same values serve every dtype. Writes data/ops.json; and data/cast.json, whose values do not fit the dtype they are
cast to.

    python tests/golden/ops.py
"""
import json
import os

import torch
import torch.nn.functional as F

torch.manual_seed(0)
cases = []


def draw(*shape, low=-3.0, high=3.0):
    """Multiples of 1/16 below 8: at most 7 significant bits. No two neighbours of a kink are hit by accident."""
    x = torch.rand(shape, dtype=torch.float64) * (high - low) + low
    return (torch.round(x * 16) / 16).clamp(low, high)


def pack(t):
    if t is None:
        return None
    return {"shape": list(t.shape), "data": t.detach().reshape(-1).tolist()}


def case(op, fn, inputs, extra=None, **args):
    """fn(*inputs) must be what the C++ side computes for (op, args). `extra` are inputs without gradient (indices)."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = fn(*leaves)
    seed = draw(*y.shape)
    y.backward(seed)
    cases.append({
        "op": op, "args": args, "inputs": [pack(x) for x in inputs], "extra": pack(extra), "output": pack(y),
        "seed": pack(seed), "grads": [pack(x.grad if x.grad is not None else torch.zeros_like(x)) for x in leaves]})


# ---- elementwise, by the names of core/kernels/elementwise_list.h
UNARY = {
    "neg": torch.neg, "abs": torch.abs, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "rsqrt": torch.rsqrt,
    "square": torch.square, "reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos, "tanh": torch.tanh,
    "erf": torch.erf, "sigmoid": torch.sigmoid, "relu": F.relu, "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "softplus": F.softplus, "elu": F.elu,
}
POSITIVE = {"log", "sqrt", "rsqrt", "reciprocal", "pow"}
for name, fn in UNARY.items():
    low = 0.25 if name in POSITIVE else -3.0
    case(name, fn, [draw(5, 7, low=low)])
    if name not in POSITIVE and name != "abs":
        case(name, fn, [torch.tensor([0.0, -0.0, 0.5, -0.5, 7.5, -7.5, 30.0, -30.0], dtype=torch.float64)])
case("abs", torch.abs, [torch.tensor([0.0, 1.0, -1.0], dtype=torch.float64)])
case("leaky_relu", lambda x: F.leaky_relu(x, 0.125), [draw(5, 7)], a=0.125, b=0)
for exponent in (0.0, 0.5, 1.0, 2.0, 2.5, 3.0, -1.5):
    case("pow", lambda x: torch.pow(x, exponent), [draw(3, 5, low=0.25)], a=exponent, b=0)
case("pow", lambda x: torch.pow(x, 2.0), [draw(3, 5)], a=2.0, b=0)
case("clamp", lambda x: torch.clamp(x, -1.0, 1.5),
     [torch.cat([draw(20), torch.tensor([-1.0, 1.5], dtype=torch.float64)])], a=-1.0, b=1.5)
case("add_scalar", lambda x: x + 1.25, [draw(4)], a=1.25, b=0)
case("mul_scalar", lambda x: x * -0.75, [draw(4)], a=-0.75, b=0)

BINARY = {"add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
          "minimum": torch.minimum}
SHAPES = [((4, 5), (4, 5)), ((4, 5), (5,)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 3), (4, 1)), ((1,), (1,))]
for name, fn in BINARY.items():
    for sa, sb in SHAPES:
        b = draw(*sb, low=0.25) if name == "div" else draw(*sb)
        case(name, fn, [draw(*sa), b])
tie = torch.tensor([1.0, 2.0, -1.0, 0.0], dtype=torch.float64)
for name in ("maximum", "minimum"):
    case(name, BINARY[name], [tie, torch.tensor([1.0, 3.0, -2.0, 0.0], dtype=torch.float64)])
condition = torch.tensor([[1, 0, 1], [0, 0, 1]])
case("where", lambda a, b: torch.where(condition.bool(), a, b), [draw(2, 3), draw(3)], extra=condition)

# ---- reductions
for dims in ([], [0], [1], [-1], [0, 2], [1, 2]):
    for keep in (False, True):
        d = dims or [0, 1, 2]
        case("sum", lambda x: x.sum(d, keepdim=keep), [draw(3, 4, 5)], dims=dims, keep=keep)
        case("mean", lambda x: x.mean(d, keepdim=keep), [draw(3, 4, 5)], dims=dims, keep=keep)
        case("amax", lambda x: x.amax(d, keepdim=keep), [draw(3, 4, 5)], dims=dims, keep=keep)
        case("amin", lambda x: x.amin(d, keepdim=keep), [draw(3, 4, 5)], dims=dims, keep=keep)
    for correction in (0, 1):
        case("var", lambda x: x.var(d, correction=correction), [draw(3, 4, 5)], dims=dims, keep=False,
             correction=correction)
case("amax", lambda x: x.amax([1]), [torch.tensor([[1.0, 2.0, 2.0], [3.0, 3.0, 3.0]], dtype=torch.float64)],
     dims=[1], keep=False)

# ---- matrix products
for sa, sb in [((4, 3), (3, 5)), ((1, 1), (1, 1)), ((3,), (3,)), ((3,), (3, 2)), ((2, 3), (3,)), ((2, 4, 3), (2, 3, 5)),
               ((2, 4, 3), (3, 5)), ((4, 3), (2, 3, 5)), ((2, 1, 4, 3), (3, 3, 2)), ((17, 33), (33, 19)),
               ((3,), (2, 3, 4)), ((2, 4, 3), (3,))]:
    case("matmul", torch.matmul, [draw(*sa, low=-1, high=1), draw(*sb, low=-1, high=1)])
for lead in ((4,), (2, 3), ()):
    for bias in (False, True):
        for relu in (False, True):
            fn = (lambda x, w, b=None: F.relu(F.linear(x, w, b))) if relu else F.linear
            case("linear", fn, [draw(*lead, 6), draw(5, 6, low=-1, high=1)] + ([draw(5)] if bias else []), relu=relu)

# ---- shape
case("reshape", lambda x: x.reshape(6, 4), [draw(2, 3, 4)], shape=[6, 4])
case("flatten", lambda x: x.flatten(1), [draw(2, 3, 4)], start=1)
case("transpose", lambda x: x.transpose(0, 2), [draw(2, 3, 4)], a=0, b=2)
case("permute", lambda x: x.permute(2, 0, 1), [draw(2, 3, 4)], order=[2, 0, 1])
case("expand", lambda x: x.expand(2, 3, 4), [draw(3, 1)], shape=[2, 3, 4])
case("slice", lambda x: x[:, 1:6:2], [draw(3, 7)], dim=1, start=1, length=3, step=2)
case("select", lambda x: x[:, -2], [draw(3, 4, 2)], dim=1, index=-2)
case("cat", lambda *x: torch.cat(x, 1), [draw(2, 3), draw(2, 1), draw(2, 2)], dim=1)
case("stack", lambda *x: torch.stack(x, 1), [draw(2, 3), draw(2, 3)], dim=1)
case("pad", lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), [draw(2, 3, 2)], widths=[1, 2, 0, 3], value=0.5)
case("pad", lambda x: F.pad(x, (-1, 2)), [draw(2, 4)], widths=[-1, 2], value=0)

# ---- rows
for dim in (0, 1, 2, -1):
    case("softmax", lambda x: F.softmax(x, dim), [draw(3, 4, 5)], dim=dim)
    case("log_softmax", lambda x: F.log_softmax(x, dim), [draw(3, 4, 5)], dim=dim)
case("softmax", lambda x: F.softmax(x, 1), [draw(2, 37) * 16], dim=1)
case("log_softmax", lambda x: F.log_softmax(x, 1), [draw(2, 37) * 16], dim=1)
for shape, normalized in (((4, 6), [6]), ((2, 3, 4), [3, 4]), ((3, 50), [50])):
    w, b = draw(*normalized), draw(*normalized)
    case("layer_norm", lambda x, w, b: F.layer_norm(x, normalized, w, b), [draw(*shape), w, b], normalized=normalized)
    case("layer_norm", lambda x: F.layer_norm(x, normalized), [draw(*shape)], normalized=normalized)
indices = torch.tensor([[1, 4, 0], [4, 4, 2]])
for padding in (-1, 4):
    case("embedding", lambda w: F.embedding(indices, w, padding_idx=None if padding < 0 else padding), [draw(5, 3)],
         extra=indices, padding=padding)

# ---- losses
targets, spatial = torch.tensor([2, 0, -100, 4]), torch.tensor([[1, 2, 0], [2, -100, 1]])
for reduction in ("none", "sum", "mean"):
    for smoothing in (0.0, 0.125):
        kw = dict(reduction=reduction, label_smoothing=smoothing)
        case("cross_entropy", lambda x: F.cross_entropy(x, targets, **kw), [draw(4, 5)], extra=targets, **kw)
        case("cross_entropy", lambda x: F.cross_entropy(x, spatial, **kw), [draw(2, 3, 3)], extra=spatial, **kw)
        soft = torch.tensor([[0.25, 0.5, 0.25], [0.0, 1.0, 0.0]], dtype=torch.float64)
        case("cross_entropy", lambda x: F.cross_entropy(x, soft, **kw), [draw(2, 3)], extra=soft, soft=True, **kw)
    case("mse_loss", lambda x, t: F.mse_loss(x, t, reduction=reduction), [draw(3, 4), draw(3, 4)], reduction=reduction)
case("cross_entropy", lambda x: F.cross_entropy(x, torch.tensor(1)), [draw(3)], extra=torch.tensor(1),
     reduction="mean", label_smoothing=0.0)
case("cross_entropy", lambda x: F.cross_entropy(x, torch.tensor([2, 0])), [draw(2, 40) * 16],
     extra=torch.tensor([2, 0]), reduction="mean", label_smoothing=0.0)

# ---- shape and dtype, continued (new cases come last: each draws from the generator, and those above must stay)
for shape, dim in (((3, 4), 0), ((3, 4), 1), ((3, 4), 2), ((3, 4), -1), ((), 0), ((2, 3, 4), -3)):
    case("unsqueeze", lambda x: x.unsqueeze(dim), [draw(*shape)], dim=dim)
for shape, dim in (((1, 3, 4), 0), ((3, 1, 4), 1), ((3, 4, 1), -1), ((1,), 0), ((2, 1, 3, 1), -3)):
    case("squeeze", lambda x: x.squeeze(dim), [draw(*shape)], dim=dim)
for shape in ((3, 4), (2, 3, 4, 5), (), (1, 6)):
    case("contiguous", lambda x: x.contiguous(), [draw(*shape)])
case("contiguous", lambda x: x.transpose(0, 2).contiguous(), [draw(2, 3, 4)], a=0, b=2)
case("cast", lambda x: x.to(torch.float32).to(torch.float64), [draw(3, 5)], to="f32")
case("cast", lambda x: x.to(torch.float64), [draw(3, 5)], to="f64")

# Casts that round (ties to even), lose digits or leave the range of normal numbers, there and back for the gradient.
DTYPES = {"f64": torch.float64, "f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
casts = []
for name, dtype in DTYPES.items():
    for to, target in DTYPES.items():
        x = torch.cat([draw(8) / 3, draw(4) * 1e-6, draw(4) * 20000, 1 + torch.arange(8, dtype=torch.float64) / 2**9,
                       1 + torch.arange(8, dtype=torch.float64) / 2**12]).to(dtype).requires_grad_()
        y = x.to(target)
        seed = (draw(32) / 7).to(target)
        y.backward(seed)
        casts.append({"from": name, "to": to, "input": pack(x), "output": pack(y), "seed": pack(seed),
                      "grad": pack(x.grad)})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "cast.json"), "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in casts) + "\n]\n")

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "ops.json")
with open(path, "w") as f:
    f.write("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
print(f"{len(cases)} cases, {os.path.getsize(path)} bytes, PyTorch {torch.__version__}")

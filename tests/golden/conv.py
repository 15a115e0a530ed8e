"""Golden values of convolution, pooling and batch normalisation, from PyTorch in double: outputs and gradients. Inputs are
exact in bfloat16, so that the same values serve every dtype. Writes data/conv.json, in the format of ops.json.

    python tests/golden/conv.py
"""
import json
import os

import torch
import torch.nn.functional as F

torch.manual_seed(0)
cases = []


def draw(*shape, low=-2.0, high=2.0, step=16):
    """Multiples of 1/step: at most 7 significant bits, and equal neighbours now and then."""
    x = torch.rand(shape, dtype=torch.float64) * (high - low) + low
    return torch.round(x * step) / step


def pack(t):
    return {"shape": list(t.shape), "data": t.detach().reshape(-1).tolist()}


def case(op, fn, inputs, **args):
    leaves = [x.clone().requires_grad_() for x in inputs]
    y = fn(*leaves)
    seed = draw(*y.shape)
    y.backward(seed)
    cases.append({"op": op, "args": args, "inputs": [pack(x) for x in inputs], "extra": None, "output": pack(y),
                  "seed": pack(seed), "grads": [pack(x.grad) for x in leaves]})


def conv(x, w, bias=True, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, relu=False, pool=False):
    def fn(x, w, b=None):
        y = F.conv2d(x, w, b, stride, padding, dilation, groups)
        y = F.relu(y) if relu or pool else y
        return F.max_pool2d(y, 2) if pool else y

    inputs = [draw(*x), draw(*w, low=-1.0, high=1.0)] + ([draw(w[0])] if bias else [])
    case("conv2d_relu_max_pool2d" if pool else "conv2d", fn, inputs, stride=stride, padding=padding, dilation=dilation,
         groups=groups, relu=relu)


conv((2, 3, 6, 7), (4, 3, 3, 3))
conv((2, 3, 6, 7), (4, 3, 3, 3), bias=False, padding=(1, 1), relu=True)
conv((1, 4, 7, 8), (6, 4, 3, 2), stride=(2, 3), padding=(1, 0))
conv((1, 4, 9, 9), (4, 4, 3, 3), stride=(2, 1), padding=(2, 1), dilation=(2, 3))
conv((2, 6, 5, 5), (4, 3, 3, 3), padding=(1, 1), groups=2)
conv((2, 4, 5, 5), (8, 1, 3, 3), padding=(1, 1), groups=4, relu=True)
conv((1, 5, 4, 4), (7, 5, 1, 1), stride=(2, 2))
conv((1, 16, 6, 5), (16, 16, 3, 3), padding=(1, 1))
conv((1, 16, 5, 5), (32, 16, 3, 3), stride=(2, 2), padding=(1, 1), bias=False)
conv((2, 3, 12, 14), (6, 3, 5, 5), relu=True)
conv((2, 3, 10, 12), (6, 3, 5, 5), pool=True)
conv((1, 6, 8, 8), (16, 6, 5, 5), pool=True)
conv((1, 16, 5, 6), (16, 16, 3, 3), padding=(1, 1), pool=True)
conv((1, 4, 7, 6), (5, 4, 2, 3), padding=(1, 1), pool=True, bias=False)


def max_pool(x, kernel, stride=None, padding=(0, 0)):
    # Few different values: most windows hold their maximum more than once.
    case("max_pool2d", lambda x: F.max_pool2d(x, kernel, stride, padding), [draw(*x, step=2)], kernel=kernel,
         stride=stride or (0, 0), padding=padding)


max_pool((2, 3, 6, 8), (2, 2))
max_pool((1, 17, 5, 7), (2, 2))
max_pool((2, 3, 7, 8), (3, 3), (2, 2), (1, 1))
max_pool((1, 2, 6, 9), (3, 2), (1, 3), (1, 0))
max_pool((1, 20, 5, 5), (3, 3), (1, 1))
max_pool((1, 2, 18, 17), (17, 17), (1, 1))


def avg_pool(x, kernel, stride=None, padding=(0, 0)):
    case("avg_pool2d", lambda x: F.avg_pool2d(x, kernel, stride, padding), [draw(*x)], kernel=kernel,
         stride=stride or (0, 0), padding=padding)


avg_pool((2, 3, 6, 8), (2, 2))
avg_pool((1, 18, 7, 8), (3, 3), (2, 2), (1, 1))
avg_pool((1, 2, 6, 9), (3, 2), (1, 3), (1, 0))
case("global_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 1), [draw(2, 19, 4, 5)])


def batch_norm(x, training, relu=False, affine=True, momentum=0.1, eps=1e-5):
    channels = x[1]
    mean, var = draw(channels), draw(channels, low=0.25)
    before = {"running_mean": mean.tolist(), "running_var": var.tolist()}

    def fn(x, w=None, b=None):
        y = F.batch_norm(x, mean, var, w, b, training, momentum, eps)
        return F.relu(y) if relu else y

    inputs = [draw(*x)] + ([draw(channels), draw(channels)] if affine else [])
    case("batch_norm", fn, inputs, training=training, relu=relu, momentum=momentum, eps=eps, **before)
    cases[-1]["args"] |= {"mean_after": mean.tolist(), "var_after": var.tolist()}


batch_norm((3, 5, 4, 3), True)
batch_norm((2, 19, 3, 5), True, relu=True)
batch_norm((2, 16, 4, 4), True, momentum=0.25, eps=1e-3)
batch_norm((7, 6), True, relu=True)
batch_norm((3, 5, 4, 3), False, relu=True)
batch_norm((7, 6), False)
batch_norm((3, 4, 4, 3), True, affine=False)

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data", "conv.json")
with open(path, "w") as f:
    json.dump(cases, f, separators=(",", ":"))
print(f"{len(cases)} cases, {os.path.getsize(path)} bytes")

#!/usr/bin/env python3
"""Writes tests/golden/data/train_losses.json: PyTorch's losses over ten training steps.

    python tests/golden/train_losses.py [--data FOLDER]

FOLDER (or $SHARDGRAD_DATA) holds CIFAR-10's binary files or cifar-10-batches-bin/.

For each net (tutorial, mlp, vgg, resnet20; names and layouts as in `cifar --net`) and each data
set: batch 32, samples in order (step s reads samples 32 s to 32 s + 31), mean cross-entropy, Adam
(lr 1e-3, betas 0.9 and 0.999, eps 1e-8), batch norm in training mode. "loss" is that before the
update of the step, "grad_norm" the 2-norm of all gradients of that step, summed in double.

Nothing large is stored: weights and images are integer hashes, exactly these.

    fnv1a(s):       h = 0xcbf29ce484222325; for each byte: h = (h ^ byte) * 0x100000001b3
    splitmix64(x):  z = x + 0x9e3779b97f4a7c15
                    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9
                    z = (z ^ (z >> 27)) * 0x94d049bb133111eb
                    z ^ (z >> 31)
    hash(s, i):     splitmix64(fnv1a(s) + i)                          (all modulo 2^64)

    Weights and biases of convolutions and linear layers, element i in row-major order:
        u = (hash(name + "@" + seed, i) >> 11) * 2^-53                (double, in [0, 1))
        float((2 u - 1) * (1 / sqrt(fan_in)))                         (double until the float())
      name as in the state dict, seed the number in the file, in decimals
      ("layer2.0.downsample.0.weight@0"); fan_in = in_channels * kernel
      height * kernel width, or in_features, the bias taking that of its weight. In f64 these
      floats are widened. Batch norm: weight 1, bias 0, as PyTorch's default.

    Data set "hashed", sample n, channel c, row y, column x:
        label = hash("label", n) mod 10
        shown = hash("swap", n) mod 4 == 0 ? hash("other", n) mod 10 : label
        noise = hash("image", 3072 n + 1024 c + 32 y + x) >> 56
        pattern = hash("pattern", 48 shown + 16 c + 4 floor(y/8) + floor(x/8)) >> 56
        byte = floor((pattern + noise) / 2)
    Data set "real": data_batch_1.bin in the file's own order.
    Either way a pixel is (byte / 255 - 0.5) / 0.5 in double, then rounded to the net's dtype.

"probe" in the file holds a few values of these formulas, for an implementation to check itself.
"spread" is how far PyTorch's own losses lie apart, "norm_spread" its norms (element s: largest
relative difference over steps 0 to s): contiguous and channels-last, one thread and two, and, for
f32, f32 and f64, and NUDGED runs whose initial weights each went up or down by NUDGE, a few places
in the last bit, as other algorithms (Winograd's, say) round products of them. No other implementation can be held to less. A
pre-activation that rounding moves over zero switches a ReLU and, as Adam's first steps do not
depend on a gradient's size, changes whole rows of weights: with most initial weights the spread of
vgg is above 1e-4, that of mlp with some above 1e-3. So the file takes for each net and data set the
first seed of 0 to SEEDS - 1 whose f32 spread is at most ENOUGH, or that with the smallest. For
resnet20 it is 1e-3 and more whatever the seed: seed 0, to be compared in f64.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bench" / "pytorch"))
import cifar_data
import nets

OUT = ROOT / "tests" / "golden" / "data" / "train_losses.json"
BATCH, STEPS = 32, 10
NUDGED, NUDGE, SEEDS, ENOUGH = 6, 2.0**-21, 24, 2.5e-5


def uniform(name, count, fan_in):
    u = (cifar_data.hashes(name, 0, count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return ((2.0 * u - 1.0) * (1.0 / math.sqrt(fan_in))).astype(np.float32)


def set_weights(net, seed):
    """Overwrites the weights and biases of convolutions and linear layers by the formula."""
    with torch.no_grad():
        for prefix, module in net.named_modules():
            if not isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                continue
            fan_in = module.weight[0].numel()
            for leaf, parameter in module.named_parameters():
                values = uniform(f"{prefix}.{leaf}@{seed}", parameter.numel(), fan_in)
                parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))


def nudge(net, draw):
    """Moves every parameter up or down by NUDGE of itself."""
    random = torch.Generator().manual_seed(draw)
    with torch.no_grad():
        for p in net.parameters():
            up = torch.rand(p.shape, generator=random) < 0.5
            p.mul_(torch.where(up, 1 + NUDGE, 1 - NUDGE))


def train(name, seed, images, labels, dtype, channels_last=False, threads=1, nudged=None):
    torch.set_num_threads(threads)
    net = nets.make(name)
    set_weights(net, seed)
    if nudged is not None:
        nudge(net, nudged)
    net = net.to(dtype)
    numpy_dtype = np.float32 if dtype == torch.float32 else np.float64
    x = torch.from_numpy(cifar_data.normalise(images, numpy_dtype))
    y = torch.from_numpy(labels)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses, norms = [], []
    for step in range(STEPS):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        adam.zero_grad()
        loss = F.cross_entropy(net(x[rows]), y[rows])
        loss.backward()
        squares = sum(p.grad.double().square().sum().item() for p in net.parameters())
        adam.step()
        losses.append(loss.item())
        norms.append(math.sqrt(squares))
    return {"loss": losses, "grad_norm": norms}


def spread(base, others, key):
    apart = [[abs(a - b) / abs(a) for a, b in zip(base[key], other[key])] for other in others]
    steps = [max(step) for step in zip(*apart)]
    return [max(steps[: s + 1]) for s in range(len(steps))]


def record(name, seed, samples, dtype, others=(), bound=math.inf):
    """Losses, norms and their spreads; None as soon as the losses' spread is seen to reach bound."""
    args = (name, seed, *samples, dtype)
    base = train(*args)
    others = list(others)
    runs = [dict(channels_last=True), dict(threads=2)]
    if dtype == torch.float32:
        runs += [dict(nudged=draw) for draw in range(NUDGED)]
    for run in runs:
        others.append(train(*args, **run))
        if spread(base, others, "loss")[-1] >= bound:
            return None
    for key, of in (("spread", "loss"), ("norm_spread", "grad_norm")):
        base[key] = spread(base, others, of)
    return base


def choose(name, samples):
    """The record of the first seed whose f32 spread is small, or of that with the smallest."""
    best, bound = None, math.inf
    for seed in range(SEEDS):
        f64 = train(name, seed, *samples, torch.float64)
        f32 = record(name, seed, samples, torch.float32, [f64], bound)
        if f32 is not None:
            best, bound = {"seed": seed, "f64": None, "f32": f32}, f32["spread"][-1]
            print(f"{name}@{seed}: f32 spread {bound:.1e}", flush=True)
        if bound <= ENOUGH or name == "resnet20":
            break
    best["f64"] = record(name, best["seed"], samples, torch.float64)
    return best


def probe(images, labels):
    first = lambda name, fan_in: [float(v) for v in uniform(name, 4, fan_in)]
    return {
        "fnv1a(conv1.weight@0)": f"{cifar_data.fnv1a('conv1.weight@0'):016x}",
        "hash(conv1.weight@0, 0)": f"{int(cifar_data.hashes('conv1.weight@0', 0, 1)[0]):016x}",
        "first 4 of conv1.weight@0, fan_in 75": first("conv1.weight@0", 75),
        "first 4 of fc3.bias@0, fan_in 84": first("fc3.bias@0", 84),
        "hashed labels, first 16": labels[:16].tolist(),
        "hashed image 0, first 16 bytes": images[0].ravel()[:16].tolist(),
        "hashed image 319, last 16 bytes": images[319].ravel()[-16:].tolist(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default=os.environ.get("SHARDGRAD_DATA"))
    args = parser.parse_args()
    if not args.data:
        parser.error("give --data FOLDER (or SHARDGRAD_DATA) with CIFAR-10's binary files")

    hashed = cifar_data.hashed_batch(0, BATCH * STEPS)
    sets = {"hashed": hashed, "real": cifar_data.read_batch(args.data, 0, BATCH * STEPS)}
    result = {
        "about": "made by tests/golden/train_losses.py, which states the formulas",
        "torch": torch.__version__,
        "batch": BATCH,
        "steps": STEPS,
        "adam": {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8},
        "probe": probe(*hashed),
        "nets": {},
    }
    for name in nets.NETS:
        result["nets"][name] = {}
        for key, samples in sets.items():
            chosen = choose(name, samples)
            result["nets"][name][key] = chosen
            for dtype in ("f32", "f64"):
                losses = " ".join(f"{v:.6f}" for v in chosen[dtype]["loss"])
                print(f"  {key} {dtype} spread {chosen[dtype]['spread'][-1]:.1e}: {losses}")
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {OUT.relative_to(ROOT)}, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()

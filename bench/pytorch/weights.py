"""Initial weights for a loss comparison, saved by PyTorch as safetensors.

    python weights.py NET BATCH STEPS DATA OUT

Rounding alone can move a pre-activation over zero, which switches a ReLU, and Adam's first steps
turn the smallest gradient into a full one: PyTorch's losses then differ from its own in another
memory format by more than 1e-4 (vgg: in about half of the initialisations). A check at 1e-4
would test luck. So this takes the first of eight seeds of PyTorch's default initialisation at which
PyTorch agrees with itself (contiguous, channels-last, f64) within 3e-5 over the steps, or the one
with the smallest difference, and prints {"seed": .., "spread": ..}.
"""

import json
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import cifar_data
import nets


def losses(name, seed, x, y, batch, channels_last=False):
    net = nets.make(name, seed).to(x.dtype)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    out = []
    for i in range(0, len(y), batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x[i : i + batch]), y[i : i + batch])
        loss.backward()
        optimizer.step()
        out.append(loss.item())
    return out


def main():
    name, batch, steps, data, out = sys.argv[1:]
    batch, steps = int(batch), int(steps)
    images, labels = cifar_data.read_batch(data, 0, batch * steps)
    y = torch.from_numpy(labels)
    x = torch.from_numpy(cifar_data.normalise(images))
    x64 = torch.from_numpy(cifar_data.normalise(images, "float64"))
    best = (float("inf"), 0)
    for seed in range(8):
        base = losses(name, seed, x, y, batch)
        others = [losses(name, seed, x64, y, batch), losses(name, seed, x, y, batch, True)]
        spread = max(abs(a - b) / abs(a) for other in others for a, b in zip(base, other))
        best = min(best, (spread, seed))
        if spread <= 3e-5:
            break
    save_file(nets.make(name, best[1]).state_dict(), out)
    print(json.dumps({"seed": best[1], "spread": best[0]}))


if __name__ == "__main__":
    main()

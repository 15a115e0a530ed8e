"""Writes data/normalize.bin: what PyTorch makes of the bytes 0 to 255 with torchvision's ToTensor and Normalize
(x.to(float32).div(255), then sub_(mean).div_(std)), for four (mean, std) in float32 and then float64, little-endian."""

import pathlib

import numpy as np
import torch

SETTINGS = [(0.5, 0.5), (0.0, 1.0), (0.4914, 0.2470), (0.1307, 0.3081)]

parts = []
for dtype in (torch.float32, torch.float64):
    pixels = torch.arange(256, dtype=torch.uint8).to(dtype).div(255)
    for mean, std in SETTINGS:
        values = pixels.clone().sub_(torch.tensor(mean, dtype=dtype)).div_(torch.tensor(std, dtype=dtype))
        parts.append(np.ascontiguousarray(values.numpy()).tobytes())
path = pathlib.Path(__file__).parent / "data" / "normalize.bin"
path.write_bytes(b"".join(parts))

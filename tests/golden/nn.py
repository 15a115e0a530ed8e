#!/usr/bin/env python3
"""Writes the golden values of the room nn and of core/safetensors, made by PyTorch:

    python tests/golden/nn.py            writes data/nn_layers.safetensors, data/nn_nets.json, data/safetensors.safetensors
    python tests/golden/nn.py FILE       loads FILE, written by `core_test` (see below), and compares it with those values

data/safetensors.safetensors is what PyTorch's `safetensors` writes of SAFETENSORS. The C++ test reads it, and writes the
same tensors: the bytes must be equal, so what we write is what that package reads. To see it read one of ours:

    SG_KEEP_SAFETENSORS=/tmp/ours.safetensors core_test --gtest_filter='Safetensors.WritesTheBytesThatPyTorchWrites'
    python tests/golden/nn.py /tmp/ours.safetensors

data/nn_layers.safetensors, in f64, has for each layer of LAYERS: "<layer>/x0" (and x1), "<layer>/y", "<layer>/dy" (the
gradient fed in), "<layer>/dx0" if x0 is floating, "<layer>/parameter/<name>" and "<layer>/gradient/<name>" for each
parameter, "<layer>/start/<name>" and "<layer>/buffer/<name>" for each buffer before and after the forward.

data/nn_nets.json has the state dict's names and shapes of the four example networks, in PyTorch's order.
"""
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "golden" / "data"
sys.path.insert(0, str(ROOT / "bench" / "pytorch"))
import nets  # noqa: E402


def counted(dtype, *shape):
    """Element i is (i - 3) / 2 in floating dtypes, exact in all of them; i, -100000 i or 2^40 i - 5 in integers."""
    i = torch.arange(torch.Size(shape).numel())
    values = {torch.uint8: i, torch.int32: -100000 * i, torch.int64: 2**40 * i - 5}
    return values.get(dtype, (i - 3) / 2).to(dtype).reshape(shape)


SAFETENSORS = {
    "double": counted(torch.float64, 3),
    "weight": counted(torch.float32, 2, 3, 2),
    "bias": counted(torch.float32, 5),
    "brain": counted(torch.bfloat16, 7),
    "half": counted(torch.float16, 3, 3),
    "long": counted(torch.int64, 4),
    "int": counted(torch.int32, 2, 2),
    "bytes": counted(torch.uint8, 3),
    "scalar": counted(torch.float32),
    "empty": counted(torch.float32, 0, 4),
    'gr\u00f6\u00dfe "quoted" \\ \n \u0001 \U0001f600': counted(torch.float32, 1),
}
METADATA = {"format": "pt"}


def image(*shape):
    return (shape, torch.float64)


def tokens(*shape):
    return (shape, torch.int64)


# Name, module, inputs. Keep in step with tests/nn/layer_test.cpp.
LAYERS = [
    ("linear", lambda: nn.Linear(5, 3), [image(4, 5)]),
    ("linear_no_bias", lambda: nn.Linear(5, 3, bias=False), [image(2, 4, 5)]),
    ("conv2d", lambda: nn.Conv2d(3, 4, 3), [image(2, 3, 7, 6)]),
    ("conv2d_all", lambda: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2),
                                     groups=2, bias=False), [image(2, 4, 7, 8)]),
    ("max_pool2d", lambda: nn.MaxPool2d(2), [image(2, 3, 6, 7)]),
    ("max_pool2d_all", lambda: nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 1)), [image(2, 3, 7, 6)]),
    ("avg_pool2d", lambda: nn.AvgPool2d(3, stride=2, padding=1), [image(2, 3, 7, 6)]),
    ("adaptive_avg_pool2d", lambda: nn.AdaptiveAvgPool2d(1), [image(2, 3, 5, 4)]),
    ("batch_norm2d", lambda: nn.BatchNorm2d(3), [image(4, 3, 3, 2)]),
    ("batch_norm2d_eval", lambda: nn.BatchNorm2d(3).eval(), [image(4, 3, 3, 2)]),
    ("batch_norm2d_options", lambda: nn.BatchNorm2d(3, eps=1e-3, momentum=0.3, affine=False),
     [image(4, 3, 3, 2)]),
    ("batch_norm2d_untracked", lambda: nn.BatchNorm2d(3, track_running_stats=False).eval(),
     [image(4, 3, 3, 2)]),
    ("layer_norm", lambda: nn.LayerNorm(6), [image(2, 3, 6)]),
    ("layer_norm_2d", lambda: nn.LayerNorm((3, 4), eps=1e-3), [image(5, 3, 4)]),
    ("layer_norm_plain", lambda: nn.LayerNorm(6, elementwise_affine=False), [image(2, 6)]),
    ("layer_norm_no_bias", lambda: nn.LayerNorm(6, bias=False), [image(2, 6)]),
    ("embedding", lambda: nn.Embedding(7, 3), [tokens(2, 4)]),
    ("embedding_padding", lambda: nn.Embedding(7, 3, padding_idx=2), [tokens(3, 5)]),
    ("flatten", lambda: nn.Flatten(), [image(2, 3, 4)]),
    ("flatten_some", lambda: nn.Flatten(0, 1), [image(2, 3, 4)]),
    ("dropout_eval", lambda: nn.Dropout(0.5).eval(), [image(3, 4)]),
    ("relu", nn.ReLU, [image(3, 7)]),
    ("gelu", nn.GELU, [image(3, 7)]),
    ("gelu_tanh", lambda: nn.GELU(approximate="tanh"), [image(3, 7)]),
    ("silu", nn.SiLU, [image(3, 7)]),
    ("tanh", nn.Tanh, [image(3, 7)]),
    ("sigmoid", nn.Sigmoid, [image(3, 7)]),
    ("leaky_relu", lambda: nn.LeakyReLU(0.2), [image(3, 7)]),
    ("elu", nn.ELU, [image(3, 7)]),
    ("softplus", nn.Softplus, [image(3, 7)]),
    ("softmax", lambda: nn.Softmax(1), [image(3, 7)]),
    ("log_softmax", lambda: nn.LogSoftmax(1), [image(3, 7)]),
    ("identity", nn.Identity, [image(3, 7)]),
    ("sequential", lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                                         nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 2)), [image(2, 3, 6, 8)]),
    ("sequential_norm", lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
     [image(2, 3, 5, 5)]),
    ("cross_entropy", nn.CrossEntropyLoss, [image(6, 4), tokens(6)]),
    ("cross_entropy_all", lambda: nn.CrossEntropyLoss(reduction="sum", ignore_index=1, label_smoothing=0.1),
     [image(6, 4), tokens(6)]),
    ("mse", nn.MSELoss, [image(3, 4), image(3, 4)]),
    ("mse_none", lambda: nn.MSELoss(reduction="none"), [image(3, 4), image(3, 4)]),
]


def run_layer(name, make, inputs, out):
    torch.manual_seed(len(out))
    layer = make().double()
    xs = []
    for i, (shape, dtype) in enumerate(inputs):
        if dtype == torch.int64:
            xs.append(torch.randint(0, 4, shape))
        else:
            xs.append(torch.randn(shape, dtype=dtype).requires_grad_(i == 0))
        out[f"{name}/x{i}"] = xs[-1].detach().clone()
    for key, value in layer.named_parameters():
        if not isinstance(layer, nn.Embedding) and value.dim() == 1 and "norm" in name:
            value.data = torch.randn_like(value)  # ones and zeros would hide an exchange
        out[f"{name}/parameter/{key}"] = value.detach().clone()
    for key, value in layer.named_buffers():
        if value.dtype == torch.float64:
            value.copy_(torch.rand_like(value) + 0.5)
        out[f"{name}/start/{key}"] = value.clone()
    y = layer(*xs)
    dy = torch.randn(y.shape, dtype=torch.float64)
    y.backward(dy)
    out[f"{name}/y"] = y.detach().clone()
    out[f"{name}/dy"] = dy
    if xs[0].dtype == torch.float64:
        out[f"{name}/dx0"] = xs[0].grad
    for key, value in layer.named_parameters():
        out[f"{name}/gradient/{key}"] = value.grad
    for key, value in layer.named_buffers():
        out[f"{name}/buffer/{key}"] = value.clone()


def check(path):
    loaded = load_file(path)
    assert loaded.keys() == SAFETENSORS.keys(), loaded.keys()
    for name, value in SAFETENSORS.items():
        assert loaded[name].dtype == value.dtype and torch.equal(loaded[name], value), name
    print(f"{path}: {len(loaded)} tensors, all as expected")


def main():
    if len(sys.argv) == 2:
        check(sys.argv[1])
        return
    DATA.mkdir(parents=True, exist_ok=True)
    save_file(SAFETENSORS, DATA / "safetensors.safetensors", METADATA)
    layers = {}
    for name, make, inputs in LAYERS:
        run_layer(name, make, inputs, layers)
    save_file({k: v.clone().contiguous() for k, v in layers.items()}, DATA / "nn_layers.safetensors",
              {"torch": torch.__version__})
    named = {name: [[key, list(value.shape)] for key, value in nets.make(name).state_dict().items()]
             for name in nets.NETS}
    parameters = {name: [key for key, _ in nets.make(name).named_parameters()] for name in nets.NETS}
    (DATA / "nn_nets.json").write_text(
        json.dumps({"about": "made by tests/golden/nn.py", "torch": torch.__version__, "state_dict": named,
                    "parameters": parameters}, separators=(",", ":")) + "\n")
    for file in ("safetensors.safetensors", "nn_layers.safetensors", "nn_nets.json"):
        print(f"wrote {file}, {(DATA / file).stat().st_size} bytes")


if __name__ == "__main__":
    main()

"""Writes data/optim.json: torch.optim's parameters and states after each step, clipped gradients, learning rates.

Run with a Python that has torch; the values in the file were made with the version it names.
"""
import json
import pathlib
import warnings

import torch

OUT = pathlib.Path(__file__).parent / "data" / "optim.json"
SIZE, STEPS = 11, 5
NAMES = {torch.float32: "f32", torch.float64: "f64"}

CASES = [
    ("sgd", torch.optim.SGD, [
        {},
        {"lr": 0.1},
        {"lr": 0.05, "weight_decay": 0.1},
        {"lr": 0.05, "momentum": 0.9},
        {"lr": 0.05, "momentum": 0.9, "dampening": 0.3},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True},
        {"lr": 0.05, "momentum": 0.8, "nesterov": True, "weight_decay": 0.2},
        {"lr": 0.05, "momentum": 0.7, "dampening": 0.1, "weight_decay": 0.05},
        {"lr": 0.0, "momentum": 0.7},
    ]),
    ("adam", torch.optim.Adam, [
        {},
        {"lr": 0.02},
        {"lr": 0.02, "betas": (0.8, 0.95)},
        {"lr": 0.02, "betas": (0.3, 0.5)},
        {"lr": 0.02, "betas": (0.0, 0.9)},
        {"lr": 0.02, "betas": (0.9, 0.0)},
        {"lr": 0.02, "eps": 0.1},
        {"lr": 0.02, "weight_decay": 0.3},
    ]),
    ("adamw", torch.optim.AdamW, [
        {},
        {"lr": 0.02, "weight_decay": 0.3},
        {"lr": 0.02, "weight_decay": 0.0},
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ]),
]


def listed(tensor):
    """Nine digits tell any float32 from its neighbours."""
    values = tensor.detach().tolist()
    return values if tensor.dtype == torch.float64 else [float(f"{v:.9g}") for v in values]


def run(make, options, dtype, generator):
    p = torch.nn.Parameter(torch.randn(SIZE, dtype=dtype, generator=generator))
    p.data[3] = 0.0
    optimizer = make([p], **options)
    initial = p.detach().clone()
    steps = []
    for step in range(STEPS):
        # Sizes over many orders of magnitude, exact zeros, and an element that never has a gradient.
        g = torch.randn(SIZE, dtype=dtype, generator=generator)
        g *= 10.0 ** torch.linspace(-6, 4, SIZE, dtype=dtype)
        g[4] = 0.0
        if step % 2 == 0:
            g[5] = 0.0
        p.grad = g
        optimizer.step()
        state = {k: listed(v) for k, v in optimizer.state[p].items()
                 if isinstance(v, torch.Tensor) and v.numel() == SIZE}
        steps.append({"grad": listed(g), "param": listed(p), "state": state})
    return {"initial": listed(initial), "steps": steps}


def updates():
    generator = torch.Generator().manual_seed(7)
    for name, make, option_list in CASES:
        for options in option_list:
            for dtype in (torch.float32, torch.float64):
                flat = dict(options)
                if "betas" in flat:
                    flat["beta1"], flat["beta2"] = flat.pop("betas")
                yield {"optimizer": name, "options": flat, "dtype": NAMES[dtype],
                       **run(make, options, dtype, generator)}


def clipping():
    generator = torch.Generator().manual_seed(8)
    for dtype in (torch.float32, torch.float64):
        for max_norm in (0.5, 3.0, 1000.0, 0.0):
            params = [torch.nn.Parameter(torch.zeros(n, dtype=dtype)) for n in (130, 64, 1, 0, 7)]
            for p in params:
                p.grad = torch.randn(p.shape, dtype=dtype, generator=generator)
            grads = [listed(p.grad) for p in params]
            norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
            yield {"dtype": NAMES[dtype], "max_norm": max_norm,
                   "grads": grads, "norm": norm.item(), "clipped": [listed(p.grad) for p in params]}


def rates(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer)
    out = []
    for _ in range(steps):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return out


def schedules():
    lr = torch.optim.lr_scheduler

    def warmup(optimizer, steps):
        return lr.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)

    def both(optimizer, steps, length, floor):
        return lr.SequentialLR(optimizer, [
            warmup(optimizer, steps),
            lr.CosineAnnealingLR(optimizer, T_max=length, eta_min=floor)], milestones=[steps])

    yield {"kind": "constant", "factors": rates(lambda o: lr.LambdaLR(o, lambda k: 1.0), 5)}
    yield {"kind": "warmup", "warmup": 7, "factors": rates(lambda o: warmup(o, 7), 12)}
    # t counts steps after the last warm-up step; total + 1 is where the floor is reached.
    yield {"kind": "cosine", "total": 10, "warmup": 0, "floor": 0.0,
           "factors": rates(lambda o: lr.CosineAnnealingLR(o, T_max=10), 11)}
    yield {"kind": "cosine", "total": 10, "warmup": 0, "floor": 0.1,
           "factors": rates(lambda o: lr.CosineAnnealingLR(o, T_max=10, eta_min=0.1), 11)}
    yield {"kind": "cosine", "total": 30, "warmup": 6, "floor": 0.05,
           "factors": rates(lambda o: both(o, 6, 24, 0.05), 31)}


warnings.simplefilter("ignore")  # LinearLR inside SequentialLR warns about its own order of calls
data = {"torch": torch.__version__.split("+")[0], "updates": list(updates()),
        "clipping": list(clipping()), "schedules": list(schedules())}
OUT.parent.mkdir(exist_ok=True)
OUT.write_text(json.dumps(data, separators=(",", ":")) + "\n")
print(OUT, OUT.stat().st_size, "bytes")

#!/usr/bin/env python3
"""shardgrad against PyTorch on one GPU, in one run: training steps of the tutorial net and of vgg,
AdamW on 124M parameters, matrix products of 8192.

    python bench/gpu.py --build build/gpu [--cases tutorial vgg kernels] [--rounds 7] [--out FILE]

Both sides start from the same weights and read the same samples; the first losses are compared
before anything is timed. Then they take turns; medians are compared, and the ratio is PyTorch's
time over ours. f32 is computed in f32 on both sides (TF32 off). The result is written as JSON after
each case, with the date, the card, the driver, versions and the commit (the variable COMMIT where
there is no git); a file that is there already keeps its other cases, so that cases can be run one
by one. Exit status: 0, whatever the speed; 1 if something did not run or the losses disagree; 2 for
bad usage.
"""

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench" / "pytorch"))

CHECKED = 3  # steps whose losses must agree

# Of a step: what PyTorch is tried as, and the bars.
NETS = {
    "tutorial": {
        "batch": 32, "dtype": "f32", "warmup": 50, "steps": 200, "tolerance": 2e-4,
        "kinds": {"eager": ">= 3", "compile": ">= 1.5"},
    },
    "vgg": {
        "batch": 512, "dtype": "bf16", "warmup": 10, "steps": 40, "tolerance": 3e-2,
        "kinds": {"eager": ">= 0.7", "compile": ""},
    },
}  # fmt: skip
CASES = [*NETS, "kernels"]


class Torch:
    """PyTorch's side of a net: fused Adam, channels-last where that pays, no synchronization but
    at the end of what is timed."""

    def __init__(self, name, case, weights, images, labels):
        import torch
        from safetensors.torch import load_file

        self.torch, self.name, self.case = torch, name, case
        self.dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[case["dtype"]]
        self.layout = torch.channels_last if name == "vgg" else torch.contiguous_format
        self.initial = load_file(weights)
        self.images = images.to("cuda", self.dtype).contiguous(memory_format=self.layout)
        self.labels = labels.to("cuda")

    def begin(self, kind):
        """A function that trains step i of a net with the initial weights and returns its loss."""
        import nets

        torch = self.torch
        net = nets.make(self.name)
        net.load_state_dict(self.initial)
        net = net.to("cuda", self.dtype).to(memory_format=self.layout)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
        batch, count = self.case["batch"], len(self.labels)
        functional = torch.nn.functional

        def loss_of(x, y):
            return functional.cross_entropy(net(x), y)

        compiled = kind == "compile"
        if compiled:
            loss_of = torch.compile(loss_of, mode="reduce-overhead")

        def step(i):
            at = i * batch % (count - batch + 1)
            optimizer.zero_grad(set_to_none=True)
            if compiled:
                torch.compiler.cudagraph_mark_step_begin()
            loss = loss_of(self.images[at : at + batch], self.labels[at : at + batch])
            loss.backward()
            optimizer.step()
            return loss

        return step

    def losses(self, kind, steps):
        step = self.begin(kind)
        return [step(i).item() for i in range(steps)]

    def seconds(self, step):
        """Of a step, mean of those after the warm-up."""
        warmup, steps = self.case["warmup"], self.case["steps"]
        for i in range(warmup):
            step(i)
        self.torch.cuda.synchronize()
        start = time.perf_counter()
        for i in range(steps):
            step(warmup + i)
        self.torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps


def train_ours(build, name, case, steps, folder):
    """The metrics of each step."""
    metrics = Path(folder) / "metrics.jsonl"
    metrics.unlink(missing_ok=True)
    command = [str(build / "bin/cifar"), "--device", "cuda", "--net", name,
               "--dtype", case["dtype"], "--batch-size", str(case["batch"]), "--steps", str(steps),
               "--epochs", "1000000", "--data", folder, "--no-shuffle", "--no-eval",
               "--init", str(Path(folder) / f"{name}.safetensors"), "--optimizer", "adam",
               "--lr", "0.001", "--log-interval", "1000000", "--metrics", str(metrics)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line for line in lines if "step" in line]


def compare_net(name, args, folder):
    import torch

    import cifar_data
    import nets
    from safetensors.torch import save_file

    case = NETS[name]
    weights = str(Path(folder) / f"{name}.safetensors")
    # Contiguous and f32: both sides cast what they read.
    save_file({k: v.contiguous() for k, v in nets.make(name).state_dict().items()}, weights)
    total = case["batch"] * (case["warmup"] + case["steps"])
    images, labels = cifar_data.read_batch(folder, 0, min(total, 50_000))
    theirs = Torch(name, case, weights, torch.from_numpy(cifar_data.normalise(images)),
                   torch.from_numpy(labels))  # fmt: skip
    expected = theirs.losses("eager", CHECKED)
    found = [s["loss"] for s in train_ours(args.build, name, case, CHECKED, folder)]
    off = max(abs(a - b) / abs(a) for a, b in zip(expected, found))
    result = {"losses": {"torch": expected, "ours": found, "difference": off}}
    if not off <= case["tolerance"] or len(found) != CHECKED:
        raise RuntimeError(
            f"the losses of {name} are {off:.1e} apart, {case['tolerance']:.0e} is allowed: "
            f"{found}, PyTorch's {expected}"
        )
    kinds = {kind: theirs.begin(kind) for kind in case["kinds"]}
    seconds = {kind: [] for kind in [*kinds, "ours"]}
    for _ in range(args.rounds):
        for kind, step in kinds.items():
            seconds[kind].append(theirs.seconds(step))
        steps = train_ours(args.build, name, case, case["warmup"] + case["steps"], folder)
        timed = [case["batch"] / s["samples_per_second"] for s in steps[case["warmup"] :]]
        seconds["ours"].append(statistics.median(timed))
    result["seconds"] = seconds
    ours = statistics.median(seconds["ours"])
    label = f"{name}-{case['batch']}-{case['dtype']}"
    result["rows"] = [
        [f"{label} / {kind}", statistics.median(seconds[kind]) / ours, bar]
        for kind, bar in case["kinds"].items()
    ]
    return result


def time_kernels(torch):
    """Seconds of PyTorch's copy, fused AdamW and matrix products."""

    def median(f, calls=4, rounds=15):
        for _ in range(3):
            f()
        times = []
        for _ in range(rounds):
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(calls):
                f()
            torch.cuda.synchronize()
            times.append((time.perf_counter() - start) / calls)
        return statistics.median(times)

    result = {}
    source, target = (torch.zeros(1 << 28, device="cuda") for _ in range(2))
    result["copy"] = median(lambda: target.copy_(source))
    del source, target
    parameter = torch.nn.Parameter(torch.full((124_000_000,), 0.1, device="cuda"))
    parameter.grad = torch.full_like(parameter, 0.01)
    adamw = torch.optim.AdamW([parameter], fused=True)
    result["adamw"] = median(adamw.step)
    del parameter, adamw
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        a, b = (torch.full((8192, 8192), 0.01, device="cuda", dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        result[f"matmul_{name}"] = median(lambda: torch.mm(a, b, out=out))
    torch.cuda.empty_cache()  # ours is another process
    return result


def compare_kernels(args):
    import torch

    theirs = time_kernels(torch)
    done = subprocess.run([str(args.build / "bin/gpu_bench")], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"gpu_bench: {done.stderr[-2000:]}")
    ours = json.loads(done.stdout)
    rate = {k: ours[k]["bytes"] / ours[k]["seconds"] for k in ("adamw", "copy")}
    rows = [
        ["adamw / copy rate", rate["adamw"] / rate["copy"], ">= 0.9"],
        ["adamw / fused", theirs["adamw"] / ours["adamw"]["seconds"], ">= 1"],
        ["matmul bf16", theirs["matmul_bf16"] / ours["matmul_bf16"]["seconds"], ">= 0.97"],
        ["matmul f32", theirs["matmul_f32"] / ours["matmul_f32"]["seconds"], ""],
    ]
    return {"ours": ours, "torch": theirs, "rows": rows}


def text_of(*command):
    """What the command prints; empty where there is none, or it fails."""
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def describe(torch):
    git = ["git", "-C", str(ROOT)]
    return {
        "card": torch.cuda.get_device_name(), "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "driver": text_of("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "commit": text_of(*git, "rev-parse", "HEAD") or os.environ.get("COMMIT", "unknown"),
        "changed": bool(text_of(*git, "status", "--porcelain")),
    }  # fmt: skip


def write(out, about, name, result):
    """Adds a case to the file, which is whole at any moment."""
    known = json.loads(out.read_text()) if out.exists() else {"cases": {}}
    known["cases"][name] = {"date": datetime.date.today().isoformat(), **about, **result}
    fresh = out.with_name(out.name + ".new")
    fresh.write_text(json.dumps(known, indent=1) + "\n")
    fresh.replace(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/gpu")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES, metavar="CASE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds: at least 1")
    try:
        import numpy  # noqa: F401
        import safetensors  # noqa: F401
        import torch
    except ImportError as error:
        print(f"{error.name} is missing: python -m pip install torch numpy safetensors")
        return 2
    if not torch.cuda.is_available():
        print("PyTorch sees no GPU")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False

    import cifar_data

    about = describe(torch)
    today = datetime.date.today().isoformat()
    out = args.out or ROOT / f"bench/results/{today}-{about['card'].replace(' ', '-')}.json"
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        if set(args.cases) & set(NETS):
            cifar_data.write_standin(folder)
        for name in args.cases:
            try:
                if name == "kernels":
                    result = compare_kernels(args)
                else:
                    result = compare_net(name, args, folder)
            except Exception:  # the other cases go on
                traceback.print_exc()
                result = {"error": traceback.format_exc()}
                failed.append(name)
            for label, ratio, bar in result.get("rows", []):
                print(f"{label:<28} {ratio:6.2f}   {bar}", flush=True)
            write(out, about, name, result)
    print(f"written to {out}")
    if failed:
        print(f"failed: {' '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

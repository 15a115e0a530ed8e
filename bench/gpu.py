#!/usr/bin/env python3
"""shardgrad against PyTorch on one GPU, in one run: the tutorial net's training step, AdamW on 124M
parameters, matrix products of 8192.

    python bench/gpu.py --build build/release [--rounds 7] [--out FILE]

Both sides take turns; medians are compared, and the ratio is PyTorch's time over ours. The result
is written as JSON with the date, the card, the driver, versions and the commit. Exit status: 0,
whatever the speed; 1 if something did not run or the losses disagree; 2 for bad usage.
"""

import argparse
import datetime
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench" / "pytorch"))

STEPS, WARMUP, BATCH = 200, 50, 32


def torch_step(torch, kind, images, labels):
    """A function that trains one step of the tutorial net and returns the loss tensor."""
    import nets

    net = nets.make("tutorial").cuda()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    loss_of = torch.nn.functional.cross_entropy

    def step(i):
        at = (i * BATCH) % (len(labels) - BATCH)
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(net(images[at : at + BATCH]), labels[at : at + BATCH])
        loss.backward()
        optimizer.step()
        return loss

    if kind == "compile":
        forward = torch.compile(lambda x, y: loss_of(net(x), y), mode="reduce-overhead")

        def step(i):  # noqa: F811
            at = (i * BATCH) % (len(labels) - BATCH)
            torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            loss = forward(images[at : at + BATCH], labels[at : at + BATCH])
            loss.backward()
            optimizer.step()
            return loss

    return step


def time_torch(torch, step):
    for i in range(WARMUP):
        step(i)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for i in range(STEPS):
        step(WARMUP + i)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / STEPS


def time_ours(build):
    with tempfile.TemporaryDirectory() as folder:
        metrics = Path(folder) / "metrics.jsonl"
        command = [str(build / "bin/cifar"), "--device", "cuda", "--net", "tutorial",
                   "--batch-size", str(BATCH), "--steps", str(WARMUP + STEPS), "--no-eval",
                   "--epochs", "1000", "--log-interval", "1000000", "--metrics", str(metrics)]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        steps = [line for line in lines if "step" in line]
        return statistics.median(BATCH / s["samples_per_second"] for s in steps[WARMUP:])


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
    torch.backends.cuda.matmul.allow_tf32 = False
    for name, dtype in (("bf16", torch.bfloat16), ("f32", torch.float32)):
        a, b = (torch.full((8192, 8192), 0.01, device="cuda", dtype=dtype) for _ in range(2))
        out = torch.empty_like(a)
        result[f"matmul_{name}"] = median(lambda: torch.mm(a, b, out=out))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=Path, default=ROOT / "build/release")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is missing: python -m pip install torch numpy")
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(6400, 3, 32, 32, generator=generator).cuda()
    labels = torch.randint(0, 10, (6400,), generator=generator).cuda()
    steps = {kind: torch_step(torch, kind, images, labels) for kind in ("eager", "compile")}
    seconds = {"eager": [], "compile": [], "ours": []}
    for _ in range(args.rounds):
        for kind in ("eager", "compile"):
            seconds[kind].append(time_torch(torch, steps[kind]))
        seconds["ours"].append(time_ours(args.build))
    theirs = time_kernels(torch)
    done = subprocess.run([str(args.build / "bin/gpu_bench")], capture_output=True, text=True)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
        return 1
    ours = json.loads(done.stdout)

    def git(*words):
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True).stdout.strip()

    median = {kind: statistics.median(values) for kind, values in seconds.items()}
    rows = [
        ("tutorial-32 / eager", median["eager"] / median["ours"], ">= 3"),
        ("tutorial-32 / compile", median["compile"] / median["ours"], ">= 1.5"),
        ("adamw / copy rate",
         (ours["adamw"]["bytes"] / ours["adamw"]["seconds"]) / (ours["copy"]["bytes"] / ours["copy"]["seconds"]),
         ">= 0.9"),
        ("adamw / fused", theirs["adamw"] / ours["adamw"]["seconds"], ">= 1"),
        ("matmul bf16", theirs["matmul_bf16"] / ours["matmul_bf16"]["seconds"], ">= 0.97"),
        ("matmul f32", theirs["matmul_f32"] / ours["matmul_f32"]["seconds"], ""),
    ]  # fmt: skip
    for name, ratio, bar in rows:
        print(f"{name:<24} {ratio:6.2f}   {bar}")
    card = torch.cuda.get_device_name()
    result = {
        "date": datetime.date.today().isoformat(), "card": card, "torch": torch.__version__,
        "cuda": torch.version.cuda, "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")), "rounds": args.rounds,
        "ratios": {name: ratio for name, ratio, _ in rows}, "seconds": seconds,
        "kernels": {"ours": ours, "torch": theirs},
    }  # fmt: skip
    out = args.out or ROOT / f"bench/results/{result['date']}-{card.replace(' ', '-')}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

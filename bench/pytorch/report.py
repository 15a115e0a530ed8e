"""The table that compare_pytorch.py prints, the JSON that it writes, and the machine's name."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output(*command):
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def cpu_model():
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def cpu_flags():
    """The flags that decide which kernels run."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return []
    return sorted(words & {"avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "avx_vnni"})


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine():
    commit = output("git", "rev-parse", "--short=12", "HEAD")
    if output("git", "status", "--porcelain", "--untracked-files=no"):
        commit += "-dirty"
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpu_flags": cpu_flags(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "commit": commit,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "deepspeed", "numpy", "safetensors")},
        },
    }


def table(rows):
    """Plain text: case, PyTorch's best setting, both times, ratio, bar, met or not."""
    header = ["case", "against", "theirs ms", "ours ms", "ratio", "range", "bar", ""]
    lines = [header]
    for row in rows:
        if "error" in row:
            lines.append([row["case"], row["error"].splitlines()[0][:60], "", "", "", "", "", "-"])
            continue
        bar, ratio = row["bar"], row["ratio"]
        lines.append([
            row["case"], row["against"], f"{row['theirs_ms']:.3f}", f"{row['ours_ms']:.3f}",
            f"{ratio:.2f}", "{:.2f}-{:.2f}".format(*row["ratio_range"]),
            "" if bar is None else f"{'<=' if row['at_most'] else '>='} {bar:g}",
            "" if bar is None else ("met" if row["met"] else "NOT met"),
        ])  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths))
        ).rstrip()
        for line in [lines[0], rule, *lines[1:]]
    )


def write(info, rows, details, path=None):
    """bench/results/<date>-<cpu>.json; a second run of a day takes the next free number."""
    if path is None:
        folder = ROOT / "bench" / "results"
        folder.mkdir(parents=True, exist_ok=True)
        slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((R|TM)\)", "", info["cpu"]).lower()).strip("-")
        stem = f"{info['date'][:10]}-{slug}-{info['cores']}-cores"
        path, number = folder / f"{stem}.json", 1
        while path.exists():
            number += 1
            path = folder / f"{stem}-{number}.json"
    path = Path(path)
    path.write_text(
        json.dumps({"machine": info, "rows": rows, "details": details}, indent=1) + "\n"
    )
    return path

"""What is compared: nets, batches, threads, the bars of speed, and the PyTorch settings to try."""

import fnmatch
from dataclasses import dataclass, field


@dataclass
class Case:
    """One comparison. `warmup` + `steps` steps are trained a round, the last `steps` timed."""

    name: str
    net: str
    batch: int  # samples of one optimizer step over all ranks
    threads: int  # of each rank
    bar: float | None = None
    warmup: int = 10
    steps: int = 50
    loss_steps: int = 10  # steps over which losses are held to 1e-4
    ranks: int = 1
    rows: list = field(default_factory=list)  # of a two-rank case: (row, theirs, ours, bar)


CASES = [
    Case("tutorial-32-1t", "tutorial", 32, 1, 2.0, 50, 300),
    Case("tutorial-32-2t", "tutorial", 32, 2, 2.0, 50, 300),
    Case("mlp-128-1t", "mlp", 128, 1, None, 15, 75),
    Case("mlp-128-2t", "mlp", 128, 2, 1.05, 15, 100),
    Case("vgg-128-1t", "vgg", 128, 1, None, 2, 8),
    Case("vgg-128-2t", "vgg", 128, 2, 1.05, 3, 15),
    Case("resnet20-128-1t", "resnet20", 128, 1, None, 2, 6, 2),
    Case("resnet20-128-2t", "resnet20", 128, 2, 1.1, 3, 12, 2),
    Case("two-ranks", "tutorial", 32, 1, None, 30, 150, ranks=2),
]
# Rows of two-ranks, each selectable by name: (row, theirs, ours, bar). A bar below is a floor of
# theirs / ours but for the last, whose ratio is ours zero3 / ours ddp and whose bar a ceiling.
TWO_RANKS = [
    ("ddp", "ddp", "ddp", 3.0),
    ("deepspeed3", "deepspeed", "zero3", 5.0),
    ("fsdp2", "fsdp2", "zero3", None),
    ("zero3-over-ddp", None, "zero3", 1.3),
]


def settings(kind, net, quick):
    """PyTorch's settings to try, by label. The first is the reference for the losses."""
    last = {} if net == "mlp" else {"channels_last": True}
    fused = {"fused": True}
    if kind == "single":
        out = {"default": {}, "fused": fused}
        if last:
            out["fused, channels-last"] = {**fused, **last}
        if not quick:
            out["fused, compile"] = {**fused, "compile": True}
            if last:
                out["fused, compile, channels-last"] = {**fused, **last, "compile": True}
    elif kind == "ddp":
        view = {**fused, "bucket_view": True}
        out = {"default": {}, "fused, bucket views": view}
        out["fused, bucket views, channels-last"] = {**view, **last}
        if not quick:
            out["fused, bucket views, compile"] = {**view, "compile": True}
    elif kind == "fsdp2":
        out = {
            "fused, a unit a layer": {**fused, "units": "layer"},
            "fused, one unit": {**fused, "units": "net"},
        }
    else:
        out = {
            "fused, default thresholds": fused,
            "fused, thresholds 0": {**fused, "persistence": 0},
        }
    return out


def choose_cases(patterns, parser):
    """Cases by name, glob or prefix; a row of two-ranks selects that case with that row."""
    names = [case.name for case in CASES if case.ranks == 1] + [row[0] for row in TWO_RANKS]
    if patterns is None:
        chosen = set(names)
    else:
        chosen = set()
        for pattern in patterns:
            if pattern == "two-ranks":
                found = [row[0] for row in TWO_RANKS]
            else:
                found = [n for n in names if fnmatch.fnmatch(n, pattern) or
                         n.startswith(pattern + "-")]  # fmt: skip
            if not found:
                parser.error(f"no case {pattern}; there are: {' '.join(names)} two-ranks")
            chosen.update(found)
    out = []
    for case in CASES:
        if case.ranks > 1:
            case.rows = [row for row in TWO_RANKS if row[0] in chosen]
        if case.name in chosen or case.rows:
            out.append(case)
    return out

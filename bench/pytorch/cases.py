"""What is compared: nets and collectives, their sizes, the bars of speed, PyTorch's settings."""

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

    def __str__(self):
        ranks = f", {self.ranks} ranks" if self.ranks > 1 else ""
        return f"{self.net}, batch {self.batch}{ranks}, {self.threads} thread(s) each"


@dataclass
class Collectives:
    """Collectives alone, two processes of one thread; the same fields as of a Case."""

    name: str
    bytes: int  # of a rank's f32 buffer, of which its shard is a half
    warmup: int
    steps: int
    rows: list  # (row, theirs, ours, bar)
    threads: int = 1
    ranks: int = 2

    def __str__(self):
        return f"a buffer of {self.bytes >> 20} MiB, {self.ranks} ranks, 1 thread each"


# Rows of a two-rank case, each selectable by name: (row, theirs, ours, bar). A bar is a floor of
# theirs / ours but for the row without theirs, whose ratio is ours zero3 / ours ddp and whose bar a
# ceiling. "-2p": our ranks are processes over Gloo, as PyTorch's are in every row, not threads.
TWO_RANKS = [
    ("ddp", "ddp", "ddp", 3.0),
    ("deepspeed3", "deepspeed", "zero3", 5.0),
    ("fsdp2", "fsdp2", "zero3", None),
    ("zero3-over-ddp", None, "zero3", 1.3),
    ("ddp-2p", "ddp", "ddp-2p", 1.5),
    ("deepspeed3-2p", "deepspeed", "zero3-2p", 2.0),
    ("fsdp2-2p", "fsdp2", "zero3-2p", None),
]


def collectives(megabytes, warmup, steps):
    """The two that an all-reduce is made of, each against half of PyTorch's."""
    size = f"{megabytes}mb"
    return Collectives(f"collectives-{size}", megabytes << 20, warmup, steps, [
        (f"reduce-scatter-{size}", "all_reduce", "reduce_scatter", 1.0),
        (f"all-gather-{size}", "all_reduce", "all_gather", 1.0),
    ])  # fmt: skip


CASES = [
    Case("tutorial-32-1t", "tutorial", 32, 1, 2.0, 50, 300),
    Case("tutorial-32-2t", "tutorial", 32, 2, 2.0, 50, 300),
    Case("mlp-128-1t", "mlp", 128, 1, None, 15, 75),
    Case("mlp-128-2t", "mlp", 128, 2, 1.05, 15, 100),
    Case("vgg-128-1t", "vgg", 128, 1, None, 2, 8),
    Case("vgg-128-2t", "vgg", 128, 2, 1.05, 3, 15),
    Case("resnet20-128-1t", "resnet20", 128, 1, None, 2, 6, 2),
    Case("resnet20-128-2t", "resnet20", 128, 2, 1.1, 3, 12, 2),
    Case("two-ranks", "tutorial", 32, 1, None, 30, 150, ranks=2, rows=TWO_RANKS),
    collectives(4, 10, 100),
    collectives(64, 3, 20),
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


def row_names():
    """What can be chosen: cases of one rank, and rows of two-rank ones."""
    return [name for case in CASES for name in [row[0] for row in case.rows] or [case.name]]


def choose_cases(patterns, parser):
    """Cases by name, glob or prefix; a row of a two-rank case selects that case with that row."""
    names, chosen = row_names(), set()
    for pattern in ["*"] if patterns is None else patterns:
        found = [n for n in names if fnmatch.fnmatch(n, pattern) or n.startswith(pattern + "-")]
        for case in CASES:
            if fnmatch.fnmatch(case.name, pattern):
                found += [row[0] for row in case.rows]
        if not found:
            cases = " ".join(case.name for case in CASES if case.rows)
            parser.error(f"no case {pattern}; there are: {' '.join(names)}; all rows of: {cases}")
        chosen.update(found)
    out = []
    for case in CASES:
        case.rows = [row for row in case.rows if row[0] in chosen]
        if case.name in chosen or case.rows:
            out.append(case)
    return out

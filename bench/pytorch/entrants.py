"""What takes part in a comparison: PyTorch workers and our programs, behind one `train`.

`train(warmup, steps)` starts from the case's initial weights, does warmup + steps optimizer steps
on samples in file order and returns {"seconds": [steps], "losses": [warmup + steps]}. Where
collectives alone are timed a step is one of them, and there are no losses.
"""

import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEADLINE = 900  # seconds; torch.compile of resnet20 takes two minutes on two cores


class RunError(RuntimeError):
    """Something could not run; the message says what, and the end of what it printed."""


def tail(text, lines=12):
    return "\n".join("    | " + line for line in text.strip().splitlines()[-lines:])


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Torch:
    """PyTorch at one setting: one process a rank, kept from its first use to close()."""

    def __init__(self, kind, world, label, setting, **work):
        self.name = kind if kind in ("fsdp2", "deepspeed") else f"PyTorch {kind}"
        self.label, self.setting, self.processes, self.logs = label, setting, [], []
        port = free_port()
        for rank in range(world):
            config = dict(kind=kind, world=world, rank=rank, port=port, setting=setting, **work)
            log = tempfile.TemporaryFile("w+")
            self.logs.append(log)
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "worker.py"), json.dumps(config)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    bufsize=1,
                )  # fmt: skip
            )
        self.answers()

    def answers(self):
        """One answer of every rank; the first rank's is returned."""
        waiting = {process.stdout: rank for rank, process in enumerate(self.processes)}
        got, limit = {}, time.monotonic() + DEADLINE
        with selectors.DefaultSelector() as selector:
            for stream in waiting:
                selector.register(stream, selectors.EVENT_READ)
            while len(got) < len(waiting):
                events = selector.select(max(0.0, limit - time.monotonic()))
                if not events:
                    missing = sorted(set(waiting.values()) - set(got))
                    self.abort(f"no answer from rank {missing} within {DEADLINE} s", missing[0])
                for key, _ in events:
                    rank = waiting[key.fileobj]
                    line = key.fileobj.readline()
                    if not line:
                        status = self.processes[rank].wait()
                        self.abort(f"rank {rank} ended with status {status}", rank)
                    got[rank] = json.loads(line)
                    if "error" in got[rank]:
                        self.abort(f"rank {rank}: {got[rank]['error']}", rank)
                    selector.unregister(key.fileobj)
        return got[0]

    def abort(self, message, rank):
        self.logs[rank].flush()
        self.logs[rank].seek(0)
        printed = tail(self.logs[rank].read())
        for process in self.processes:
            process.kill()
        self.close()
        raise RunError(f"{self.name} ({self.label}): {message}\n{printed}")

    def full_name(self):
        return f"{self.name}, {self.label}"

    def train(self, warmup, steps):
        for process in self.processes:
            print(json.dumps({"do": "train", "warmup": warmup, "steps": steps}), file=process.stdin)
        return self.answers()

    def close(self):
        for process in self.processes:
            try:
                print(json.dumps({"do": "quit"}), file=process.stdin)
                process.stdin.close()
            except (OSError, ValueError):
                pass  # it has ended already
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        for log in self.logs:
            log.close()
        self.processes, self.logs = [], []


class Program:
    """A program of ours, started anew every time: as one process, or `processes` of them."""

    def __init__(self, binary, threads, processes):
        self.threads, self.command = threads, [str(binary)]
        if processes > 1:
            self.command = [str(binary.with_name("shardgrad")), "run", "--standalone",
                            "--nproc-per-node", str(processes), str(binary)]  # fmt: skip

    def full_name(self):
        return self.name

    def start(self, *arguments):
        """Runs it; the last argument, added here, is the file for its results. These, as lines of
        JSON, the command and the wall time."""
        with tempfile.TemporaryDirectory() as folder:
            results = Path(folder) / "results.jsonl"
            command = [*self.command, *arguments, str(results)]
            environment = dict(os.environ, OMP_NUM_THREADS=str(self.threads))
            start = time.perf_counter()
            try:
                done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, text=True, timeout=DEADLINE,
                                      env=environment)  # fmt: skip
            except subprocess.TimeoutExpired:
                raise RunError(f"no end within {DEADLINE} s: {' '.join(command)}") from None
            wall = time.perf_counter() - start
            if done.returncode != 0:
                raise RunError(
                    f"exit status {done.returncode}: {' '.join(command)}\n{tail(done.stdout)}"
                )
            lines = [json.loads(line) for line in results.read_text().splitlines() if line]
        return lines, command, wall

    def close(self):
        pass


class Ours(Program):
    """build/release/bin/cifar; ranks are threads of it, or processes that our launcher starts."""

    def __init__(self, binary, net, batch, threads, ranks, plan, processes, data, weights):
        super().__init__(binary, threads, ranks if processes else 1)
        self.name = f"shardgrad {plan}" if ranks > 1 else "shardgrad"
        self.name += ", processes" if processes else ""
        self.label, self.batch = self.name, batch
        self.command += [
            "--net", net, "--batch-size", str(batch), "--threads", str(threads),
            *([] if processes else ["--ranks", str(ranks)]),
            "--plan", plan, "--data", str(data), "--init", str(weights),
            "--optimizer", "adam", "--lr", "0.001", "--no-shuffle", "--no-eval", "--epochs",
            "1000000", "--log-interval", "1000000",
        ]  # fmt: skip

    def run(self, total):
        """The metrics of a run of `total` steps, and the process's wall time."""
        lines, command, wall = self.start("--steps", str(total), "--metrics")
        steps = [line for line in lines if "step" in line]
        if [line["step"] for line in steps] != list(range(1, total + 1)):
            raise RunError(
                f"metrics: steps 1 to {total} expected, got {[line['step'] for line in steps][:20]}"
                f": {' '.join(command)}"
            )
        summaries = [line["summary"] for line in lines if "summary" in line]
        return steps, summaries[-1] if summaries else {}, wall

    def train(self, warmup, steps):
        lines, summary, _ = self.run(warmup + steps)
        seconds = [self.batch / line["samples_per_second"] for line in lines[warmup:]]
        return {
            "seconds": seconds,
            "losses": [line["loss"] for line in lines],
            "seconds_per_step": summary.get("seconds_per_step"),
        }

    def audit(self, seconds, warmup):
        """Seconds a step from outside: processes of `warmup` and of `warmup` + n steps, three
        pairs, n such that the difference is a second or more."""
        n = max(20, int(1.5 / seconds))
        differences = []
        for _ in range(3):
            short, long = self.run(warmup)[2], self.run(warmup + n)[2]
            differences.append((long - short) / n)
        return statistics.median(differences)


class Collective(Program):
    """build/release/bin/collectives_bench: one collective between processes, checked by itself."""

    def __init__(self, binary, kind, size, processes):
        super().__init__(binary, 1, processes)
        self.name = self.label = f"shardgrad {kind}"
        self.kind, self.bytes = kind, size

    def train(self, warmup, steps):
        return self.start(self.kind, str(self.bytes), str(warmup), str(steps))[0][0]

"""One PyTorch process of bench/compare_pytorch.py: it trains when told to and is idle otherwise.

    python worker.py '{"kind": "single", "net": "tutorial", ...}'

Started once for each rank and setting and kept for all rounds, so that importing, compiling and
rendezvous happen once and outside the measurement. It reads one JSON command a line from standard
input and answers each with one JSON line on the standard output it was started with:

    {"do": "train", "warmup": W, "steps": S}
        Back to the initial weights and a fresh optimizer, then W + S steps; answers
        {"seconds": [S], "losses": [W + S]}.
    {"do": "quit"}

A step is everything that a training loop does once its data are in memory: slicing the batch,
zero_grad, forward, loss, backward, optimizer step. Samples are normalised (and brought into the
memory format) beforehand, and losses are read after the last step.
"""

import json
import os
import sys
import time
import traceback

CONFIG = json.loads(sys.argv[1])
# Before torch is imported: its OpenMP pool and BLAS read these once.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(CONFIG["threads"])
os.environ["GLOO_SOCKET_IFNAME"] = "lo"
os.environ["DS_ACCELERATOR"] = "cpu"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
if CONFIG["world"] > 1:
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(CONFIG["rank"])
    os.environ["WORLD_SIZE"] = os.environ["LOCAL_WORLD_SIZE"] = str(CONFIG["world"])
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["MASTER_PORT"] = str(CONFIG["port"])

# Libraries print; the answers must stay alone on their stream.
REPLY = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)

import torch
import torch.distributed as dist
import torch.nn.functional as F

import cifar_data
import nets


def adam(parameters, setting):
    return torch.optim.Adam(parameters, lr=1e-3, fused=True if setting.get("fused") else None)


class Single:
    """One process, no wrapper."""

    def __init__(self, setting):
        self.setting = setting
        self.net = nets.make(CONFIG["net"])
        self.initial = load_weights()
        self.net.load_state_dict(self.initial)
        if setting.get("channels_last"):
            self.net = self.net.to(memory_format=torch.channels_last)
        self.model = self.wrap()
        self.optimizer = adam(self.model.parameters(), setting)
        self.loss = lambda x, y: F.cross_entropy(self.model(x), y)
        if setting.get("compile"):
            # Loss included: Inductor then fuses it with the last layer, in both directions.
            self.loss = torch.compile(self.loss, mode=setting.get("compile_mode"))

    def wrap(self):
        return self.net

    def reset(self):
        # In place, so that compiled code and communication buckets stay valid.
        self.net.load_state_dict(self.initial)
        self.optimizer.state.clear()

    def step(self, x, y):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Ddp(Single):
    """torch.nn.parallel.DistributedDataParallel on gloo."""

    def wrap(self):
        views = bool(self.setting.get("bucket_view"))
        return torch.nn.parallel.DistributedDataParallel(
            self.net, gradient_as_bucket_view=views, static_graph=views
        )

    def step(self, x, y):
        # With gradients as views of the buckets, None would throw the views away.
        self.optimizer.zero_grad(set_to_none=not self.setting.get("bucket_view"))
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        return loss.detach()


class Fsdp2(Single):
    """torch.distributed.fsdp.fully_shard: every parameter sharded, gathered again in backward."""

    def wrap(self):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (CONFIG["world"],))
        if self.setting["units"] == "layer":
            for module in self.net.modules():
                if isinstance(module, (torch.nn.Conv2d, torch.nn.Linear)):
                    fully_shard(module, mesh=mesh, reshard_after_forward=True)
        fully_shard(self.net, mesh=mesh, reshard_after_forward=True)
        return self.net

    def reset(self):
        from torch.distributed.tensor import distribute_tensor

        with torch.no_grad():
            for name, parameter in self.net.named_parameters():
                full = self.initial[name]
                parameter.copy_(
                    distribute_tensor(full, parameter.device_mesh, parameter.placements)
                )
        self.optimizer.state.clear()


class DeepSpeed3:
    """DeepSpeed's engine, ZeRO stage 3, CPU accelerator, gloo, fp32."""

    def __init__(self, setting):
        self.setting = setting
        self.reset()

    def reset(self):
        import deepspeed

        # ZeRO-3 has no public way back to the first step: a new engine each time.
        net = nets.make(CONFIG["net"])
        net.load_state_dict(load_weights())
        zero = {"stage": 3, "overlap_comm": False, "contiguous_gradients": True}
        if self.setting.get("persistence") == 0:
            zero["stage3_param_persistence_threshold"] = 0
            zero["stage3_model_persistence_threshold"] = 0
        config = {
            "train_micro_batch_size_per_gpu": CONFIG["batch"],
            "gradient_accumulation_steps": 1,
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 10**9,
        }
        self.engine = deepspeed.initialize(
            model=net, optimizer=adam(net.parameters(), self.setting), config=config
        )[0]

    def step(self, x, y):
        loss = F.cross_entropy(self.engine(x), y)
        self.engine.backward(loss)
        self.engine.step()
        return loss.detach()


class AllReduce:
    """No training: a step is one all_reduce of a buffer, in place."""

    def __init__(self, setting):
        # Zeros: sums that stay what they are.
        self.buffer = torch.zeros(CONFIG["bytes"] // 4)

    def reset(self):
        pass

    def step(self):
        dist.all_reduce(self.buffer)
        return self.buffer[0]


KINDS = {
    "single": Single,
    "ddp": Ddp,
    "fsdp2": Fsdp2,
    "deepspeed": DeepSpeed3,
    "all_reduce": AllReduce,
}


def load_weights():
    from safetensors.torch import load_file

    return load_file(CONFIG["weights"])


def no_batches(step):
    return ()


class Batches:
    """This rank's slice of each step's batch, from samples in file order."""

    def __init__(self, steps, channels_last):
        world, batch = CONFIG["world"], CONFIG["batch"]
        images, labels = cifar_data.read_batch(CONFIG["data"], 0, steps * world * batch)
        mine = slice(CONFIG["rank"], None, world)
        images = images.reshape(steps, world, batch, 3, 32, 32).swapaxes(0, 1)[CONFIG["rank"]]
        labels = labels.reshape(steps * world, batch)[mine]
        x = torch.from_numpy(cifar_data.normalise(images.reshape(-1, 3, 32, 32)))
        if channels_last:
            x = x.contiguous(memory_format=torch.channels_last)
        self.x, self.y = x, torch.from_numpy(labels.copy()).reshape(-1)
        self.batch = batch

    def __call__(self, step):
        rows = slice(step * self.batch, (step + 1) * self.batch)
        return self.x[rows], self.y[rows]


def train(trainer, batches, warmup, steps):
    trainer.reset()
    seconds, losses = [], []
    for i in range(warmup + steps):
        start = time.perf_counter()
        loss = trainer.step(*batches(i))
        end = time.perf_counter()
        losses.append(loss)
        if i >= warmup:
            seconds.append(end - start)
    losses = torch.stack(losses)
    if CONFIG["world"] > 1:
        dist.all_reduce(losses)
        losses /= CONFIG["world"]
    return {"seconds": seconds, "losses": losses.tolist()}


def reply(message):
    print(json.dumps(message), file=REPLY, flush=True)


def main():
    setting = CONFIG["setting"]
    # First of all: threads of the OpenMP pool inherit the mode when they are created.
    if setting.get("flush_denormal"):
        torch.set_flush_denormal(True)
    torch.set_num_threads(CONFIG["threads"])
    if CONFIG["world"] > 1:
        if CONFIG["kind"] == "deepspeed":
            import deepspeed

            deepspeed.init_distributed("gloo")
        else:
            dist.init_process_group("gloo")
    trainer = KINDS[CONFIG["kind"]](setting)
    batches = no_batches
    if CONFIG["kind"] != "all_reduce":
        batches = Batches(CONFIG["steps"], setting.get("channels_last"))
    reply({"ready": True})
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "quit":
            break
        reply(train(trainer, batches, command["warmup"], command["steps"]))
    if CONFIG["world"] > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # the parent prints it beside the case's name
        traceback.print_exc()
        reply({"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)

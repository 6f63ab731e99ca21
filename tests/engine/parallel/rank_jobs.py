"""Run by test_ranks.py in a process of its own: worlds of forked ranks, each of which stores what it saw.

Usage: rank_jobs.py FOLDER. Writes FOLDER/WORLD-RANK.pt. One interpreter imports torch for all of them.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.data.lists.row_arrays import Texts
from dualformer_cli.engine.parallel import gradients, placement, reductions
from dualformer_cli.engine.parallel.batch_norm import average_running_statistics, convert_batch_norm
from dualformer_cli.engine.parallel.gradients import GradientSums
from dualformer_cli.engine.parallel.node_memory import made_once_a_node
from dualformer_cli.engine.parallel.ranks import Ranks, init_ranks
from dualformer_cli.engine.parallel.reductions import (
    any_rank,
    barrier,
    broadcast_object,
    gather_objects,
    sum_over_ranks,
)
from dualformer_cli.engine.parallel.same_weights import digest_of_all_ranks
from dualformer_cli.engine.training.state import Origin, TrainingState
from dualformer_cli.engine.training.stop_signals import StopSignals
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.dualformer import DualFormer

SHARES = {"two": [5, 2], "three": [4, 0, 3]}
"""Samples of each rank, of the seven that one process has; a rank may have none."""

Job = Callable[[int, int], Any]


def samples() -> Tensor:
    return torch.randn(7, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3 + 1


def network(mode: Any, dtype: torch.dtype) -> nn.Module:
    """Two BatchNorms with something between them, moments and parameters off their initial values."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.BatchNorm3d(4), nn.Conv3d(4, 6, 1), nn.ReLU(), nn.BatchNorm3d(6, momentum=None))
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return convert_batch_norm(model.to(dtype), mode)


def sum_all_gradients(parameters: Iterable[Tensor]) -> None:
    sums = GradientSums(parameters)
    sums.finish(sum_over_ranks(sums.present()))


def train_network(model: nn.Module, x: Tensor, first: int) -> dict[str, Any]:
    """Three forward and backward passes over samples that begin at `first`; gradients are summed over the ranks."""
    weights = torch.linspace(-1, 1, 7 * 6 * 18).view(7, 6, 2, 3, 3).to(x)[first : first + len(x)]
    x = x.clone().requires_grad_()
    for _ in range(3):
        output = model(x)
        (output.square() * weights).sum().backward()
    sum_all_gradients(model.parameters())
    return {
        "output": output.detach(),
        "input_gradient": x.grad,
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "buffers": dict(model.named_buffers()),
    }


def video_model() -> DualFormer:
    torch.manual_seed(3)
    model = DualFormer(
        input_size=(4, 64, 64),
        num_classes=3,
        embed_dims=(32, 32),
        depths=(2, 2),
        num_heads=(1, 1),
        patch_sizes=((2, 4, 4), (1, 2, 2)),
        window_size=(2, 4, 4),
        fine_grid=(2, 4, 4),
        coarse_grid=(2, 2, 2),
        mlp_ratio=4.0,
        dropout=0.0,
        drop_path=0.0,
    )
    convert_batch_norm(model, "synchronized")
    return model.double().train()


def train_video_model(first: int, count: int) -> dict[str, Tensor]:
    """Gradients of a DualFormer over clips [first, first + count) of seven, summed over the ranks."""
    model = video_model()
    clips = torch.randn(7, 3, 4, 64, 64, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    labels = torch.arange(7) % 3
    part = slice(first, first + count)
    nn.functional.cross_entropy(model(clips[part]), labels[part], reduction="sum").backward()
    sum_all_gradients(model.parameters())
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def exchange(rank: int, world_size: int) -> dict[str, Any]:
    """Every kind of exchange once."""
    tensor, array = torch.arange(3.0) + rank, np.array([[1, 2], [3, 4]], dtype=np.int64) * (rank + 1)
    values = np.random.default_rng(rank).normal(size=1000).astype(np.float32)
    half = convert_batch_norm(nn.BatchNorm3d(2), "synchronized").bfloat16()
    barrier()
    return {
        "rank": rank,
        "tensor": sum_over_ranks(tensor),
        "tensor_before": tensor,
        "array": sum_over_ranks(array).tolist(),
        "array_before": array.tolist(),
        "float_bits": sum_over_ranks(values).tobytes(),
        "scalar": float(sum_over_ranks(torch.tensor(0.5, dtype=torch.float64))),
        "objects": gather_objects({"rank": rank, "text": "x" * 10**rank}),
        "from_main": broadcast_object(["main", rank]),
        "any": [any_rank(rank == 1), any_rank(False), any_rank(True)],
        "half": str(half(torch.ones(2, 2, 1, 2, 2, dtype=torch.bfloat16)).dtype),
    }


def gradients_of_some(rank: int, world_size: int) -> list[list[float] | None]:
    """Gradients that all, some and no ranks have, and one whose layout is not contiguous."""
    gradients._BUCKET_BYTES = 40
    parameters = [nn.Parameter(torch.zeros(2, 3)) for _ in range(4)]
    parameters.append(nn.Parameter(torch.zeros(2, dtype=torch.float64)))
    parameters.append(nn.Parameter(torch.zeros(2), requires_grad=False))
    parameters[0].grad = torch.full((2, 3), rank + 1.0)
    if rank == 1:
        parameters[1].grad = torch.arange(6.0).view(2, 3)
    parameters[3].grad = torch.arange(6.0).view(3, 2).t()
    parameters[4].grad = torch.full((2,), 0.5, dtype=torch.float64)
    sum_all_gradients(parameters)
    return [None if parameter.grad is None else parameter.grad.reshape(-1).tolist() for parameter in parameters]


class Layers(nn.Module):
    """Four layers of small whole numbers, whose gradients are whole too: their sums are exact in every order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
        for parameter in self.parameters():
            parameter.data = torch.randint(-2, 3, parameter.shape).float()

    def loss(self, seed: int, used: str) -> Tensor:
        """Of random numbers through the layers of these numbers."""
        x = torch.randint(-3, 4, (2, 4), generator=torch.Generator().manual_seed(seed)).float()
        for number in used:
            x = self.layers[int(number)](x)
        return x.sum()


STEPS = [
    ("0123", "0123", 1),
    ("0123", "0123", 1),
    ("0123", "", 1),
    ("0123", "0123", 2),
    ("013", "013", 1),
    ("0123", "013", 1),
    ("013", "0123", 2),
]
"""The layers that rank 0 uses in each step, those of the others, and the passes; without layers there is none."""


def gradients_on_the_way(rank: int, world_size: int) -> dict[str, Any]:
    """Sums of every step, what they are to be, and how many gradients a rank has whenever it sends some."""
    gradients._BUCKET_BYTES = 80  # a layer's weight and bias
    model, sent, begin = Layers(), [], gradients.begin_sum
    model.layers[0].weight.requires_grad_(False)
    sums, parameters = GradientSums(model.parameters()), [p for p in model.parameters() if p.requires_grad]

    def begin_sum(values: Tensor, doing: str) -> Any:
        sent[-1].append(sum(parameter.grad is not None for parameter in parameters))
        return begin(values, doing)

    gradients.begin_sum = begin_sum
    found, wanted = [], []
    for step, (first, others, passes) in enumerate(STEPS):
        used = others if rank else first
        sent.append([])
        own = [torch.zeros_like(parameter) for parameter in parameters]
        model.zero_grad()
        for seed in range(passes if used else 0):
            parts = torch.autograd.grad(model.loss(100 * step + 10 * seed + rank, used), parameters, allow_unused=True)
            own = [whole if part is None else whole + part for whole, part in zip(own, parts, strict=True)]
            if seed == passes - 1:
                sums.follow()
            model.loss(100 * step + 10 * seed + rank, used).backward()
        sent[-1].append("after the passes")
        sums.send_rest()
        sums.finish(sum_over_ranks(sums.present()))
        wanted.append([sum(parts).tolist() for parts in zip(*gather_objects(own), strict=True)])
        found.append([None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters])
    gradients.begin_sum = begin
    return {"found": found, "wanted": wanted, "sent": sent}


def same_bits(rank: int, world_size: int) -> bool:
    """Whether gradients that travel during the backward pass have the sums of those that travel after it."""
    gradients._BUCKET_BYTES = 2000
    torch.manual_seed(6)
    model, x = nn.Sequential(*[nn.Linear(16, 16) for _ in range(6)]), torch.randn(3, 16) * (rank + 1)
    sums, seen = GradientSums(model.parameters()), []
    for _ in range(2):
        model.zero_grad()
        sums.follow()
        model(x).square().sum().backward()
        sums.send_rest()
        sums.finish(sum_over_ranks(sums.present()))
        seen.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    return all(torch.equal(one, other) for one, other in zip(*seen, strict=True))


def averaged_buffers(rank: int, world_size: int) -> dict[str, Tensor]:
    model = nn.Sequential(nn.BatchNorm3d(2), nn.BatchNorm3d(1))
    for layer in model:
        layer.running_mean.fill_(rank + 0.5)  # type: ignore[operator]
        layer.running_var.fill_(0.1)  # type: ignore[operator]
        layer.num_batches_tracked.fill_(7 - rank)  # type: ignore[operator]
    average_running_statistics(model)
    return dict(model.named_buffers())


def batch_norm(rank: int, world_size: int) -> dict[str, Any]:
    shares = SHARES["two" if world_size == 2 else "three"]
    first, count = sum(shares[:rank]), shares[rank]
    part = samples()[first : first + count]
    return {
        "double": train_network(network("synchronized", torch.float64), part, first),
        "single": train_network(network("synchronized", torch.float32), part.float(), first),
        "video": train_video_model(first, count),
    }


def stop_signals(rank: int, world_size: int) -> list[Any]:
    """A signal that rank 1 alone receives, and a save that is due by rank 0's clock."""
    signals = StopSignals()
    before = [signals.heard(), signals.of_any_rank(), signals.agree(is_due=rank == 0)]
    with signals.caught():
        if rank == 1:
            os.kill(os.getpid(), signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while not signals.heard() and time.monotonic() < deadline:
            time.sleep(0.01)
    return [*before, signals.heard(), signals.of_any_rank(), StopSignals().heard()]


def same_weights(rank: int, world_size: int) -> list[str]:
    """The digest of equal tensors, and what is said of others on the last rank."""
    found = [digest_of_all_ranks({"a": torch.ones(3)})]
    try:
        digest_of_all_ranks({"a": torch.full((3,), float(rank == world_size - 1))})
    except DualFormerError as error:
        found.append(str(error))
    return found


def once_a_node(rank: int, world_size: int) -> dict[str, Any]:
    """What the first rank makes, whether the others have its memory, and what is said where it can make nothing."""
    calls: list[int] = []

    def make() -> dict[str, Any]:
        calls.append(rank)
        return {"numbers": np.arange(100_000) + rank, "texts": Texts.of(["a", "\u00e9", ""]), "names": ["x"]}

    def fail() -> None:
        raise DualFormerError(f"rank {rank} finds no list")

    ranks = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
    made = made_once_a_node(ranks, "reading", make)
    maps = Path("/proc/self/maps").read_text().splitlines()
    descriptors = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    apart = Ranks(rank=rank, local_rank=1 - min(rank, 1), world_size=world_size, device=torch.device("cpu"))
    try:
        made_once_a_node(apart, "reading", fail)
    except DualFormerError as error:
        said = str(error)
    return {
        "calls": calls,
        "sum": int(made["numbers"].sum()),
        "rest": [list(made["texts"]), made["names"]],
        "is_writable": made["numbers"].flags.writeable,
        "mapped": sum("memfd:dualformer" in line for line in maps),
        "open": sum("memfd:dualformer" in name for name in descriptors),
        "said": said,
    }


def saved_statistics(rank: int, world_size: int) -> dict[str, Any]:
    """A state in the middle of an epoch: what is saved of it, what stays, and what each rank has after it resumed."""

    def state_of(value: float) -> TrainingState:
        model = video_model().float()
        origin = Origin(
            config="",
            class_names=[],
            training_list="",
            validation_list=None,
            token_labels=None,
            global_batch_size=1,
            precision="fp32",
        )
        for name, buffer in model.named_buffers():
            buffer.fill_(value if "running" in name else 1)
        return TrainingState(model, origin, TrainConfig(ema_decay=0.5), lr=0.1, is_scaled=False)

    def mean_of(state: TrainingState) -> float:
        return next(float(buffer[0]) for name, buffer in state.model.named_buffers() if name.endswith("running_mean"))

    state, again = state_of(rank + 1.0), state_of(0.0)
    state.step_in_epoch = 1
    with state.agreed() as statistics:
        contents = state.contents(None, statistics)
        saved = mean_of(state)
        contents = {**contents, "training_model": {k: v.clone() for k, v in state.model.state_dict().items()}}
    again.restore(contents, rank=rank)
    return {"saved": saved, "stays": mean_of(state), "resumed": mean_of(again)}


def all_jobs(rank: int, world_size: int) -> dict[str, Any]:
    jobs: list[Job] = [exchange, gradients_of_some, gradients_on_the_way, same_bits, averaged_buffers, batch_norm]
    jobs += [stop_signals, same_weights, saved_statistics, once_a_node]
    with init_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.world_size, ranks.is_main) == (rank, world_size, rank == 0)
        results = {job.__name__: job(rank, world_size) for job in jobs}
        results["ranks"] = [ranks.local_rank, str(ranks.device), ranks.exit_code(75)]
    results["is_initialized_after"] = torch.distributed.is_initialized()
    return results


def lose_a_rank(rank: int, world_size: int) -> str:
    """Rank 1 dies without a word; what rank 0 says."""
    reductions._SECONDS_FOR_THE_WATCHER = 0.0
    try:
        with init_ranks("cpu"):
            if rank == 1:
                os._exit(9)
            for _ in range(1000):
                barrier()
    except DualFormerError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing happened"


def wait_alone(rank: int, world_size: int) -> str:
    """The other rank never comes."""
    if rank == 1:
        return ""
    try:
        with init_ranks("cpu", timeout=1.0):
            return "joined nobody"
    except DualFormerError as error:
        return str(error)


def start_without_launcher(rank: int, world_size: int) -> str:
    """The process that started this rank died before the rank could tie itself to it."""
    os.environ[placement.LAUNCHER_PID] = "999999999"
    try:
        with init_ranks("cpu"):
            return "started"
    except DualFormerError as error:
        return str(error)


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has, each once."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def variables(rank: int, world_size: int, port: int, *, srun: bool) -> dict[str, str]:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    names = (
        ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_TASKS_PER_NODE")
        if srun
        else ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    )
    return {**address, **dict(zip(names, map(str, (rank, rank, world_size, world_size)), strict=True))}


class World(NamedTuple):
    """Ranks that know of each other, and what each of them does."""

    name: str
    job: Job
    size: int
    srun: bool = False


def run_worlds(worlds: Sequence[World], folder: Path) -> None:
    """Fork the ranks of all worlds and wait for them, as most of them wait most of the time.

    A rank that raises leaves its traceback on stderr and no file.
    """
    pids = []
    for world, port in zip(worlds, free_ports(len(worlds)), strict=True):
        for rank in range(world.size):
            if pid := os.fork():
                pids.append(pid)
                continue
            try:
                os.environ.update(variables(rank, world.size, port, srun=world.srun))
                torch.save(world.job(rank, world.size), folder / f"{world.name}-{rank}.pt")
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(0)
    for pid in pids:
        os.waitpid(pid, 0)


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    importlib.import_module("torch._dynamo")  # optimizers load it: here once, and not in every rank
    worlds = [
        World("two", all_jobs, 2),
        World("three", all_jobs, 3, srun=True),
        World("lost", lose_a_rank, 2),
        World("alone", wait_alone, 2),
        World("orphan", start_without_launcher, 1),
    ]
    run_worlds(worlds, folder)


if __name__ == "__main__":
    main()

"""This process among the others of its run: joining them at the start, leaving them at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist

from dualformer_cli.engine.parallel.devices import device_of
from dualformer_cli.engine.parallel.placement import LAUNCHER_PID, Placement, integer, read_placement
from dualformer_cli.engine.parallel.reductions import barrier, first_sentence
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.signals import die_with_parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that work together."""

    rank: int
    """Number of this process among all."""
    local_rank: int
    """Number of this process on this machine."""
    world_size: int
    """Number of processes on all machines."""
    device: torch.device
    lost: list[int] = field(default_factory=list)
    """Ranks that died, where the work goes on without them: nothing needs all of them any more then."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def exit_code(self, code: int) -> int:
        """The code that this process leaves with when the run as a whole ends with `code` (3, 75, ...).

        Rank 0 alone speaks for the run: torchrun takes the first process that leaves with anything but 0 for dead,
        and kills the others at their work.
        """
        return code if self.is_main else 0


@contextmanager
def init_ranks(device_name: str, *, timeout: timedelta = timedelta(minutes=30)) -> Iterator[Ranks]:
    """Join the other processes of this run, as torchrun's or srun's variables name them, and leave them at the end.

    Args:
        device_name: auto, cpu, cuda or cuda:INDEX. Of several processes on a machine each takes the GPU of its
            local rank.
        timeout: how long to wait for another process, here and in every later exchange.

    Raises:
        DualFormerError: if there is no such device, the variables contradict each other, or the others do not come.
    """
    _die_with_launcher()
    placement = read_placement(os.environ)
    ranks = Ranks(
        rank=placement.rank,
        local_rank=placement.local_rank,
        world_size=placement.world_size,
        device=device_of(placement, device_name),
    )
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if ranks.world_size == 1:
        yield ranks
        return
    _join(placement, ranks.device, timeout)
    is_done = False
    try:
        yield ranks
        if not ranks.lost:
            barrier()  # so that no process takes the others' store or connections with it
        is_done = True
    finally:
        if is_done or ranks.device.type == "cpu":  # NCCL would wait here for what the others never send
            dist.destroy_process_group()


def _join(placement: Placement, device: torch.device, timeout: timedelta) -> None:
    """Connect all processes; small things go through Gloo, tensors on GPUs through NCCL.

    Raises:
        DualFormerError: if the others cannot be reached in time.
    """
    if placement.is_srun:  # two jobs on one machine must not meet
        os.environ.setdefault("MASTER_PORT", str(20000 + integer(os.environ, "SLURM_JOB_ID", 0) % 10000))
    if placement.local_world_size == placement.world_size and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # works also where the machine's own name does not resolve
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, rank=placement.rank, world_size=placement.world_size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise DualFormerError(
            f"rank {placement.rank} of {placement.world_size} could not join the others at {address}: "
            f"{first_sentence(error)}; check that all of them run and that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error


def _die_with_launcher() -> None:
    """Have the kernel end this process when the one that started it ends, however that happens (Linux).

    Raises:
        DualFormerError: if it is gone already.
    """
    pid = os.environ.pop(LAUNCHER_PID, None)
    if pid is None or sys.platform != "linux":
        return
    die_with_parent()
    if os.getppid() != int(pid):
        raise DualFormerError(f"process {pid}, which started this rank, is gone")

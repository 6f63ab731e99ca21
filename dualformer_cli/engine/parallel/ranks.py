"""This process among the others of its run: joining them at the start, leaving them at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from dualformer_cli.config.schema import RuntimeConfig
from dualformer_cli.engine.parallel.devices import device_of
from dualformer_cli.engine.parallel.joining import Joining
from dualformer_cli.engine.parallel.placement import LAUNCHER_PID, Placement, integer, read_placement
from dualformer_cli.engine.parallel.reductions import barrier, first_sentence, has_unfinished
from dualformer_cli.engine.parallel.watch import Watch
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.signals import die_with_parent

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_CONNECT_SECONDS = 120.0
"""Within it processes that have met reach each other."""
_NO_TIMEOUT = timedelta(days=365)
"""Of Gloo's exchanges: `Watch` gives them up."""


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
    watch: Watch | None = None
    """What is known of the others; None where there are none."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def exit_code(self, code: int) -> int:
        """The code that this process leaves with when the run as a whole ends with `code`.

        Rank 0 alone speaks for the run: torchrun takes the first process that leaves with anything but 0 for dead,
        and kills the others at their work.
        """
        return code if self.is_main else 0


@contextmanager
def init_ranks(device_name: str, *, timeout: float = RuntimeConfig().exchange_seconds()) -> Iterator[Ranks]:
    """Join the other processes of this run, as torchrun's or srun's variables name them, and leave them at the end.

    Args:
        device_name: auto, cpu, cuda or cuda:INDEX. Of several processes on a machine each takes the GPU of its
            local rank.
        timeout: how many seconds to wait for another process, here and in every later exchange.

    Raises:
        DualFormerError: if there is no such device, the variables contradict each other, or the others do not come.
    """
    _die_with_launcher()
    placement = read_placement(os.environ)
    device = device_of(placement, device_name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    ranks = Ranks(rank=placement.rank, local_rank=placement.local_rank, world_size=placement.world_size, device=device)
    if ranks.world_size == 1:
        yield ranks
        return
    with _joined(placement, device, timeout, ranks.lost) as watch:
        is_done = False
        try:
            yield replace(ranks, watch=watch)
            if not ranks.lost:
                barrier()  # so that no process takes the others' store or connections with it
            is_done = True
        finally:
            # NCCL would wait here for what the others never send, and so would Gloo in an exchange that was given up.
            if is_done or (device.type == "cpu" and not has_unfinished()):
                dist.destroy_process_group()


@contextmanager
def _joined(placement: Placement, device: torch.device, timeout: float, lost: list[int]) -> Iterator[Watch]:
    """Meet the other processes and connect with them; inside the `with` block they are watched.

    Raises:
        DualFormerError: if they do not come, or cannot be reached.
    """
    _choose_network(placement)
    joining = Joining(placement, timeout)
    with Watch(joining.store(), placement.rank, placement.world_size, timeout=timeout, lost=lost) as watch:
        joining.wait_until_all_are_here(watch.notes.absent)
        _connect(joining, watch.store, device, timeout)
        watch.start()
        yield watch


def _choose_network(placement: Placement) -> None:
    if placement.is_srun:  # two jobs on one machine must not meet
        os.environ.setdefault("MASTER_PORT", str(20000 + integer(os.environ, "SLURM_JOB_ID", 0) % 10000))
    if placement.local_world_size == placement.world_size and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # works also where the machine's own name does not resolve


def _connect(joining: Joining, store: Store, device: torch.device, timeout: float) -> None:
    """Connect all processes, which have met; small things go through Gloo, tensors on GPUs through NCCL.

    Raises:
        DualFormerError: if they cannot reach each other.
    """
    placement = joining.placement
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(
            backend,
            store=store,
            rank=placement.rank,
            world_size=placement.world_size,
            timeout=timedelta(seconds=min(timeout, _CONNECT_SECONDS)),
        )
    except (RuntimeError, ValueError) as error:
        raise joining.failure(first_sentence(error)) from error
    group = dist.group.WORLD
    assert group is not None
    group._get_backend(torch.device("cpu"))._set_default_timeout(_NO_TIMEOUT)
    if device.type == "cuda":
        group._get_backend(device)._set_default_timeout(timedelta(seconds=timeout))


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

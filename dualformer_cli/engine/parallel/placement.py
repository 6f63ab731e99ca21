"""Who this process is among others, as torchrun's or srun's environment variables say; nobody else reads them.

`devices.device_of` says which GPU it takes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dualformer_cli.errors import DualFormerError

LAUNCHER_PID = "DUALFORMER_LAUNCHER_PID"
"""Environment variable with the process that started this rank and without which it shall not live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """This process as the environment describes it."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    is_srun: bool = False


def is_one_of_many(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether torchrun or srun started this process together with others.

    Raises:
        DualFormerError: if their variables contradict each other.
    """
    return read_placement(environ).world_size > 1


def read_placement(environ: Mapping[str, str]) -> Placement:
    """Read torchrun's variables, else srun's.

    Raises:
        DualFormerError: if a variable is missing or contradicts another one.
    """
    if "RANK" in environ or (integer(environ, "WORLD_SIZE", 1) > 1 and "SLURM_PROCID" not in environ):
        placement = Placement(
            rank=integer(environ, "RANK"),
            local_rank=integer(environ, "LOCAL_RANK", 0),
            world_size=integer(environ, "WORLD_SIZE"),
            local_world_size=integer(environ, "LOCAL_WORLD_SIZE", 1),
        )
    elif "SLURM_PROCID" in environ and "MASTER_ADDR" in environ:
        placement = _srun_placement(environ)
    elif integer(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        raise DualFormerError(
            f"srun started {environ['SLURM_STEP_NUM_TASKS']} tasks, but MASTER_ADDR is not set; before srun, "
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        )
    else:
        placement = Placement()
    if not 0 <= placement.rank < placement.world_size:
        raise DualFormerError(
            f"rank must be between 0 and {placement.world_size - 1} in a world of {placement.world_size} processes, "
            f"got {placement.rank}; see RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, in the environment"
        )
    return placement


def _srun_placement(environ: Mapping[str, str]) -> Placement:
    def first_set(*names: str) -> str:
        return next((name for name in names if name in environ), names[0])

    tasks_per_node = environ.get(first_set("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"), "1")
    node = integer(environ, "SLURM_NODEID", 0)
    tasks = [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks_per_node)
        for _ in range(int(times or 1))
    ]
    return Placement(
        rank=integer(environ, "SLURM_PROCID"),
        local_rank=integer(environ, "SLURM_LOCALID", 0),
        world_size=integer(environ, first_set("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
        local_world_size=tasks[node] if node < len(tasks) else 1,
        is_srun=True,
    )


def integer(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\s*[0-9]+\s*", text):
        found = "is not set" if text is None else f"is {text!r}"
        raise DualFormerError(f"environment variable {name} must be a whole number, but {found}; start with torchrun")
    return int(text)

"""How many processes decode videos for a rank."""

from __future__ import annotations

import os
from pathlib import Path

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.engine.parallel.placement import read_placement
from dualformer_cli.system.threads import usable_cores

MOST_DECODERS = 8
"""Decoding processes beside a CPU that computes: each may hold a video's views, 77 MB for 16 clips of k400-tiny."""

NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")


def num_decoders(resolved: ResolvedConfig) -> int:
    """Return how many processes decode videos for this rank: the number that was given, or else by its share of cores.

    On a CPU they are up to MOST_DECODERS, beside as many threads that compute. A GPU takes more videos than the cores
    can decode, so all cores but one do nothing else; whether there is one is seen by its driver, as torch loads later.
    """
    runtime = resolved.config.runtime
    if runtime.num_workers is not None:
        return runtime.num_workers
    cores = usable_cores() // read_placement(os.environ).local_world_size
    has_gpu = runtime.device != "cpu" and NVIDIA_DRIVER.exists()
    return max(1, cores - 1 if has_gpu else min(MOST_DECODERS, cores))

"""How the preset's global batch is cut on the processes that a run has."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.errors import ConfigError
from dualformer_cli.system.words import counted


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the preset's global batch is cut on this many processes."""

    batch_size: int
    accumulation: int
    global_batch_size: int
    lr: float
    sentence: str
    """For the log: what was kept and what was not."""


def plan_recipe(config: TrainConfig, world_size: int) -> Recipe:
    """Keep the global batch by accumulation where the number of processes divides it.

    Else take the nearest batch that they can share evenly, and scale the learning rate with it.
    """
    wanted, largest = config.global_batch_size, config.batch_size
    if wanted % world_size == 0:
        of_rank = wanted // world_size
        sizes = (size for size in range(min(largest, of_rank), 0, -1) if of_rank % size == 0)
        batch_size = next(size for size in sizes if size % config.repeats == 0 or size == 1)
        lr, total, kept = config.lr, wanted, "kept"
    else:
        passes = max(1, ceil(round(wanted / world_size) / largest))
        batch_size = min(largest, max(1, round(wanted / (world_size * passes * config.repeats))) * config.repeats)
        of_rank = batch_size * passes
        total = of_rank * world_size
        lr, kept = config.lr * total / wanted, f"in place of {wanted}, so lr is {config.lr * total / wanted:g}"
    if batch_size % config.repeats:
        raise ConfigError(
            f"train.repeats {config.repeats} must divide the batch of a process, {counted(batch_size, 'clip')}"
        )
    accumulation = of_rank // batch_size
    sentence = (
        f"{counted(total, 'clip')} per step ({kept}): {counted(world_size, 'process')} x "
        f"{counted(batch_size, 'clip')} x {counted(accumulation, 'pass')}"
    )
    return Recipe(batch_size, accumulation, total, lr, sentence)


def large_step(recipe: Recipe, clips: int) -> list[str]:
    """Return a sentence that says that an epoch has fewer clips than a step takes, if that is so."""
    if clips >= recipe.global_batch_size:
        return []
    return [
        f"an epoch has {counted(clips, 'clip')}, less than a step takes, so it is one step of those; smaller "
        "train.global_batch_size and train.lr, in proportion, make several"
    ]

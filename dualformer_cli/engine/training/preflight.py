"""`train --dry-run`: one real forward and backward pass, and what it shows of the whole run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

import torch

from dualformer_cli.data.clips.epoch_plan import epoch_order
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.documents.train import Preflight
from dualformer_cli.engine.parallel.devices import peak_memory_mib
from dualformer_cli.engine.parallel.reductions import any_rank
from dualformer_cli.engine.training.loop import Trainer
from dualformer_cli.engine.training.optim import train_mode
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.disk import free_bytes, lack_of_room

QUICK_SECONDS = 10.0
"""A first pass that took longer is not repeated on a CPU: what it took beside computing is a small part."""


def preflight(trainer: Trainer, *, on_stage: Callable[[str], None] = lambda stage: None) -> Preflight:
    """Measure one pass of a step and return what a run would cost; nothing is saved.

    Args:
        trainer: of the run.
        on_stage: called with what follows, three times at most.

    Raises:
        DualFormerError: if no video of the pass can be read.
    """
    config, state = trainer.config, trainer.state
    order = epoch_order(len(trainer.lists.training), seed=config.runtime.seed, epoch=0)
    train_mode(state.model, frozen_stages=config.train.frozen_stages)
    with trainer.pool() as pool:
        on_stage("reading videos")
        passes = trainer.steps(pool, order, passes=1)
        batches = next(passes)  # starts the workers
        started = perf_counter()
        batches = next(passes, batches)
        waited = perf_counter() - started
    read_seconds = max(sum(batch.read_seconds for batch in batches) / trainer.num_workers, 1e-9)
    on_stage("first forward and backward pass")
    count, model_seconds = _timed_pass(trainer, batches)
    if any_rank(model_seconds < QUICK_SECONDS or trainer.ranks.device.type == "cuda" or config.runtime.compile):
        on_stage("second pass, which counts")  # the first also took memory, chose kernels or compiled them
        state.unreadable = 0  # the same videos count again
        count, model_seconds = _timed_pass(trainer, batches)
    if not count:
        raise DualFormerError("no video of the first batch can be read; see the warnings above")
    read, model = count / read_seconds, count / model_seconds
    num_clips = config.train.epochs * len(trainer.lists.training) * config.train.repeats
    num_bytes = _bytes_of_checkpoints(trainer)
    lack = lack_of_room(trainer.log.output, num_bytes)
    warnings = [f"no room: {lack}"] if lack else []
    if read < model:
        warnings.append(
            f"videos are read slower ({read:.1f} clips/s) than the model could take them ({model:.1f} clips/s); "
            "raise runtime.num_workers, or store smaller videos"
        )
    return Preflight(
        notes=tuple(trainer.notes),
        classes=len(trainer.lists.training.class_names),
        lr=trainer.recipe.lr,
        steps=trainer.num_steps,
        peak_memory_mib=peak_memory_mib(trainer.ranks.device),
        read_clips_per_second=read,
        model_clips_per_second=model,
        passes=trainer.batches.accumulation,
        limited_by="reading" if read < model else "the model",
        waited_seconds=waited,
        hours=num_clips / min(read, model) / 3600,
        disk_needed_gib=num_bytes / 2**30,
        disk_free_gib=free_bytes(trainer.log.output) / 2**30,
        warnings=tuple(warnings),
    )


def _timed_pass(trainer: Trainer, batches: Sequence[Batch]) -> tuple[int, float]:
    """Take a step of these batches, and return its clips and seconds."""
    started = perf_counter()
    _, count = trainer.stepper.step(batches, trainer.recipe.lr / 10)
    if trainer.ranks.device.type == "cuda":
        torch.cuda.synchronize(trainer.ranks.device)
    return count, perf_counter() - started


def _bytes_of_checkpoints(trainer: Trainer) -> int:
    """Return the room of all checkpoints of a run: those of epochs, and last, previous and best."""
    parameters = sum(p.numel() for p in trainer.state.model.parameters())
    copies = 3 + (trainer.state.average is not None)
    per_checkpoint = 4 * parameters * copies
    return per_checkpoint * (trainer.config.train.keep_epochs + 3)

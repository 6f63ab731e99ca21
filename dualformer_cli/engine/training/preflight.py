"""`train --dry-run`: one real step, and what it shows of the whole run."""

from __future__ import annotations

from time import perf_counter

import torch

from dualformer_cli.data.clips.loader import epoch_order
from dualformer_cli.documents.train import Preflight
from dualformer_cli.engine.parallel.devices import peak_memory_mib
from dualformer_cli.engine.training.loop import Trainer
from dualformer_cli.engine.training.optim import train_mode
from dualformer_cli.system.disk import free_bytes, lack_of_room


def preflight(trainer: Trainer) -> Preflight:
    """Take one real step and measure what a run would cost; nothing is saved."""
    config, state, lr = trainer.config, trainer.state, trainer.recipe.lr / 10
    order = epoch_order(len(trainer.lists.training), seed=config.runtime.seed, epoch=0)
    train_mode(state.model, frozen_stages=config.train.frozen_stages)
    with trainer.pool() as pool:
        steps = trainer.steps(pool, order)
        next(steps, None)  # starts the workers
        started = perf_counter()
        batches = next(steps, None) or next(trainer.steps(pool, order))
        read_seconds = max(sum(batch.read_seconds for batch in batches) / trainer.num_workers, 1e-9)
        waited = perf_counter() - started
    trainer.stepper.step(batches, lr)
    state.unreadable = 0  # the same videos count again
    started = perf_counter()
    _, count = trainer.stepper.step(batches, lr)
    if trainer.ranks.device.type == "cuda":
        torch.cuda.synchronize(trainer.ranks.device)
    model_seconds = perf_counter() - started
    num_bytes = _bytes_of_checkpoints(trainer)
    lack = lack_of_room(trainer.log.output, num_bytes)
    warnings = [f"no room: {lack}"] if lack else []
    if read_seconds > model_seconds:
        warnings.append(
            f"videos are read slower ({count / read_seconds:.1f} clips/s) than the model could take them "
            f"({count / model_seconds:.1f} clips/s); raise runtime.num_workers, or store smaller videos"
        )
    return Preflight(
        notes=tuple(trainer.notes),
        classes=len(trainer.lists.training.class_names),
        lr=trainer.recipe.lr,
        steps=trainer.num_steps,
        peak_memory_mib=peak_memory_mib(trainer.ranks.device),
        read_clips_per_second=count / read_seconds,
        model_clips_per_second=count / model_seconds,
        limited_by="reading" if read_seconds > model_seconds else "the model",
        waited_seconds=waited,
        hours=trainer.num_steps * max(read_seconds, model_seconds) / 3600,
        disk_needed_gib=num_bytes / 2**30,
        disk_free_gib=free_bytes(trainer.log.output) / 2**30,
        warnings=tuple(warnings),
    )


def _bytes_of_checkpoints(trainer: Trainer) -> int:
    """Return the room of all checkpoints of a run: those of epochs, and last, previous and best."""
    parameters = sum(p.numel() for p in trainer.state.model.parameters())
    copies = 3 + (trainer.state.average is not None)
    per_checkpoint = 4 * parameters * copies
    return per_checkpoint * (trainer.config.train.keep_epochs + 3)

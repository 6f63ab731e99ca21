"""Train the recipe of a preset on lists of videos: `dualformer train`."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dualformer_cli.config.load import ResolvedConfig, known_presets
from dualformer_cli.config.option_defaults import TRAIN_OUTPUT
from dualformer_cli.documents.train import Preflight, TrainEvent, TrainResult, ValidationRow
from dualformer_cli.errors import DualFormerError, Stopped, is_out_of_memory
from dualformer_cli.outputs.curves import write_curves
from dualformer_cli.outputs.tracker_events import RunTracker, log_rows
from dualformer_cli.outputs.trackers import check_trackers
from dualformer_cli.system.locks import LOCK_NAME, FolderLock
from dualformer_cli.system.output_checks import check_output_folder
from dualformer_cli.tasks.needs import check_needs
from dualformer_cli.tasks.session import ModelRequest, resolve

if TYPE_CHECKING:
    from dualformer_cli.engine.parallel.ranks import Ranks
    from dualformer_cli.engine.training.loop import Trainer

_LOGGER = logging.getLogger(__name__)
_OWN_FILES = ("config.yaml", "log.jsonl", "curves.png")

NUM_STAGES = 4
"""Of a dry run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What is trained on what, and where it goes. What is None is left to the configuration."""

    model: ModelRequest
    training_list: str | None = None
    validation_list: str | None = None
    output: Path = TRAIN_OUTPUT
    """The run folder."""
    resume: bool = False
    """Go on from the run folder's last checkpoint."""
    changes: tuple[str, ...] = ()
    """Configuration keys that the run shall have from there on, each "dotted.key=value"."""
    init_from: str | None = None
    """Video weights to start from: a file or a preset. Not together with `pretrained_2d`."""
    pretrained_2d: str | None = None
    """Image weights to start from: a file, or "timm"."""
    teacher: str | None = None
    """Labels every token while training: a file or a preset. Not together with `token_labels`."""
    token_labels: str | None = None
    """Folder of token labels."""
    log: tuple[str, ...] = ()
    """Experiment trackers that get the numbers of log.jsonl too: those of `TRACKERS`."""

    def resolve(self) -> ResolvedConfig:
        """Return the configuration that the request describes.

        Without a preset it is that of the run that goes on, or of the weights to start from; these keep their lists
        and teachers to themselves where the request names a list.

        Raises:
            DualFormerError: if there is no such run, the weights bring no configuration, a preset or key is unknown,
                or a value is not allowed.
        """
        preset, text = self._recipe()
        freed = ["train.teacher=null", "train.token_labels=null", "model.token_head=false"] if text else []
        if text and self.training_list is not None:
            freed.append("data.validation_list=null")
        starts = {"train.init_from": self.init_from, "train.pretrained_2d": self.pretrained_2d}
        tokens = {"train.teacher": self.teacher, "train.token_labels": self.token_labels}
        cleared = [  # a choice that is made here ends the preset's other one
            f"{key}=null"
            for choice in (starts, tokens)
            for key, value in choice.items()
            if value is None and any(choice.values())
        ]
        settings = {
            "data.train_list": self.training_list,
            "data.validation_list": self.validation_list,
            **starts,
            **tokens,
            "model.token_head": True if any(tokens.values()) else None,
        }
        overrides = (*freed, *self.model.overrides, *self.changes, *cleared)
        return resolve(replace(self.model, preset=preset, overrides=overrides), settings, text=text)

    def changed_keys(self) -> frozenset[str]:
        """Return the keys that `changes` names."""
        return frozenset(change.partition("=")[0].strip() for change in self.changes)

    def _recipe(self) -> tuple[str | None, str | None]:
        """Return the preset, and its YAML where that is in the weights to start from."""
        preset, start = self.model.preset, self.init_from
        if preset is not None:
            return preset, None
        if self.resume:
            config = self.output / "config.yaml"
            if not config.is_file():
                raise DualFormerError(
                    f"no run to resume in {str(self.output)!r}: it has no config.yaml; name a run's folder as --output"
                )
            return str(config), None
        if start is None or start in known_presets():
            return start, None
        from dualformer_cli.data.fetch.hugging_face import local_weights
        from dualformer_cli.model.weights import config_of, read_checkpoint

        text = config_of(read_checkpoint(local_weights(start, offline=self.model.offline), mapped=True))
        if text is None:
            raise DualFormerError(f"weights {start!r} do not say their configuration; name the recipe with --preset")
        return start, text


def check_request(
    request: TrainRequest, *, dry_run: bool = False, gpus: int | None = None, cpu_processes: int | None = None
) -> ResolvedConfig:
    """Return the configuration, once all is checked that needs no data and no model.

    Args:
        request: what to train.
        dry_run: whether nothing will be written.
        gpus: processes with a GPU each that are to be started.
        cpu_processes: processes without.

    Raises:
        DualFormerError: if the configuration is wrong, the folder cannot be used, or something is missing.
    """
    if request.changes and not request.resume:
        raise DualFormerError("--change is for a run that goes on: add --resume, or use --set for a new run")
    if request.model.preset is None and request.init_from is None and not request.resume:
        raise DualFormerError("there is no recipe: name a preset, for example k400-small, or weights that bring theirs")
    _check_run_folder(request.output, is_new=not request.resume, is_written=not dry_run)
    resolved = request.resolve()
    check_trackers(request.log)
    check_needs(
        resolved.config,
        is_resumed=request.resume,
        offline=request.model.offline,
        gpus=gpus,
        cpu_processes=cpu_processes,
    )
    return resolved


def _check_run_folder(output: Path, *, is_new: bool, is_written: bool) -> None:
    """Refuse a folder that cannot be written, that another program's files are in, or that has a run already.

    Raises:
        DualFormerError: naming what is in the way.
    """
    checkpoints = output / "checkpoints"
    for folder in (output, checkpoints) if os.path.lexists(checkpoints) else (output,):
        check_output_folder(folder)
    files = [output / name for name in _OWN_FILES]
    for path in (*files, *(checkpoints / f"{name}.pt" for name in ("last", "previous", "best"))):
        if path.is_dir():
            raise DualFormerError(f"cannot write {str(path)!r}: it is a folder; remove it, or name another --output")
    if not is_written:
        return
    if checkpoints.exists() and is_new:
        raise DualFormerError(
            f"{str(output)!r} holds a run already; go on with `{resume_command(output)}`, or name another --output"
        )
    is_own = checkpoints.exists() or (output / LOCK_NAME).exists()
    if foreign := [path.name for path in files if path.exists() and not is_own]:
        raise DualFormerError(
            f"{str(output)!r} holds {foreign[0]}, which no run of this program has written; name another --output"
        )


def resume_command(output: Path, log: Sequence[str] = ()) -> str:
    """Return what to type to go on with a run, in the same trackers."""
    command = f"dualformer train --resume --output {shlex.quote(str(output))}"
    return f"{command} --log {','.join(dict.fromkeys(log))}" if log else command


def train(request: TrainRequest, *, on_event: Callable[[TrainEvent], None] = lambda event: None) -> TrainResult | None:
    """Train to the last epoch.

    Args:
        request: what to train.
        on_event: called with everything that happens, on rank 0.

    Returns:
        The result; None on the other ranks.

    Raises:
        Stopped: a signal came; the state is saved. The other ranks return None then.
        DualFormerError: the request or the data are wrong, the loss is not a number, the disk is full.
    """
    resolved = check_request(request)
    from dualformer_cli.engine.parallel.placement import read_placement

    curves = _Curves(request.output)
    subscribers = [on_event, curves.add]

    def publish(event: TrainEvent) -> None:
        for subscriber in subscribers:
            subscriber(event)

    is_main = True
    try:
        with ExitStack() as stack:
            # Before anything of the run is read; the other ranks write nothing there.
            is_first = read_placement(os.environ).rank == 0
            lock = stack.enter_context(FolderLock(request.output)) if is_first else None
            for name in dict.fromkeys(request.log if is_first else ()):
                tracker = stack.enter_context(RunTracker(name, request.output, offline=request.model.offline))
                subscribers.append(tracker.add)
            trainer = stack.enter_context(_open_trainer(request, resolved, on_event=publish, lock=lock))
            is_main = trainer.ranks.is_main
            result = trainer.run()
            if is_main:
                curves.draw()
    except Stopped:
        if is_main:
            raise
        return None
    return result if is_main else None


def preflight(request: TrainRequest, *, on_stage: Callable[[str], None] = lambda stage: None) -> Preflight | None:
    """Take one pass of a real step and return what a run would need; None on ranks but the first. Nothing is written.

    Args:
        request: what to train.
        on_stage: called with what follows, `NUM_STAGES` times at most.

    Raises:
        DualFormerError: as `train` does.
    """
    resolved = check_request(request, dry_run=True)
    from dualformer_cli.engine.training import preflight as measurement

    on_stage("opening lists and model")
    with _open_trainer(request, resolved) as trainer:
        document = measurement.preflight(trainer, on_stage=on_stage)
        return document if trainer.ranks.is_main else None


@contextmanager
def _open_trainer(
    request: TrainRequest,
    resolved: ResolvedConfig,
    *,
    on_event: Callable[[TrainEvent], None] = lambda event: None,
    lock: FolderLock | None = None,
) -> Iterator[Trainer]:
    """Join the other ranks and open lists and model; of the warnings about them, rank 0 alone has its say."""
    from dualformer_cli.engine.parallel.decoding_card import use_decoding_card
    from dualformer_cli.engine.parallel.ranks import init_ranks  # here, so that a request is checked without torch
    from dualformer_cli.engine.training.loop import Trainer

    runtime = resolved.config.runtime
    use_decoding_card(resolved.config.data.decoder, runtime.device)
    with (
        init_ranks(runtime.device, timeout=runtime.exchange_seconds()) as ranks,
        _warnings_of_one_rank(ranks),
        _full_memory_in_words(),
    ):
        yield Trainer(
            resolved,
            ranks,
            output=request.output,
            resume=request.resume,
            changes=request.changed_keys(),
            offline=request.model.offline,
            on_event=on_event,
            lock=lock,
        )


@contextmanager
def _full_memory_in_words() -> Iterator[None]:
    """Say what takes less memory where a GPU has not enough."""
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DualFormerError(
            "the GPU's memory is full; --set train.batch_size with a smaller number (the clips of a step stay), "
            "--set model.gradient_checkpointing=true or --precision bf16 take less, and so does an end to other "
            "programs there"
        ) from error


@contextmanager
def _warnings_of_one_rank(ranks: Ranks) -> Iterator[None]:
    """Have rank 0 alone warn about lists and weights, which are the same on all; with -v all speak."""
    logger = logging.getLogger("dualformer_cli")
    before = logger.level
    if not ranks.is_main and not logger.isEnabledFor(logging.DEBUG):
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


class _Curves:
    """Draws curves.png into the folder of a run while its log grows."""

    def __init__(self, output: Path) -> None:
        self._output = output

    def add(self, event: TrainEvent) -> None:
        """Draw anew after a validation."""
        if isinstance(event, ValidationRow):
            self.draw()

    def draw(self) -> None:
        """Draw the log so far, or say why not: the run needs no picture."""
        try:
            if rows := log_rows(self._output):
                write_curves(rows, self._output / "curves.png")
        except (OSError, DualFormerError) as error:
            _LOGGER.warning("the run goes on, but its curves are not drawn: %s", error)

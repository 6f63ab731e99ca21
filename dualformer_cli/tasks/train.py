"""Train the recipe of a preset on lists of videos: `dualformer train`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.documents.base import JsonObject, to_json
from dualformer_cli.documents.train import Preflight, Started, TrainEvent, TrainResult, ValidationRow
from dualformer_cli.errors import DualFormerError, Stopped
from dualformer_cli.outputs.curves import write_curves
from dualformer_cli.outputs.tensorboard import TensorBoardLog, check_tensorboard
from dualformer_cli.system.files import check_output_folder
from dualformer_cli.tasks.session import ModelRequest, resolve


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest:
    """What is trained on what, and where it goes. What is None is left to the configuration."""

    model: ModelRequest
    training_list: str | None = None
    validation_list: str | None = None
    output: Path = Path("runs/train")
    """The run folder."""
    resume: bool = False
    """Go on from the run folder's last checkpoint."""
    init_from: str | None = None
    """Video weights to start from: a file or a preset. Not together with `pretrained_2d`."""
    pretrained_2d: str | None = None
    """Image weights to start from: a file, or "timm"."""
    teacher: str | None = None
    """Labels every token while training: a file or a preset. Not together with `token_labels`."""
    token_labels: str | None = None
    """Folder of token labels."""
    tensorboard: bool = False
    """Write the log for TensorBoard too."""

    def resolve(self) -> ResolvedConfig:
        """Return the configuration that the request describes.

        Raises:
            ConfigError: an unknown preset or key, or a value that is not allowed.
        """
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
        return resolve(replace(self.model, overrides=(*self.model.overrides, *cleared)), settings)


def check_request(request: TrainRequest, *, dry_run: bool = False) -> ResolvedConfig:
    """Return the configuration, once all is checked that needs no data and no model.

    Raises:
        DualFormerError: if the configuration is wrong, the folder cannot be used, or TensorBoard is not installed.
    """
    resolved, output = request.resolve(), request.output
    check_output_folder(output)
    if (output / "checkpoints").exists() and not (request.resume or dry_run):
        raise DualFormerError(f"{str(output)!r} holds a run already; go on with --resume, or name another --output")
    if request.tensorboard:
        check_tensorboard()
    return resolved


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
    from dualformer_cli.engine.parallel.ranks import init_ranks  # here, so that a request is checked without torch
    from dualformer_cli.engine.training.loop import Trainer

    pictures = _Pictures(request.output, with_tensorboard=request.tensorboard)

    def keep(event: TrainEvent) -> None:
        on_event(event)
        pictures.add(event)

    is_main = True
    try:
        with init_ranks(resolved.config.runtime.device) as ranks:
            is_main = ranks.is_main
            trainer = Trainer(
                resolved,
                ranks,
                output=request.output,
                resume=request.resume,
                offline=request.model.offline,
                on_event=keep,
            )
            result = trainer.run()
            if is_main:
                pictures.close()
    except Stopped:
        if is_main:
            raise
        return None
    return result if is_main else None


def preflight(request: TrainRequest) -> Preflight | None:
    """Take one real step and return what a run would need; None on ranks but the first. Nothing is written.

    Raises:
        DualFormerError: as `train` does.
    """
    resolved = check_request(request, dry_run=True)
    from dualformer_cli.engine.parallel.ranks import init_ranks
    from dualformer_cli.engine.training import preflight as measurement
    from dualformer_cli.engine.training.loop import Trainer

    with init_ranks(resolved.config.runtime.device) as ranks:
        offline = request.model.offline
        trainer = Trainer(resolved, ranks, output=request.output, resume=request.resume, offline=offline)
        document = measurement.preflight(trainer)
        return document if ranks.is_main else None


class _Pictures:
    """Draws the log of a run into its folder while it grows: curves.png, and TensorBoard's files if they are wanted."""

    def __init__(self, output: Path, *, with_tensorboard: bool) -> None:
        self._output, self._with_tensorboard = output, with_tensorboard
        self._board: TensorBoardLog | None = None

    def add(self, event: TrainEvent) -> None:
        """Take in what has just been logged."""
        if self._board is not None:
            self._board.add(to_json(event))
        if isinstance(event, Started) and self._with_tensorboard:
            self._board = TensorBoardLog(self._output / "tensorboard", self._rows())
        elif isinstance(event, ValidationRow):
            self._draw()

    def close(self) -> None:
        """Draw the end of the run."""
        if self._board is not None:
            self._board.close()
        self._draw()

    def _draw(self) -> None:
        if rows := self._rows():
            write_curves(rows, self._output / "curves.png")

    def _rows(self) -> list[JsonObject]:
        """What log.jsonl has so far."""
        log = self._output / "log.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []

"""The experiment trackers that `train --log` names: TensorBoard, Weights & Biases, MLflow.

A tracker is made before anything is loaded, started before the first step, given numbers, and closed. What nobody asks
for is never imported.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import time
from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from dualformer_cli.config.load import values_of, yaml_value
from dualformer_cli.config.schema import RunConfig
from dualformer_cli.documents.base import to_json
from dualformer_cli.errors import DualFormerError, nearest

TRACKERS = ("tensorboard", "wandb", "mlflow")
"""Also the names of their packages, and of our extras."""
End = Literal["finished", "stopped", "failed"]

PROJECT = "dualformer"
"""Project of Weights & Biases, or experiment of MLflow, where the environment names none."""
_UPLOAD_SECONDS = 600
"""How long the end of a run waits for Weights & Biases to take what it has not taken yet; it stays on the disk."""
_MLFLOW_BATCH = 100
"""The most parameters or tags that MLflow takes at once."""


class Tracker(Protocol):
    """What takes the numbers of one run."""

    note: str | None
    """Where the numbers are, once it is started."""

    def start(self, run_id: str | None, config: RunConfig) -> str | None:
        """Begin, or go on with a run, and return its id.

        Args:
            run_id: what this returned in an earlier part of the run, None for a new one.
            config: of the run.

        Returns:
            None, or another id than `run_id`, where the tracker has nothing of the run yet.
        """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    def close(self, end: End) -> None:
        """Send or write what is waiting, and say how the run ended."""


def check_trackers(names: Collection[str]) -> None:
    """Check that there are such trackers, and that their packages are installed, without importing them.

    Raises:
        DualFormerError: if one is missing.
    """
    for name in names:
        if name not in TRACKERS:
            known = ", ".join(TRACKERS)
            raise DualFormerError(
                f"--log {name!r} is no tracker{nearest(name, TRACKERS) or '.'} Known trackers: {known}"
            )
    names = dict.fromkeys(names)
    if missing := ",".join(name for name in names if not _is_installed(name)):
        raise DualFormerError(f"--log {missing} needs what is not installed: pip install 'dualformer[{missing}]'")


def _is_installed(package: str) -> bool:
    try:
        spec = importlib.util.find_spec(package)
    except ValueError:  # it is loaded and does not say from where
        return True
    # A folder of that name that is no package: Weights & Biases makes one where a script runs.
    is_folder = spec is not None and spec.origin is None and spec.submodule_search_locations is not None
    return spec is not None and not is_folder


def open_tracker(name: str, output: Path, *, offline: bool) -> Tracker:
    """Return a tracker that can be started.

    Args:
        name: of the tracker.
        output: the run folder.
        offline: whether it may not use the network.

    Raises:
        DualFormerError: if its package does not work, or nobody is logged in.
    """
    try:
        if name == "tensorboard":
            return TensorBoard(output)
        return WeightsAndBiases(output, offline=offline) if name == "wandb" else MLflow(output, offline=offline)
    except DualFormerError:
        raise
    except Exception as error:  # of a package that is not ours
        raise DualFormerError(f"--log {name} does not work here: {' '.join(str(error).split())}") from error


class TensorBoard:
    """Event files in the folder `tensorboard` of the run, one curve per number; a resumed run writes them anew."""

    note: str | None = None

    def __init__(self, output: Path) -> None:
        from tensorboard.summary import Writer

        self._new_writer, self._folder = Writer, output / "tensorboard"

    def start(self, run_id: str | None, config: RunConfig) -> str | None:
        """Remove older files, and return None: everything that was logged so far is wanted again."""
        for old in self._folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = self._new_writer(os.fspath(self._folder))
        return None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, end: End) -> None:
        """Write what is waiting, and close the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases. Its own variables count: WANDB_MODE, WANDB_PROJECT, WANDB_ENTITY and the others."""

    note: str | None = None

    def __init__(self, output: Path, *, offline: bool) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if offline:  # reports of errors in its own code look up a host even in its offline mode
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self._output, self._new_run = output, wandb.init
        mode = wandb.setup().settings.mode
        self._mode = "offline" if offline and mode == "online" else mode
        if self._mode == "online" and not wandb.login(prompt=False, verify=False):
            raise DualFormerError(
                "--log wandb: nobody is logged in to Weights & Biases here; `wandb login`, or --offline to keep the "
                "numbers in the run folder until `wandb sync`"
            )

    def start(self, run_id: str | None, config: RunConfig) -> str | None:
        """Begin, or go on with, the run of this id; return the id."""
        self._run: Any = self._new_run(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=os.environ.get("WANDB_NAME", self._output.resolve().name),
            dir=os.environ.get("WANDB_DIR", self._output),
            id=run_id or os.environ.get("WANDB_RUN_ID"),
            resume="allow" if run_id else None,
            mode=self._mode,
            config=to_json(config),
            settings={
                "console": "off",  # what is printed stays here
                "reinit": "create_new",  # beside a run that the program has open
                "finish_timeout": _UPLOAD_SECONDS,
            },
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")  # a resumed run may log a step again, which W&B's own does not
        if self._mode == "online":
            self.note = f"wandb: {self._run.url}"
        elif self._mode == "offline":
            folder = Path(self._run.dir).parent
            self.note = f"wandb: nothing is sent before `wandb sync {shlex.quote(str(folder))}`"
        return str(self._run.id)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the numbers of a step; sending is done by a process of the package."""
        self._run.log({"step": step, **values})

    def close(self, end: End) -> None:
        """Wait until all is sent, for ten minutes at most."""
        self._run.finish(exit_code=int(end != "finished"))


class MLflow:
    """A run of MLflow, at MLFLOW_TRACKING_URI, else where MLflow keeps runs by default: in the working folder."""

    note: str | None = None

    def __init__(self, output: Path, *, offline: bool) -> None:
        for name, value in {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_LOGGING_LEVEL": "WARNING",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # it would try for minutes, in which no step is taken
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }.items():
            os.environ.setdefault(name, value)
        import mlflow

        uri = mlflow.get_tracking_uri()
        if offline and not uri.startswith(("sqlite:", "file:", "/")):
            uri = f"sqlite:///{output.resolve() / 'mlflow.db'}"
        self._output, self._entities, self._uri = output, mlflow.entities, uri
        self._error = mlflow.MlflowException
        try:
            self._client: Any = mlflow.MlflowClient(uri)
        except mlflow.MlflowException as error:
            if not uri.startswith("sqlite:") or _is_installed("sqlalchemy"):
                raise
            raise DualFormerError(
                "--log mlflow: mlflow-skinny alone keeps no runs on this machine; name a server with "
                "MLFLOW_TRACKING_URI, or pip install 'dualformer[mlflow]'"
            ) from error

    def start(self, run_id: str | None, config: RunConfig) -> str | None:
        """Go on with the run of this id if it is there, else begin one; return the id."""
        params = {name: yaml_value(value) for name, value in values_of(config).items()}
        known = None if run_id is None else self._find(run_id)
        if known is None:
            run = self._client.create_run(self._experiment(), run_name=self._output.resolve().name)
            self._id: str = run.info.run_id
            known = {}
        else:
            assert run_id is not None
            self._id = run_id
            self._client.update_run(self._id, status="RUNNING")
        self._write_config(params, known)
        self.note = f"mlflow: run {self._id} in {self._uri}"
        return self._id

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of a step."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self, end: End) -> None:
        """End the run."""
        status = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[end]
        self._client.set_terminated(self._id, status)

    def _find(self, run_id: str) -> Mapping[str, str] | None:
        """Return the parameters of a run; None where there is none of this id, as in another store."""
        try:
            return dict(self._client.get_run(run_id).data.params)
        except self._error as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return str(self._client.create_experiment(name) if found is None else found.experiment_id)

    def _write_config(self, params: Mapping[str, str], known: Mapping[str, str]) -> None:
        """Write parameters, and as tags those that have changed: MLflow never changes a parameter."""
        new = iter([self._entities.Param(name, value) for name, value in params.items() if name not in known])
        while batch := list(islice(new, _MLFLOW_BATCH)):
            self._client.log_batch(self._id, params=batch)
        for name, value in params.items():
            if known.get(name, value) != value:
                self._client.set_tag(self._id, f"changed.{name}", value)

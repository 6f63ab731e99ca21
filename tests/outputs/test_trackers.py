"""The three trackers: the calls that their packages get, here of modules that stand for them, then the packages."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualformer_cli.config.load import values_of
from dualformer_cli.config.schema import RunConfig, TrainConfig
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import trackers
from dualformer_cli.outputs.trackers import Tracker, check_trackers, open_tracker

CONFIG = RunConfig(train=TrainConfig(lr=0.25))
VARIABLES = (
    *(f"WANDB_{name}" for name in ("MODE", "PROJECT", "NAME", "DIR", "RUN_ID", "SILENT", "ERROR_REPORTING")),
    *(f"MLFLOW_{name}" for name in ("TRACKING_URI", "EXPERIMENT_NAME", "DISABLE_TELEMETRY", "LOGGING_LEVEL")),
    *(f"MLFLOW_HTTP_REQUEST_{name}" for name in ("MAX_RETRIES", "TIMEOUT")),
)


@pytest.fixture(autouse=True)
def _own_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the trackers' variables away, afterwards also those that they have set, and work in an empty folder."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def use(tracker: Tracker, run_id: str | None = None, end: str = "finished") -> str | None:
    """Give a tracker two steps; return its id of the run."""
    found = tracker.start(run_id, CONFIG)
    tracker.write(20, {"training/loss": 0.5})
    tracker.write(40, {"validation/top1": 75.0})
    tracker.close(end)  # type: ignore[arg-type]
    return found


class _Wandb:
    """Stands for the package wandb, and for the one run that it makes."""

    url = "https://wandb.example/run"

    def __init__(self, *, mode: str = "online", is_logged_in: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.arguments: dict[str, Any] = {}
        self.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode=os.environ.get("WANDB_MODE", mode)))
        self.login = lambda *, prompt, verify: is_logged_in

    def init(self, **arguments: Any) -> _Wandb:
        self.arguments = arguments
        self.id = arguments["id"] or "new"
        self.dir = f"{arguments['dir']}/wandb/offline-run/files"
        return self

    def define_metric(self, name: str, *, step_metric: str | None = None) -> None:
        self.calls.append(("axis", name, step_metric))

    def log(self, values: dict[str, float]) -> None:
        self.calls.append(("log", values))

    def finish(self, *, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


def test_weights_and_biases_gets_the_run_and_its_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = open_tracker("wandb", tmp_path / "mine", offline=False)
    assert use(tracker) == "new"
    given = fake.arguments
    assert (given["project"], given["name"], given["dir"]) == ("dualformer", "mine", tmp_path / "mine")
    assert (given["id"], given["resume"], given["mode"]) == (None, None, "online")
    assert given["config"]["train"]["lr"] == 0.25
    assert given["settings"]["console"] == "off"
    assert fake.calls == [
        ("axis", "step", None),
        ("axis", "*", "step"),
        ("log", {"step": 20, "training/loss": 0.5}),
        ("log", {"step": 40, "validation/top1": 75.0}),
        ("finish", 0),
    ]
    assert tracker.note == "wandb: https://wandb.example/run"


def test_weights_and_biases_goes_on_in_its_run_and_hears_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    assert use(open_tracker("wandb", tmp_path, offline=False), "abc", "failed") == "abc"
    assert (fake.arguments["id"], fake.arguments["resume"]) == ("abc", "allow")
    assert fake.calls[-1] == ("finish", 1)


@pytest.mark.parametrize(
    ("offline", "variable", "mode"),
    [(True, None, "offline"), (True, "disabled", "disabled"), (False, "offline", "offline")],
)
def test_weights_and_biases_stays_offline(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, offline: bool, variable: str | None, mode: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    fake = _Wandb(is_logged_in=False)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    tracker = open_tracker("wandb", tmp_path, offline=offline)
    tracker.start(None, CONFIG)
    assert fake.arguments["mode"] == mode
    assert os.environ.get("WANDB_ERROR_REPORTING") == ("false" if offline else None)
    if mode == "offline":
        assert tracker.note == f"wandb: nothing is sent before `wandb sync {tmp_path}/wandb/offline-run`"


def test_its_variables_name_project_run_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PROJECT", "NAME", "DIR"):
        monkeypatch.setenv(f"WANDB_{name}", f"my {name}")
    fake = _Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    use(open_tracker("wandb", tmp_path, offline=False))
    assert [fake.arguments[name] for name in ("project", "name", "dir")] == ["my PROJECT", "my NAME", "my DIR"]


def test_nobody_who_is_not_logged_in_waits_for_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", _Wandb(is_logged_in=False))
    with pytest.raises(DualFormerError, match="nobody is logged in to Weights & Biases here; `wandb login`, or --off"):
        open_tracker("wandb", tmp_path, offline=False)


class _MLflow:
    """Stands for the package mlflow and its client, with the runs of one store."""

    class MlflowException(Exception):  # noqa: N818
        error_code = "RESOURCE_DOES_NOT_EXIST"

    entities = SimpleNamespace(Metric=lambda *values: values, Param=lambda *values: values)

    def __init__(self, uri: str = "sqlite:///mlflow.db") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.params: dict[str, str] = {}
        self.known: set[str] = set()
        self.get_tracking_uri = lambda: uri

    def MlflowClient(self, uri: str) -> _MLflow:  # noqa: N802
        self.uri = uri
        return self

    def get_run(self, run_id: str) -> Any:
        if run_id not in self.known:
            raise self.MlflowException
        return SimpleNamespace(data=SimpleNamespace(params=self.params))

    def get_experiment_by_name(self, name: str) -> Any:
        self.calls.append(("experiment", name))
        return None

    def create_experiment(self, name: str) -> str:
        return "7"

    def create_run(self, experiment_id: str, *, run_name: str) -> Any:
        self.calls.append(("run", experiment_id, run_name))
        self.known.add("new")
        return SimpleNamespace(info=SimpleNamespace(run_id="new"))

    def update_run(self, run_id: str, *, status: str) -> None:
        self.calls.append(("update", run_id, status))

    def log_batch(self, run_id: str, *, metrics: Any = (), params: Any = ()) -> None:
        assert len(params) <= 100, "more than MLflow takes"
        self.params.update(params)
        self.calls += [("metric", run_id, name, value, step) for name, value, _, step in metrics]

    def set_tag(self, run_id: str, name: str, value: str) -> None:
        self.calls.append(("tag", run_id, name, value))

    def set_terminated(self, run_id: str, status: str) -> None:
        self.calls.append(("end", run_id, status))


def test_mlflow_gets_the_run_and_its_numbers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = _MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    tracker = open_tracker("mlflow", tmp_path / "mine", offline=True)
    assert use(tracker) == "new"
    assert fake.calls == [
        ("experiment", "dualformer"),
        ("run", "7", "mine"),
        ("metric", "new", "training/loss", 0.5, 20),
        ("metric", "new", "validation/top1", 75.0, 40),
        ("end", "new", "FINISHED"),
    ]
    assert set(fake.params) == set(values_of(CONFIG))
    assert (fake.params["train.lr"], fake.params["data.train_list"]) == ("0.25", "null")
    assert fake.params["model.depths"] == "[2, 2, 10, 4]"
    assert tracker.note == "mlflow: run new in sqlite:///mlflow.db"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_mlflow_goes_on_in_its_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = _MLflow()
    fake.known, fake.params = {"old"}, {"train.lr": "0.5", "train.epochs": "30"}
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    assert use(open_tracker("mlflow", tmp_path, offline=False), "old", "stopped") == "old"
    assert fake.calls[:2] == [("update", "old", "RUNNING"), ("tag", "old", "changed.train.lr", "0.25")]
    assert fake.calls[-1] == ("end", "old", "KILLED")
    assert fake.params["train.lr"] == "0.5"
    elsewhere = _MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", elsewhere)
    assert use(open_tracker("mlflow", tmp_path, offline=False), "old") == "new"


def test_a_server_that_does_not_answer_gets_no_second_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = _MLflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setattr(fake.MlflowException, "error_code", "TEMPORARILY_UNAVAILABLE")
    with pytest.raises(fake.MlflowException):
        open_tracker("mlflow", tmp_path, offline=False).start("old", CONFIG)
    assert fake.calls == []


@pytest.mark.parametrize(
    ("uri", "offline", "is_kept"),
    [
        ("https://mlflow.example", False, True),
        ("https://mlflow.example", True, False),
        ("databricks", True, False),
        ("sqlite:////srv/mlflow.db", True, True),
        ("/srv/mlruns", True, True),
    ],
)
def test_mlflow_offline_has_a_store_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, uri: str, offline: bool, is_kept: bool
) -> None:
    fake = _MLflow(uri)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    open_tracker("mlflow", tmp_path, offline=offline)
    assert fake.uri == (uri if is_kept else f"sqlite:///{tmp_path}/mlflow.db")


def test_mlflow_without_a_store_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As mlflow-skinny, which has no database and says so in many words."""
    fake = _MLflow()

    def refuse(uri: str) -> None:
        raise fake.MlflowException(f" got unsupported URI {uri!r}.\nSee the documentation")

    monkeypatch.setattr(fake, "MlflowClient", refuse)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setattr(trackers, "_is_installed", lambda package: package != "sqlalchemy")
    with pytest.raises(DualFormerError, match=r"mlflow-skinny alone keeps no runs .* or pip install 'dualformer\["):
        open_tracker("mlflow", tmp_path, offline=True)
    monkeypatch.setattr(trackers, "_is_installed", lambda package: True)
    with pytest.raises(DualFormerError, match=r"^--log mlflow does not work here: got unsupported URI '.*'\. See the"):
        open_tracker("mlflow", tmp_path, offline=True)


def test_what_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        if name == "wandb":
            raise ValueError(f"{name}.__spec__ is None")
        return None

    monkeypatch.setattr(importlib.util, "find_spec", find)
    check_trackers(["wandb"])
    with pytest.raises(DualFormerError, match=r"^--log mlflow needs what is not installed: pip install 'dualformer\["):
        check_trackers(["mlflow", "wandb"])
    with pytest.raises(DualFormerError, match=r"--log tensorboard,mlflow needs .*'dualformer\[tensorboard,mlflow\]'"):
        check_trackers(["tensorboard", "mlflow", "mlflow"])
    with pytest.raises(
        DualFormerError, match=r"'wandbb' is no tracker; did you mean 'wandb'\? Known trackers: tensorboard"
    ):
        check_trackers(["wandbb"])


def test_a_folder_of_runs_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights & Biases keeps its files in a folder `wandb` where a script runs, which Python takes for a package."""
    (tmp_path / "mlflow").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(DualFormerError, match="mlflow needs what is not installed"):
        check_trackers(["mlflow"])


def test_a_package_that_does_not_import_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(DualFormerError, match="--log mlflow does not work here: import of mlflow halted"):
        open_tracker("mlflow", tmp_path, offline=False)


def test_tensorboard_writes_a_run_anew(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for run_id in (None, "ignored"):
        assert use(open_tracker("tensorboard", tmp_path, offline=True), run_id) is None
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for name, step, value in (("training/loss", 20, 0.5), ("validation/top1", 40, 75.0)):
        assert [(each.step, each.tensor_proto.float_val[0]) for each in events.Tensors(name)] == [(step, value)]


def test_weights_and_biases_itself_keeps_a_run_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    tracker = open_tracker("wandb", tmp_path, offline=True)
    run_id = use(tracker)
    assert run_id is not None
    assert use(open_tracker("wandb", tmp_path, offline=True), run_id) == run_id
    kept = sorted((tmp_path / "wandb").glob(f"offline-run-*/run-{run_id}.wandb"))
    assert kept
    assert b"validation/top1" in kept[0].read_bytes()


def test_mlflow_itself_keeps_a_run_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    pytest.importorskip("sqlalchemy", reason="the package mlflow-skinny alone cannot keep runs")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.invalid")
    run_id = use(open_tracker("mlflow", tmp_path, offline=True))
    assert use(open_tracker("mlflow", tmp_path, offline=True), run_id) == run_id
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    run = client.get_run(run_id)
    assert (run.info.status, run.data.params["train.lr"]) == ("FINISHED", "0.25")
    assert [(each.step, each.value) for each in client.get_metric_history(run_id, "training/loss")] == [(20, 0.5)] * 2

"""The one opening of tasks: what a request becomes, and how often a checkpoint is read on the way to an engine."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dualformer_cli import create_model
from dualformer_cli.config.load import load_config, to_yaml
from dualformer_cli.engine.parallel import decoders
from dualformer_cli.errors import ConfigError, DualFormerError, WeightsError
from dualformer_cli.tasks import session
from dualformer_cli.tasks.built_in_model import fall_back
from dualformer_cli.tasks.session import ModelRequest, open_session, resolve


def silent() -> Any:
    return nullcontext(lambda name, done, length: None)


@pytest.fixture(scope="session")
def checkpoint(mini_preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that bring their configuration: five classes, data.min_frames=3."""
    path = tmp_path_factory.mktemp("checkpoint") / "own.pt"
    config = load_config(str(mini_preset), overrides=["data.min_frames=3"], environ={}).config
    torch.manual_seed(0)
    weights = create_model(str(mini_preset)).state_dict()
    torch.save({"kind": "dualformer checkpoint", "model": weights, "config": to_yaml(config)}, path)
    return path


def test_every_part_of_a_request_names_a_key_of_the_configuration() -> None:
    request = ModelRequest(weights="w", device="cpu", precision="fp32", compile=True, seed=1, views=(2, 3))
    assert set(request.settings()) <= set(load_config(None, environ={}).origins)
    assert len(request.settings()) == 7
    assert ModelRequest(preset="tiny").settings() == {}


def test_resolve_takes_dotted_keys_and_leaves_out_what_is_none(tmp_path: Path) -> None:
    weights = str(tmp_path / "w.pth")
    Path(weights).touch()
    request = ModelRequest(preset="tiny", overrides=("runtime.seed=1",), weights=weights)
    resolved = resolve(request, {"runtime.device": None, "data.test.num_clips": 2})
    assert (resolved.config.runtime.seed, resolved.config.weights, resolved.config.data.test.num_clips) == (
        1,
        weights,
        2,
    )
    assert resolved.origins["data.test.num_clips"] == "flag"
    assert resolved.origins["runtime.seed"] == "--set"


def test_a_wrong_flag_value_names_the_key_and_what_is_allowed() -> None:
    with pytest.raises(ConfigError, match=r"^runtime.precision must be one of auto, fp32, bf16, fp16, got 'fp8'"):
        resolve(ModelRequest(precision="fp8"))


def test_weights_bring_their_configuration_where_no_preset_is_named(checkpoint: Path, mini_preset: Path) -> None:
    brought = resolve(ModelRequest(weights=str(checkpoint)), default="k400-tiny")
    assert (brought.preset, brought.config.data.min_frames) == (str(checkpoint), 3)
    named = resolve(ModelRequest(preset=str(mini_preset), weights=str(checkpoint)), default="k400-tiny")
    assert (named.preset, named.config.data.min_frames) == (str(mini_preset), 2)
    assert resolve(ModelRequest(weights="published"), default="k400-tiny").preset == "k400-tiny"


def test_weights_that_are_named_by_a_preset_bring_it() -> None:
    named = resolve(ModelRequest(weights="k400-small"), default="k400-tiny")
    assert (named.preset, named.config.weights) == ("k400-small", "k400-small")
    both = resolve(ModelRequest(preset="ucf101-small", weights="k400-small"))
    assert (both.preset, both.config.weights) == ("ucf101-small", "k400-small")


def test_weights_that_cannot_be_read_are_named_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WorkerPool", None)  # reaching it would be work
    (tmp_path / "page.pt").write_text("<html></html>")
    with (
        pytest.raises(WeightsError, match=r"page\.pt"),
        open_session(ModelRequest(weights=str(tmp_path / "page.pt"))),
    ):
        pass


def test_a_checkpoint_is_read_once(
    checkpoint: Path, mini_preset: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "WorkerPool", here_pool)
    read: list[Any] = []
    load = torch.load

    def count(file: Any, *arguments: Any, **options: Any) -> Any:
        read.append(file)
        return load(file, *arguments, **options)

    monkeypatch.setattr(torch, "load", count)
    for preset in (None, str(mini_preset)):
        request = ModelRequest(preset=preset, weights=str(checkpoint), device="cpu")
        with open_session(request, default="k400-tiny") as opened:
            engine = opened.load_engine(silent)
        assert engine.weights == str(checkpoint)
        assert len(read) == 1
        read.clear()


def test_torch_is_not_loaded_before_worker_processes_are_on_their_way() -> None:
    program = (
        "import sys\n"
        "from dualformer_cli.tasks import session\n"
        "class Pool:\n"
        "    def __init__(self, *arguments, **options): pass\n"
        "    def __enter__(self): raise SystemExit('torch' in sys.modules)\n"
        "    def __exit__(self, *error): pass\n"
        "session.WorkerPool = Pool\n"
        "with session.open_session(session.ModelRequest(preset='tiny')): pass\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


class _Pool:
    """Takes the place of WorkerPool, and ends the opening."""

    def __init__(self, num_workers: int, *_: Any, **__: Any) -> None:
        raise _ReachedError(num_workers)


class _ReachedError(Exception):
    pass


@pytest.mark.parametrize(
    ("cores", "ranks", "overrides", "has_gpu", "wanted"),
    [
        (2, 1, (), False, 2),
        (64, 1, (), False, 8),
        (64, 16, (), False, 4),
        (2, 4, (), False, 1),
        (2, 1, ("runtime.num_workers=3",), False, 3),
        (2, 1, ("runtime.num_workers=1",), False, 1),
        (16, 1, (), True, 15),
        (64, 8, (), True, 7),
        (1, 1, (), True, 1),
        (16, 1, ("runtime.device=cpu",), True, 8),
        (16, 1, ("runtime.num_workers=1",), True, 1),
    ],
)
def test_each_core_of_this_rank_gets_a_decoder_unless_their_number_is_given(
    cores: int,
    ranks: int,
    overrides: tuple[str, ...],
    has_gpu: bool,
    wanted: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "WorkerPool", _Pool)
    monkeypatch.setattr(decoders, "usable_cores", lambda: cores)
    monkeypatch.setattr(decoders, "NVIDIA_DRIVER", tmp_path if has_gpu else tmp_path / "none")
    for name, value in {"RANK": 0, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(_ReachedError) as reached, open_session(ModelRequest(preset="tiny", overrides=overrides)):
        pass
    assert reached.value.args == (wanted,)


def test_a_decoder_is_given_up_after_the_time_that_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    def pool(num_workers: int, timeout_seconds: float, *, preload: list[str]) -> None:
        raise _ReachedError(timeout_seconds, preload)

    monkeypatch.setattr(session, "WorkerPool", pool)
    request = ModelRequest(preset="tiny", overrides=("data.decode_timeout_seconds=7",))
    with pytest.raises(_ReachedError) as reached, open_session(request, preload="some.module"):
        pass
    assert reached.value.args == (7.0, ["some.module"])


def test_the_other_ranks_are_waited_for_as_long_as_the_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    request = ModelRequest(preset="tiny", overrides=("runtime.exchange_timeout=0.5s",), device="cpu")
    with pytest.raises(DualFormerError, match="rank 0 did not come within 1 s"), open_session(request):
        pass


@pytest.mark.parametrize(
    ("request_", "is_taken"),
    [
        (ModelRequest(), True),
        (ModelRequest(preset="k400-tiny"), False),
        (ModelRequest(weights="random"), False),
        (ModelRequest(overrides=("weights=random",)), False),
    ],
    ids=str,
)
def test_every_rank_falls_back_as_rank_0_does_and_only_where_no_model_is_named(
    request_: ModelRequest, is_taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.engine.parallel.reductions.broadcast_object", lambda own: "that of rank 0")
    own = resolve(request_, default=session.DEFAULT_PRESET)
    of_rank_1: Any = SimpleNamespace(request=request_, resolved=own, ranks=SimpleNamespace(is_main=False))
    unused: Any = None
    fall_back(of_rank_1, unused, unused)
    assert of_rank_1.resolved == ("that of rank 0" if is_taken else own)

"""The first hour on a card, without one: its command lines fit today's tool, and what a step does stops no other."""

from __future__ import annotations

import importlib
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

from dualformer_cli.app import app
from dualformer_cli.config.load import load_config

HERE = Path(__file__).parent


@pytest.fixture
def first_hour(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.delitem(sys.modules, "first_hour", raising=False)
    yield importlib.import_module("first_hour")
    sys.modules.pop("first_hour", None)


def understand(name: str, options: list[str]) -> None:
    """Read a command's options as the tool does, and its settings, and run nothing."""
    read = get_command(app).commands[name].make_context(name, list(options)).params  # type: ignore[attr-defined]
    settings = load_config(str(read["preset"]), overrides=read["overrides"], environ={}).config
    assert settings.runtime.cuda_graphs == ("runtime.cuda_graphs=true" in options)


@pytest.mark.parametrize("dry", [False, True])
def test_each_step_is_a_command_line_of_today(first_hour: ModuleType, tmp_path: Path, dry: bool) -> None:
    (tmp_path / "small.yaml").write_text(first_hour.SMALL_MODEL)
    steps = list(first_hour.steps(tmp_path, "cpu", dry=dry))
    assert {step.part for step in steps} == set(first_hour.PARTS)
    for part in first_hour.PARTS:
        assert sum(step.seconds for step in steps if step.part == part) <= 600, "a part takes 10 minutes at most"
    assert len({step.name for step in steps}) == len(steps)
    understood, speed = [], (HERE / "speed.py").read_text()
    for step in steps:
        command = list(step.command)
        if "dualformer_cli" in command:
            name, *options = command[command.index("dualformer_cli") + 1 :]
            understood.append(name)
            if name != "--version":
                understand(name, options)
        elif "pytest" in command:
            assert all((first_hour.ROOT / path).exists() for path in command if path.startswith("tests/"))
        elif command[1].endswith("speed.py"):
            assert all(f'"{option}"' in speed for option in command if option.startswith("--"))
            minutes = float(command[command.index("--minutes") + 1])
            assert 60 * minutes < step.seconds, "the script ends before it is ended"
    assert understood.count("predict") == (3 if dry else 5)
    assert understood.count("train") == 4


def test_a_step_that_fails_or_hangs_stops_nothing(
    first_hour: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = {"good": "echo one; echo two", "bad": "echo why >&2; exit 3", "slow": "sleep 60", "late": "true"}
    table = [
        first_hour.Step(
            "check" if name != "late" else "train", name, 1 if name == "slow" else 60, ("sh", "-c", command)
        )
        for name, command in commands.items()
    ]
    monkeypatch.setattr(first_hour, "steps", lambda *_, **__: table)
    assert first_hour.main(["--output", str(tmp_path / "hour")]) == 1
    outcomes = ["passed", "failed with 3", "not done after 1 s", "passed"]
    assert [line.rsplit("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == outcomes
    summary = json.loads((tmp_path / "hour" / "summary.json").read_text())
    assert [(each["name"], each["outcome"]) for each in summary] == list(zip(commands, outcomes, strict=True))
    assert summary[1]["last_lines"] == ["why"]
    assert shlex.split(summary[1]["command"])[:2] == ["sh", "-c"]
    assert (tmp_path / "hour" / "good.log").read_text() == "one\ntwo\n"
    assert first_hour.main(["--output", str(tmp_path / "part"), "--parts", "train"]) == 0
    with pytest.raises(SystemExit) as stopped:
        first_hour.main(["--output", str(tmp_path / "part")])
    assert stopped.value.code == 2, "logs of another hour are kept"


def test_the_dry_run_starts_the_tool(first_hour: ModuleType, tmp_path: Path) -> None:
    options = ["--output", str(tmp_path / "dry"), "--dry-run", "--device", "cpu", "--only", "versions"]
    assert first_hour.main(options) == 0
    assert (tmp_path / "dry" / "versions.log").read_text().startswith("dualformer")

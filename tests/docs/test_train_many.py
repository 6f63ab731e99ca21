"""The commands that the page about training on many machines shows can be parsed by those who would run them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import typer
from torch.distributed.run import get_args_parser

from dualformer_cli.app import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "dualformer_cli" / "docs" / "train-many.md"


def block(language: str) -> str:
    """Return the one block of the page in a language, lines that go on in one."""
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(found).replace("\\\n", " ")


def assert_trains(words: list[str]) -> None:
    """Parse the words after `dualformer` as the command does."""
    assert words[0] == "train"
    command = typer.main.get_command(app).commands["train"]  # type: ignore[attr-defined]
    options = command.make_context("train", words[1:]).params
    assert (options["preset"], options["output"], options["resume"]) == ("k400-base", Path("runs/k400"), True)
    assert options["gpus"] is None, "the ranks are started already"


def test_torchrun_takes_the_command() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"```\nexport TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1\n(torchrun .*)\n```", text)
    options = get_args_parser().parse_args(shlex.split(command)[1:])
    assert (options.nnodes, options.nproc_per_node, options.max_restarts, options.module) == ("8", "8", 3, True)
    assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", "node1:29500")
    assert options.training_script == "dualformer_cli"
    assert_trains(options.training_script_args)


def test_the_batch_script_starts_a_process_for_each_gpu_on_the_first_machine_s_port(tmp_path: Path) -> None:
    """Run with a scontrol and an srun that say what they were given, as SLURM is not here."""
    script = block("bash")
    directives = dict(
        word.removeprefix("--").partition("=")[::2]
        for line in script.splitlines()
        if line.startswith("#SBATCH")
        for word in shlex.split(line.removeprefix("#SBATCH"))
    )
    assert directives["ntasks-per-node"] == directives["gpus-per-node"]
    assert directives["signal"] == "TERM@120", "without B: srun's tasks get it, not the shell"
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "node[1-8]" ] && printf "node1\\nnode2\\n"\n')
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$MASTER_ADDR" "$@"\n')
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "node[1-8]"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    host, log, program, *words = shlex.split(done.stdout)
    assert (host, log, program) == ("node1", "--output=logs/%j-%N-%t.log", "dualformer")
    assert_trains(words)


def test_the_container_is_built_from_what_a_checkout_has() -> None:
    lines = [shlex.split(line) for line in block("dockerfile").splitlines()]
    assert [words[0] for words in lines] == ["FROM", "COPY", "RUN", "ENV", "ENTRYPOINT"]
    version = lines[0][1].removeprefix("python:").removesuffix("-slim")
    (required,) = re.findall(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert int(version.removeprefix("3.")) >= int(required)
    assert lines[1][1:] == [".", "/src"]
    assert lines[2][1:5] == ["pip", "install", "--no-cache-dir", "/src"]
    assert 'dualformer = "dualformer_cli.__main__:run"' in (ROOT / "pyproject.toml").read_text()
    assert lines[4][1:] == ["[dualformer]"]

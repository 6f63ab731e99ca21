"""The commands that the page about many machines shows can be parsed by those who would run them."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import typer
from torch.distributed.run import get_args_parser

from dualformer_cli.app import app

PAGE = Path(__file__).parents[2] / "dualformer_cli" / "docs" / "predict-many.md"


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language, lines that go on in one."""
    text = PAGE.read_text(encoding="utf-8")
    return [found.replace("\\\n", " ") for found in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)]


def assert_predicts(words: list[str]) -> dict[str, object]:
    """Parse the words after `dualformer` as the command does, and return its options."""
    assert words[0] == "predict"
    command = typer.main.get_command(app).commands["predict"]  # type: ignore[attr-defined]
    options = command.make_context("predict", words[1:]).params
    assert options["inputs"] == ["/videos"]
    assert options["output"].name == "labels"
    return dict(options)


def test_the_batch_script_is_one(tmp_path: Path) -> None:
    (script,) = blocks("bash")
    path = tmp_path / "job.sh"
    path.write_text(script)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    subprocess.run(["bash", "-n", str(path)], check=True)
    directives = dict(
        (word.removeprefix("--").partition("=")[::2])
        for line in script.splitlines()
        if line.startswith("#SBATCH")
        for word in shlex.split(line.removeprefix("#SBATCH"))
    )
    known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "requeue", "no-kill"}
    assert set(directives) == known
    assert directives["ntasks-per-node"] == directives["gpus-per-node"], "a process for each GPU"
    body = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert body[1] == "export MASTER_ADDR"
    words = shlex.split(body[-1])
    assert words[:4] == ["srun", "--no-kill", "--kill-on-bad-exit=0", "dualformer"]
    options = assert_predicts(words[4:])
    assert options["gpus"] is None, "srun has started the processes"


def test_the_batch_script_names_the_first_machine(tmp_path: Path) -> None:
    """Run with a scontrol and an srun that say what they were given, as SLURM is not here."""
    (script,) = blocks("bash")
    (tmp_path / "scontrol").write_text('#!/bin/sh\n[ "$3" = "node[1-4]" ] && printf "node1\\nnode2\\n"\n')
    (tmp_path / "srun").write_text('#!/bin/sh\necho "$MASTER_ADDR" "$@"\n')
    for name in ("scontrol", "srun"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_NODELIST": "node[1-4]"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("node1 --no-kill --kill-on-bad-exit=0 dualformer predict /videos")


def test_torchrun_takes_the_commands_for_several_machines() -> None:
    lines = [line for block in blocks("") for line in block.splitlines() if line.startswith("torchrun")]
    seen = []
    for line in lines:
        options = get_args_parser().parse_args(shlex.split(line)[1:])
        assert (options.nnodes, options.nproc_per_node, options.module) == ("2", "8", True)
        assert (options.master_addr, options.master_port) == ("node1", 29500)
        assert options.training_script == "dualformer_cli"
        assert_predicts(options.training_script_args)
        seen.append(options.node_rank)
    assert seen == [0, 1]


@pytest.mark.parametrize("option", ["--gpus"])
def test_one_machine_needs_no_launcher(option: str) -> None:
    (line,) = [line for block in blocks("") for line in block.splitlines() if line.startswith("dualformer predict")]
    assert assert_predicts(shlex.split(line)[1:])[option.removeprefix("--")] == 8

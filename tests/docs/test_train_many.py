"""The commands that the page about training on many machines shows can be parsed by those who would run them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from machine_pages import blocks, directives, options_of, run_script
from torch.distributed.run import get_args_parser

PAGE = "train-many.md"


def assert_trains(words: list[str]) -> None:
    options = options_of("train", words)
    assert (options["preset"], options["output"], options["resume"]) == ("k400-base", Path("runs/k400"), True)
    assert options["gpus"] is None, "the ranks are started already"


def test_torchrun_takes_the_command() -> None:
    start = "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1\n"
    (command,) = (block.removeprefix(start) for block in blocks(PAGE, "") if block.startswith(start))
    options = get_args_parser().parse_args(shlex.split(command)[1:])
    assert (options.nnodes, options.nproc_per_node, options.max_restarts, options.module) == ("8", "8", 3, True)
    assert (options.rdzv_backend, options.rdzv_endpoint) == ("c10d", "node1:29500")
    assert options.training_script == "dualformer_cli"
    assert_trains(options.training_script_args)


def test_the_batch_script_starts_a_process_for_each_gpu_on_the_first_machine_s_port(tmp_path: Path) -> None:
    """Run with a scontrol and an srun that say what they were given, as SLURM is not here."""
    (script,) = blocks(PAGE, "bash")
    asked = directives(script)
    assert asked["ntasks-per-node"] == asked["gpus-per-node"]
    assert asked["signal"] == "TERM@120", "without B: srun's tasks get it, not the shell"
    host, log, program, *words = run_script(script, tmp_path, nodes="node[1-8]")
    assert (host, log, program) == ("node1", "--output=logs/%j-%N-%t.log", "dualformer")
    assert_trains(words)


def test_the_container_is_built_from_what_a_checkout_has() -> None:
    (block,) = blocks(PAGE, "dockerfile")
    lines = [shlex.split(line) for line in block.splitlines()]
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert [words[0] for words in lines] == ["FROM", "COPY", "RUN", "ENV", "ENTRYPOINT"]
    version = lines[0][1].removeprefix("python:").removesuffix("-slim")
    (required,) = re.findall(r'requires-python = ">=3\.(\d+)"', project)
    assert int(version.removeprefix("3.")) >= int(required)
    assert lines[1][1:] == [".", "/src"]
    assert lines[2][1:5] == ["pip", "install", "--no-cache-dir", "/src"]
    assert 'dualformer = "dualformer_cli.__main__:run"' in project
    assert lines[4][1:] == ["[dualformer]"]

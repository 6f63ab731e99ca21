"""The commands that the page about many machines shows can be parsed by those who would run them."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from machine_pages import blocks, directives, options_of, run_script
from torch.distributed.run import get_args_parser

PAGE = "predict-many.md"


def assert_predicts(words: list[str]) -> dict[str, object]:
    options = options_of("predict", words)
    assert options["inputs"] == ["/videos"]
    assert options["output"].name == "labels"
    return options


def test_the_batch_script_is_one(tmp_path: Path) -> None:
    (script,) = blocks(PAGE, "bash")
    path = tmp_path / "job.sh"
    path.write_text(script)
    assert script.startswith("#!/bin/bash\n#SBATCH ")
    subprocess.run(["bash", "-n", str(path)], check=True)
    asked = directives(script)
    known = {"job-name", "nodes", "ntasks-per-node", "gpus-per-node", "cpus-per-task", "time", "requeue", "no-kill"}
    assert set(asked) == known
    assert asked["ntasks-per-node"] == asked["gpus-per-node"], "a process for each GPU"
    body = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert body[1] == "export MASTER_ADDR"
    words = shlex.split(body[-1])
    assert words[:4] == ["srun", "--no-kill", "--kill-on-bad-exit=0", "dualformer"]
    options = assert_predicts(words[4:])
    assert options["gpus"] is None, "srun has started the processes"


def test_the_batch_script_names_the_first_machine(tmp_path: Path) -> None:
    (script,) = blocks(PAGE, "bash")
    words = run_script(script, tmp_path, nodes="node[1-4]")
    assert words[:6] == ["node1", "--no-kill", "--kill-on-bad-exit=0", "dualformer", "predict", "/videos"]


def test_torchrun_takes_the_commands_for_several_machines() -> None:
    lines = [line for block in blocks(PAGE, "") for line in block.splitlines() if line.startswith("torchrun")]
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
    (line,) = [
        line for block in blocks(PAGE, "") for line in block.splitlines() if line.startswith("dualformer predict")
    ]
    assert assert_predicts(shlex.split(line)[1:])[option.removeprefix("--")] == 8

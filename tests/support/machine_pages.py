"""What the tests of the pages about several machines share: their blocks, batch scripts and commands."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import typer

from dualformer_cli.app import app

PAGES = Path(__file__).parents[2] / "dualformer_cli" / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page in a language, lines that go on in one."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [block.replace("\\\n", " ") for of, block in found if of == language]


def directives(script: str) -> dict[str, str]:
    """Return what a batch script asks SLURM for."""
    lines = [line.removeprefix("#SBATCH") for line in script.splitlines() if line.startswith("#SBATCH")]
    return dict(word.removeprefix("--").partition("=")[::2] for line in lines for word in shlex.split(line))


def run_script(script: str, folder: Path, *, nodes: str) -> list[str]:
    """Run a batch script with a scontrol and an srun that stand in for SLURM's; returns MASTER_ADDR and srun's words.

    Args:
        nodes: as SLURM writes them; the first is node1.
    """
    (folder / "scontrol").write_text(f'#!/bin/sh\n[ "$3" = "{nodes}" ] && printf "node1\\nnode2\\n"\n')
    (folder / "srun").write_text('#!/bin/sh\necho "$MASTER_ADDR" "$@"\n')
    for name in ("scontrol", "srun"):
        (folder / name).chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_NODELIST": nodes}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)


def options_of(name: str, words: list[str]) -> dict[str, Any]:
    """Parse the words after `dualformer` as that command does, and return its options."""
    assert words[0] == name
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return dict(command.make_context(name, words[1:]).params)

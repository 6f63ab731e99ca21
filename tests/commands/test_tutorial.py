"""The tutorial, line by line, with fewer clips."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.config.load import load_config
from dualformer_cli.data.camera_motion import files
from dualformer_cli.kernels.window_attention import HEAD_WIDTHS

PAGE = Path(__file__).parents[2] / "dualformer_cli" / "docs" / "tutorial.md"
FEWER = {
    "prepare": [("--count 300", "--count 100")],
    "train": [("--preset", "--set data.render.num_clips=64 --set train.epochs=1 --set train.batch_size=8 --preset")],
}
"""What is put in the place of words of a line: the full tutorial takes two minutes."""


def tutorial() -> tuple[str, list[list[str]]]:
    """The preset that the tutorial writes, and its commands."""
    text = PAGE.read_text(encoding="utf-8")
    block = re.search(r"```sh\ncat > motion.yaml <<'END'\n(.*?)END\n(.*?)```", text, re.DOTALL)
    assert block is not None
    lines = []
    for line in block[2].strip().splitlines():
        name = line.split()[1]
        for old, new in FEWER.get(name, []):
            assert old in line
            line = line.replace(old, new)
        lines.append(shlex.split(line))
    return block[1], lines


@pytest.mark.usefixtures("_own_environment")
def test_every_line_of_the_tutorial_works(here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("system.workers", "tasks.session", "data.camera_motion.files", "engine.training.loop"):
        monkeypatch.setattr(f"dualformer_cli.{module}.WorkerPool", here_pool)
    files._stock.cache_clear()
    preset, lines = tutorial()
    Path("motion.yaml").write_text(preset)
    assert [line[:2] for line in lines] == [
        ["dualformer", name] for name in ("prepare", "train", "eval", "predict", "gradcam")
    ]
    for line in lines:
        result = CliRunner().invoke(app, line[1:])
        assert result.exit_code == 0, (line, result.output, result.exception)
    assert re.search(r"^top-1 +\d", CliRunner().invoke(app, lines[2][1:-2]).stdout, re.MULTILINE)
    for made in ("runs/motion/curves.png", "motion.html", "motion.gif"):
        assert Path(made).stat().st_size > 1000


def test_the_preset_of_the_tutorial_is_as_large_as_the_text_says(tmp_path: Path) -> None:
    (tmp_path / "motion.yaml").write_text(tutorial()[0])
    config = load_config(str(tmp_path / "motion.yaml"), environ={}).config
    widths = zip(config.model.embed_dims, config.model.num_heads, strict=True)
    assert all(dim // heads in HEAD_WIDTHS for dim, heads in widths), "a card runs its kernels in the tutorial"
    assert (len(config.model.depths), config.train.epochs * config.data.render.num_clips) == (2, 9600)

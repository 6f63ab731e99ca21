"""Every console block of the README and of the pages is typed as it stands, but for what needs hours or a network."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch
from tar_shards import write_shard
from typer.testing import CliRunner

from dualformer_cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "dualformer_cli" / "docs").glob("*.md"))

_QUICK = "--set train.epochs=1 --set train.batch_size=2 --set train.global_batch_size=2 --set runtime.num_workers=1"
SUBSTITUTES = {
    "--preset k400-small --data": f"--preset PRESET {_QUICK} --data",
    "--preset k400-tiny --init-from k400-tiny --data": f"--preset PRESET --init-from WEIGHTS {_QUICK} --data",
    "--preset k400-tiny-tokenlabel --data": (
        "--preset PRESET --teacher WEIGHTS --set train.teacher_preset=PRESET --data"
    ),
    "tokenlabel show clip.mp4": "tokenlabel show clip.mp4 --preset PRESET --weights WEIGHTS",
    " --gpus 8": "",
    "--preset camera-motion --cpu-processes 2 --data render": (
        f"--preset camera-motion {_QUICK} --set data.render.num_clips=4 --set data.render.pictures=[] "
        "--set train.ema_decay=0 --data render"
    ),
    "--count 2000": "--count 100 --dry-run",
    "--count 3000": "--count 100 --num-frames 16 --difficulty 0",
    " --pictures ~/Pictures --pictures scikit-image": " --pictures photographs",
    '--layer 2/9 --class "riding a bike"': "--layer 2/1 --class shake",
    "dualformer download hmdb51": "dualformer download hmdb51 --dry-run",
    "dualformer download kinetics400 --split val --root /big": (
        "dualformer download kinetics400 --split val --root big --dry-run"
    ),
    "dualformer download kinetics400 --only weights": "dualformer download kinetics400 --only weights --dry-run",
    "eval --weights runs/train/checkpoints/best.pt": (
        "eval --weights runs/train/checkpoints/best.pt --device cpu --views 1x1"
    ),
}
"""What is put in the place of words of a line: other models, fewer clips, no network."""


def blocks(page: Path) -> list[list[tuple[str, list[str]]]]:
    """Return the console blocks of a page: each line after `$`, without its comment, and what it prints below."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        lines: list[tuple[str, list[str]]] = []
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                lines.append((re.sub(r"\s+# .*", "", line[2:]), []))
            else:
                lines[-1][1].append(line)
        found.append(lines)
    return found


def substituted(line: str, *, preset: Path, weights: Path) -> str:
    for old, new in SUBSTITUTES.items():
        line = line.replace(old, new)
    return line.replace("PRESET", shlex.quote(str(preset))).replace("WEIGHTS", shlex.quote(str(weights)))


def every_page() -> Iterator[Any]:
    for page in [ROOT / "README.md", *PAGES]:
        for number, block in enumerate(blocks(page), start=1):
            yield pytest.param(block, id=f"{page.stem}-{number}")


@pytest.fixture
def scene(
    tmp_path: Path, clip_drawer: Callable[..., Path], here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A folder with what the pages speak of, no network, and videos decoded in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DUALFORMER_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "80")
    clip = clip_drawer(tmp_path / "clip.mp4", num_frames=30)
    rows = {"train": ["path,label"], "val": ["path,label"]}
    for number, label in enumerate(("running", "jumping", "running", "jumping", "running", "jumping")):
        video = tmp_path / "videos" / label / f"{number}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        clip_drawer(video, num_frames=12 + number)
        rows["val" if number > 3 else "train"].append(f"{label}/{number}.mp4,{label}")
    pictures = tmp_path / "photographs"
    pictures.mkdir()
    for number in range(4):
        PIL.Image.effect_noise((320, 240), 40 + number).convert("RGB").save(pictures / f"{number}.png")
    dataset = tmp_path / "data" / "hmdb51"
    (dataset / "annotations").mkdir(parents=True)
    for split in (1, 2, 3):
        (dataset / "annotations" / f"kick_test_split{split}.txt").write_text("a.avi 1\nb.avi 2\n")
    (dataset / "videos" / "kick").mkdir(parents=True)
    for name in ("a", "b"):
        shutil.copy(clip, dataset / "videos" / "kick" / f"{name}.avi")
    tmp_path.joinpath("lists").mkdir()
    for split, lines in rows.items():
        tmp_path.joinpath("lists", f"{split}.csv").write_text("".join(f"{line}\n" for line in lines))
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, label in enumerate(("running", "jumping")):
        members = [(f"{label}/{path.name}", path) for path in sorted((tmp_path / "videos" / label).iterdir())]
        labels = [(f"{Path(name).with_suffix('.cls')}", label) for name, _ in members]
        write_shard(shards / f"clips-{number:04}.tar", [*members, *labels])
    for name, module in list(sys.modules.items()):
        if name.startswith("dualformer_cli.") and hasattr(module, "WorkerPool"):
            monkeypatch.setattr(module, "WorkerPool", here_pool)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run(line: str) -> Any:
    """Type one command."""
    words = shlex.split(line)
    assert words[0] == "dualformer", line
    result = CliRunner().invoke(app, words[1:])
    assert result.exit_code == 0, (line, result.output, result.exception)
    return result


@pytest.mark.usefixtures("scene")
@pytest.mark.parametrize("block", list(every_page()))
def test_a_console_block_can_be_typed(
    block: list[tuple[str, list[str]]], mini_preset: Path, mini_weights: Path
) -> None:
    typed = [line for line, _ in block]
    if any("videos/train.csv" in line or "videos/val.csv" in line for line in typed):
        for split in ("train", "val"):
            shutil.copy(f"lists/{split}.csv", f"videos/{split}.csv")
    if typed[0].startswith("dualformer eval"):
        make_run(mini_preset)
    for line, printed in block:
        for part in substituted(line, preset=mini_preset, weights=mini_weights).split(" && "):
            result = run(part)
        assert_printed(result.stdout, printed)


@pytest.mark.usefixtures("scene")
def test_the_python_of_its_page_runs() -> None:
    page = ROOT / "dualformer_cli" / "docs" / "python.md"
    for split in ("train", "val"):
        shutil.copy(f"lists/{split}.csv", f"videos/{split}.csv")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    assert Path("runs/python/checkpoints/best.pt").is_file()
    assert Path("map.png").is_file()


def make_run(preset: Path) -> None:
    """Make what the lines about an evaluation begin with: a checkpoint, and the dump of another run."""
    lists = "--data videos/train.csv --data videos/val.csv"
    run(f"dualformer train --preset {shlex.quote(str(preset))} {_QUICK} {lists}")
    run("dualformer eval --weights runs/train/checkpoints/best.pt --data videos/val.csv --dump other.jsonl")


def assert_printed(stdout: str, shown: list[str]) -> None:
    """Compare what a line printed with what its page shows; paths are cut there, and bars and scores may differ."""
    printed = [re.sub(r"\s+[\d.]+%.*", "", line).rstrip() for line in stdout.splitlines()]
    for line in shown:
        expected = re.sub(r"\s+[\d.]+%.*", "", line).rstrip()
        assert any(
            found == expected or (expected.startswith("...") and found.endswith(expected[3:])) for found in printed
        ), (line, printed)


def test_every_substitute_is_for_a_line_of_a_page() -> None:
    lines = [line for page in [ROOT / "README.md", *PAGES] for block in blocks(page) for line, _ in block]
    assert [old for old in SUBSTITUTES if not any(old in line for line in lines)] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.stem)
def test_links_and_pictures_of_a_page_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).is_file(), target


def test_every_page_is_linked_from_the_readme_which_stays_short() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"(dualformer_cli/docs/{page.name})" not in text] == []
    assert len(text.splitlines()) <= 220


@pytest.mark.parametrize(
    "words",
    [[command.name] for command in app.registered_commands] + [["tokenlabel"], ["tokenlabel", "show"]],
    ids=" ".join,
)
def test_the_help_of_a_command_names_its_page(words: list[str]) -> None:
    """On one line, however narrow the terminal is, so that it can be copied."""
    text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "40"}).stdout
    (page,) = re.findall(r"Page: (\S+)", text)
    assert Path(page).read_text(encoding="utf-8").startswith(f"# dualformer {words[0]}")

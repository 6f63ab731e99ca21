"""Which room imports which, read from the source: any door that the house does not have fails here."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dualformer_cli"

DOORS = {
    "__init__": {"tasks"},  # the Python interface
    "__main__": {"app"},
    "app": {"commands", "system"},
    "commands": {"config", "data", "documents", "engine", "outputs", "system", "tasks", "video"},
    "tasks": {"config", "data", "documents", "engine", "model", "outputs", "system", "video"},
    "outputs": {"config", "documents", "system", "video"},
    "engine": {"config", "data", "documents", "model", "system", "video"},
    "data": {"config", "documents", "system", "video"},
    "video": {"config", "system"},
    "model": {"kernels"},
    "documents": {"config"},
    "config": {"system"},
    "system": set(),
    "errors": set(),
    "kernels": {"config"},
}
"""Room to the rooms that it may open besides itself."""

OPEN_TO_ALL = {"errors", "__version__"}

LIBRARY_DOORS = {
    "triton": {"kernels"},
    "torch": {"app", "data", "engine", "kernels", "model", "tasks"},
    "click": set(),  # typer carries its own: the exceptions of this one are other classes
    "kernels": set(),  # would be Hugging Face's package
    "presets": set(),
    "tests": set(),
}
"""Library to the only rooms that may import it."""

TOP_LEVEL = {PACKAGE, "kernels", "presets", "tests", "pyproject.toml", "README.md", "LICENSE"}


def source_files() -> list[Path]:
    return sorted([*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])


def module_of(path: Path) -> list[str]:
    """The dotted name of a file as installed, in parts: dualformer_cli, room, file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return list(parts if parts[0] == PACKAGE else (PACKAGE, *parts))


def imports(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    """Every import below `tree`, wherever it stands: (line, absolute dotted name)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield from ((node.lineno, str(name.value)) for name in node.args[:1] if isinstance(name, ast.Constant))


def forbidden_doors(source: str, module: list[str]) -> list[str]:
    """Name every import of `source` that opens a door which its room does not have."""
    room = module[1]
    allowed = DOORS[room] | OPEN_TO_ALL | {room}
    found = []
    for line, name in imports(ast.parse(source), module[:-1]):
        top, *below = name.split(".")
        if top == PACKAGE:
            target = below[0] if below else "__init__"
            if target not in allowed:
                found.append(f"line {line}: {room} opens {target}")
        elif room not in LIBRARY_DOORS.get(top, {room}):
            found.append(f"line {line}: {room} imports {top}")
    return found


@pytest.mark.parametrize("path", source_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_opens_only_its_own_doors(path: Path) -> None:
    assert forbidden_doors(path.read_text(encoding="utf-8"), module_of(path)) == []


def test_every_room_is_in_the_plan() -> None:
    rooms = {path.stem if path.is_file() else path.name for path in (ROOT / PACKAGE).iterdir()}
    assert rooms - {"__pycache__", "docs", "py"} <= set(DOORS)


@pytest.mark.parametrize(
    ("module", "source", "door"),
    [
        ("data.clips.loader", "from dualformer_cli.engine.engine import Engine", "line 1: data opens engine"),
        ("video.open", "from dualformer_cli.data.lists import manifest", "line 1: video opens data"),
        ("system.workers", "from dualformer_cli.video.reader import VideoInfo", "line 1: system opens video"),
        ("model.blocks", "def f():\n    import dualformer_cli.engine.engine", "line 2: model opens engine"),
        ("model.blocks", "import triton.language as tl", "line 1: model imports triton"),
        ("outputs.video", "from dualformer_cli import data", "line 1: outputs opens data"),
        ("outputs.video", "from ..data import clips", "line 1: outputs opens data"),
        ("outputs.screen", "import torch", "line 1: outputs imports torch"),
        ("kernels.op", "from dualformer_cli.model import windows", "line 1: kernels opens model"),
        ("commands.train", "from dualformer_cli.model.weights import load_weights", "line 1: commands opens model"),
        ("commands.train", "import click", "line 1: commands imports click"),
        ("engine.engine", "from dualformer_cli.outputs import screen", "line 1: engine opens outputs"),
        ("engine.engine", "import dualformer_cli", "line 1: engine opens __init__"),
        ("model.attention", "from kernels.op import op", "line 1: model imports kernels"),
        (
            "config.load",
            "import importlib\nimportlib.import_module('dualformer_cli.data')",
            "line 2: config opens data",
        ),
    ],
)
def test_a_door_that_does_not_exist_is_found(module: str, source: str, door: str) -> None:
    assert forbidden_doors(source, [PACKAGE, *module.split(".")]) == [door]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.clips.loader", "import torch\nfrom dualformer_cli.data.clips import sampling\nfrom . import views"),
        (
            "outputs.video",
            "from dualformer_cli.errors import VideoError\nfrom dualformer_cli.system.files import atomic_path",
        ),
        ("model.attention", "from dualformer_cli.kernels.op import op"),
        ("kernels.op", "import triton"),
        ("engine.engine", "from dualformer_cli import __version__"),
    ],
)
def test_a_door_of_the_house_is_open(module: str, source: str) -> None:
    assert forbidden_doors(source, [PACKAGE, *module.split(".")]) == []


@pytest.mark.parametrize(
    "path",
    [ROOT / PACKAGE / name for name in ("app.py", "config/option_defaults.py")]
    + sorted((ROOT / PACKAGE / "commands").glob("*.py")),
    ids=lambda path: path.name,
)
def test_a_command_imports_only_typer_and_the_standard_library_at_its_top(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    for line, name in imports(top, module_of(path)[:-1]):
        library = name.split(".")[0]
        light = library in sys.stdlib_module_names or library == "typer"
        light_system = (f"system.{name}" for name in ("disk", "exit_codes", "files", "words"))
        light_rooms = ("commands", "config.option_defaults", "errors", *light_system)
        ours = name.startswith(tuple(f"{PACKAGE}.{name}" for name in light_rooms))
        assert light or ours, f"line {line}: {name} would be loaded by --help; import it inside the function"


def test_kernels_and_presets_have_no_init_so_that_they_shadow_no_other_package() -> None:
    assert not [folder for folder in ("kernels", "presets", "tests") if list((ROOT / folder).rglob("__init__.py"))]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a git checkout to tell files from build outputs")
def test_nothing_else_stands_at_the_top_level() -> None:
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.startswith(".")} <= TOP_LEVEL

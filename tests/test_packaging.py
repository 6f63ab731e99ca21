"""What a user installs: the wheel holds every file and works, as do a checkout and an editable install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from dualformer_cli import __version__
from dualformer_cli.app import app

ROOT = Path(__file__).resolve().parent.parent

INSTALLED_AS = {
    "dualformer_cli": "dualformer_cli",
    "kernels": "dualformer_cli/kernels",
    "presets": "dualformer_cli/presets",
}
"""Folder of the checkout to its place in the wheel."""

READ_A_PRESET = (
    "import importlib.util, dualformer_cli;"
    "from dualformer_cli.config.load import known_presets, load_config;"
    "assert 'k400-base' in known_presets();"
    "assert load_config('k400-base', environ={}).config.model.embed_dims == (128, 256, 512, 1024);"
    "assert importlib.util.find_spec('dualformer_cli.kernels.depthwise_conv3d');"
    "print(dualformer_cli.__file__)"
)


def python(*arguments: str, cwd: Path, path: Path | None = None) -> str:
    """Run Python in `cwd` with nothing but `path` in PYTHONPATH; return its stdout."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and "DUALFORMER" not in name}
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build_options() -> list[str]:
    """Build with the setuptools that is here when it is new enough, else let pip fetch one."""
    try:
        is_here = int(version("setuptools").split(".")[0]) >= 77
    except PackageNotFoundError:
        is_here = False
    return ["--no-deps", "--no-build-isolation"] if is_here else ["--no-deps"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing behind in it."""
    copy = tmp_path_factory.mktemp("source")
    for name in INSTALLED_AS:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    python("-m", "pip", "wheel", "-q", ".", *build_options(), "-w", str(folder), cwd=source)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    python("-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(target), str(wheel), cwd=target)
    return target


def expected_files() -> set[str]:
    found = set()
    for folder, place in INSTALLED_AS.items():
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT / folder)
            if path.is_file() and "__pycache__" not in relative.parts and not path.name.startswith("."):
                found.add(f"{place}/{relative.as_posix()}")
    return found


def test_the_wheel_holds_every_file_of_the_folders_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    metadata = {name for name in names if name.startswith(f"dualformer-{__version__}.dist-info/")}
    assert names - metadata == expected_files()
    assert f"dualformer-{__version__}.dist-info/licenses/LICENSE" in metadata


def test_the_wheel_installs_the_command(wheel: Path) -> None:
    entry_points = zipfile.ZipFile(wheel).read(f"dualformer-{__version__}.dist-info/entry_points.txt").decode()
    assert "[console_scripts]\ndualformer = dualformer_cli.__main__:run" in entry_points


def test_an_installed_wheel_works_from_any_folder(installed: Path, tmp_path: Path) -> None:
    assert python("-m", "dualformer_cli", "--version", cwd=tmp_path, path=installed).startswith(
        f"dualformer {__version__}\n"
    )
    assert python("-m", "dualformer_cli", "--help", cwd=tmp_path, path=installed).startswith("Usage: dualformer ")
    where = python("-c", READ_A_PRESET, cwd=tmp_path, path=installed)
    assert Path(where.strip()).is_relative_to(installed)


def test_an_installed_wheel_takes_no_name_of_other_packages(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if path.is_dir()}
    assert names - {"bin", "Scripts"} == {"dualformer_cli", f"dualformer-{__version__}.dist-info"}


def test_an_editable_install_works_from_any_folder(source: Path, tmp_path: Path) -> None:
    options = ["-q", *build_options(), "--ignore-installed", "--prefix", str(tmp_path / "prefix")]
    python("-m", "pip", "install", *options, "--editable", str(source), cwd=tmp_path)
    (site,) = {path.parent for path in (tmp_path / "prefix").rglob("*.pth")}
    # -S, and the environment's packages as a plain folder: the project itself may be installed there in this way too
    paths = f"site.addsitedir({str(site)!r}); sys.path.append({sysconfig.get_path('purelib')!r});"
    where = python("-S", "-c", f"import site, sys; {paths}{READ_A_PRESET}", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(source)


def test_a_checkout_works_without_an_install_and_beside_a_wheel(installed: Path) -> None:
    for path in (None, installed):
        assert python("-m", "dualformer_cli", "--help", cwd=ROOT, path=path).startswith("Usage: dualformer ")
        where = python("-c", READ_A_PRESET, cwd=ROOT, path=path)
        assert Path(where.strip()).is_relative_to(ROOT)


@pytest.mark.parametrize("name", [command.name for command in app.registered_commands])
def test_every_command_has_a_row_in_the_readme_and_a_page(name: str) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"| `{name}` |" in text
    assert f"[{name}](dualformer_cli/docs/{name}.md)" in text

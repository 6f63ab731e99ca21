"""Fixtures that tests of every folder share: the golden files and the number pattern that made them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:  # threads of several test processes wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch loads, here and in the processes that tests start

import av
import numpy as np
import pytest
from hypothesis import settings
from rendered_clips import Clips
from web_server import WebServer

from dualformer_cli.system.workers import Outcome

settings.register_profile("no deadline", deadline=None)  # how long an example takes says more of the machine's load
settings.load_profile("no deadline")

GOLDEN = Path(__file__).parent / "golden"
SUPPORT = Path(__file__).parent / "support"


def integer_hash_pattern(key: str, shape: Sequence[int]) -> np.ndarray:
    """Numbers in [-1, 1) that depend on `key` and the flat index only, float64: the inputs of the golden files."""
    numbers = np.empty(int(np.prod(shape)))
    for start in range(0, numbers.size, 2**15):  # as much as a processor's cache holds, which is three times as fast
        x = np.arange(start, min(start + 2**15, numbers.size), dtype=np.uint64)
        x += np.uint64(((zlib.crc32(key.encode()) << 32) + 0x9E3779B97F4A7C15) % 2**64)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
        numbers[start : start + x.size] = (x >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    return numbers.reshape(tuple(shape))


@pytest.fixture(scope="session")
def pattern() -> Callable[[str, Sequence[int]], np.ndarray]:
    """The function pattern(key, shape) -> float64 array in [-1, 1), as the golden files' notes write it."""
    return integer_hash_pattern


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Any]:
    """The function golden(name) -> content of tests/golden/<name>.json, for example golden("golden_recipe")."""

    def load(name: str) -> Any:
        return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))

    return load


@pytest.fixture(autouse=True)
def plenty_of_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk with room, as data sets of the published sizes would not fit on the one of a small machine."""
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**15))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread in torch: results do not depend on how many cores are free."""
    import torch  # here, as tests of other rooms do without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CLASS_NAMES = ["running", "jumping", "sitting down", "waving, both hands", "naïve dancing 💃"]

MINI_PRESET = """\
model:
  embed_dims: [8, 16, 16, 32]
  depths: [2, 2, 2, 2]
  num_heads: [1, 2, 2, 4]
  window_size: [2, 2, 2]
  fine_grid: [2, 2, 2]
  coarse_grid: [2, 2, 2]
  num_classes: 5
data:
  classes: {classes}
  clip: {{num_frames: 8}}
  crop_size: 64
  test: {{num_clips: 2, short_side: 64}}
  validation: {{short_side: 64}}
runtime: {{device: cpu}}
"""


@pytest.fixture(scope="session")
def mini_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a model with every part of the large ones that computes in milliseconds, and its class list."""
    folder = tmp_path_factory.mktemp("preset")
    classes, preset = folder / "classes.txt", folder / "mini.yaml"
    classes.write_text("\n".join(CLASS_NAMES), encoding="utf-8")
    preset.write_text(MINI_PRESET.format(classes=json.dumps(str(classes))), encoding="utf-8")
    return preset


@pytest.fixture(scope="session")
def mini_weights(mini_preset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights for it in the published layout, whose scores depend much on what is seen."""
    import torch
    from published_layout import to_published

    from dualformer_cli import create_model

    torch.manual_seed(5)
    model = create_model(str(mini_preset))
    with torch.no_grad():
        model.classifier.weight.mul_(60)
    path = tmp_path_factory.mktemp("weights") / "mini.pth"
    torch.save({"state_dict": to_published(model.state_dict())}, path)
    return path


def draw_clip(path: Path, *, num_frames: int = 40, size: tuple[int, int] = (96, 64), fps: int = 25) -> Path:
    """Write an H.264 file of a pattern that moves, brightens and changes its colours."""
    width, height = size
    columns, rows = np.arange(width)[None, :, None], np.arange(height)[:, None, None]
    colours = np.array([1.0, 0.7, 0.4])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            wave = np.sin(columns / (3 + number / 9) + number * colours) * np.cos(rows / 7 - number / 5)
            pixels = (110 + number % 60 + 80 * wave).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="session")
def clip_drawer() -> Callable[..., Path]:
    """The function draw_clip(path, num_frames=40, size=(96, 64), fps=25) -> path of a new video."""
    return draw_clip


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Clips:
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder prints its settings otherwise
    return Clips(tmp_path_factory.mktemp("clips"))


class HerePool:
    """Does at once and in this process what a WorkerPool does in others."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take what a WorkerPool takes."""

    def __enter__(self) -> HerePool:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def call(self, function: Callable[[Any], Any], item: Any) -> Outcome[Any, Any]:
        return next(self.imap(function, [item]))

    def imap(
        self, function: Callable[[Any], Any], items: Iterable[Any], *, ahead: int | None = None
    ) -> Iterator[Outcome[Any, Any]]:
        for item in items:
            try:
                outcome = Outcome(item, function(item))
            except Exception as error:
                outcome = Outcome.failed(item, error)
            yield outcome


@pytest.fixture(scope="session")
def here_pool() -> type[HerePool]:
    """A class to put in the place of WorkerPool where a test is about something else."""
    return HerePool


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    """A local web server that misbehaves on request; see tests/support/web_server.py."""
    monkeypatch.setenv("no_proxy", "*")
    server = WebServer()
    yield server
    server.close()


RAR_TOOLS = ("unrar", "7z", "7zz", "unar", "bsdtar")


@pytest.fixture
def rar_tools(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """The function rar_tools(*names) -> folder: only these programs unpack rar; each knows stored archives only."""
    folder = tmp_path_factory.mktemp("programs")
    others = [at for at in os.get_exec_path() if not any((Path(at) / name).exists() for name in RAR_TOOLS)]
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), *others]))

    def install(*names: str) -> Path:
        for name in names:
            program = folder / name
            program.write_text(f"#!{sys.executable}\n{(SUPPORT / 'rar_program.py').read_text(encoding='utf-8')}")
            program.chmod(0o755)
        return folder

    return install

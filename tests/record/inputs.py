"""The inputs of the record: videos, lists, presets and a checkpoint, the same at every run."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np

CLASSES = ["run", "jump", "wave"]
PRESET = """\
model:
  embed_dims: [8, 16, 16, 32]
  depths: [1, 1, 2, 1]
  num_heads: [1, 2, 2, 4]
  window_size: [2, 2, 2]
  fine_grid: [2, 2, 2]
  coarse_grid: [2, 2, 2]
  num_classes: 3
data:
  classes: {classes}
  clip: {{num_frames: 8}}
  crop_size: 64
  test: {{num_clips: 2, short_side: 64}}
  validation: {{short_side: 64}}
train: {{epochs: 1, batch_size: 2, global_batch_size: 4, warmup_epochs: 0}}
runtime: {{device: cpu}}
"""


def draw(number: int, phase: int) -> np.ndarray:
    """One frame, 96 x 64: a disc on a coloured ground, whose path and colours depend on `phase`."""
    rows, columns = np.mgrid[:64, :96]
    picture = np.stack(
        [(columns * (c + 1) + rows * (3 - c) + 40 * phase + 3 * number) % 200 for c in range(3)], axis=-1
    )
    x, y = (10 + number * (phase + 1)) % 96, (30 + 7 * phase + number) % 64
    picture[(rows - y) ** 2 + (columns - x) ** 2 < 90] = (250, 60 * phase % 250, 30)
    return picture.astype(np.uint8)


def render(
    path: Path, *, phase: int = 0, frames: int = 24, codec: str = "libx264", pixels: str = "yuv420p", **options: str
) -> Path:
    """Write a video of the disc and return its path; `options` go to the encoder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(f"file:{path}", "w") as container:
        stream = container.add_stream(codec, rate=12, options={"threads": "1", **options})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pixels
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(draw(number, phase), format="rgb24").reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def rotate(source: Path, target: Path) -> None:
    """Copy an MP4 and turn the picture by a quarter in the matrix of its track header."""
    data = bytearray(source.read_bytes())
    plain = b"".join(value.to_bytes(4, "big") for value in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    turned = b"".join((value % 2**32).to_bytes(4, "big") for value in (0, 65536, 0, -65536, 0, 0, 64 << 16, 0, 1 << 30))
    at = data.index(plain, data.index(b"tkhd"))
    data[at : at + 36] = turned
    target.write_bytes(data)


def make_videos(folder: Path) -> None:
    """Videos of several kinds, and files that are none."""
    clip = render(folder / "clip.mp4", g="8")
    render(folder / "long.mp4", frames=60, phase=2, g="12")
    render(folder / "b.avi", codec="mpeg4", bf="2", phase=1)
    render(folder / "vp9.webm", codec="libvpx-vp9", phase=2, deadline="realtime")
    render(folder / "clip.ts", phase=1)
    render(folder / "moving.gif", codec="gif", pixels="rgb8", frames=12)
    rotate(clip, folder / "rotated.mp4")
    for name in ("with space.mp4", "it's.mp4", "naïve.mp4", "-dash.mp4"):
        shutil.copy(clip, folder / name)
    for number in range(12):
        render(folder / "frames" / f"img_{number + 1:05d}.png", codec="png", pixels="rgb24", frames=1, phase=number % 3)
    whole = clip.read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    garbled = bytearray(whole)
    garbled[600:1600] = bytes(1000)
    (folder / "garbled.mp4").write_bytes(garbled)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("This is no video.\n", encoding="utf-8")
    (folder / "page.html").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>\n", encoding="utf-8")


def make_lists(folder: Path) -> None:
    """Class folders and lists of their videos, right ones and wrong ones."""
    rows = []
    for label, name in enumerate(CLASSES):
        for number in range(4):
            path = render(
                folder / "classes" / name / f"{name}_{number}.mp4", phase=3 * label + number, frames=16, g="8"
            )
            rows.append((path.relative_to(folder).as_posix(), name, label))
    shutil.copytree(folder / "classes", folder / "broken")
    shutil.copy(folder / "cut.mp4", folder / "broken" / "run" / "cut.mp4")
    texts = {
        "train.csv": "path,label\n"
        + "".join(f"{path},{name}\n" for path, name, _ in rows if not path.endswith("_3.mp4")),
        "val.csv": "path,label\n" + "".join(f"{path},{name}\n" for path, name, _ in rows if path.endswith("_3.mp4")),
        "partly.csv": "path,label\n"
        + "".join(f"{path},{name}\n" for path, name, _ in rows[::3])
        + "none.mp4,run\ncut.mp4,jump\n",
        "mistakes.csv": f"path,label\n{rows[0][0]},fly\n{rows[1][0]}\n,run\n",
        "video.txt": "".join(f"{path} {label}\n" for path, _, label in rows),
        "unlabelled.txt": "".join(f"{path}\n" for path, _, _ in rows),
        "tabs.tsv": "path\tlabel\n" + "".join(f"{path}\t{name}\n" for path, name, _ in rows),
        "labels.csv": "file,label\n" + "".join(f"{path.removeprefix('classes/')},{name}\n" for path, name, _ in rows),
        "classes.txt": "".join(f"{name}\n" for name in CLASSES),
        "turned.txt": "".join(f"{name}\n" for name in reversed(CLASSES)),
        "paths.txt": "in/clip.mp4\n\nb.avi\n",
        "mini.yaml": PRESET.format(classes=folder / "classes.txt"),
        "permuted.yaml": PRESET.format(classes=folder / "turned.txt"),
        "bad.yaml": "model: [\n",
        "unknown.yaml": "model: {nothing: 1}\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")

"""The inputs of the record: videos, lists, presets and a checkpoint, the same at every run."""

from __future__ import annotations

import json
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
train: {{epochs: 1, batch_size: 2, global_batch_size: 4, warmup_epochs: 0, log_every_steps: 1}}
runtime: {{device: cpu}}
"""


RENDERED = """\
model: {embed_dims: [8, 16, 16, 32], depths: [1, 1, 2, 1], num_heads: [1, 2, 2, 4], window_size: [2, 2, 2],
  fine_grid: [2, 2, 2], coarse_grid: [2, 2, 2], num_classes: 10, start: motion}
data: {classes: camera_motion, crop_size: 64, clip: {num_frames: 8}, train_list: "render:camera-motion",
  render: {num_clips: 8}, test: {short_side: 64}, validation: {short_side: 64}}
train: {epochs: 1, batch_size: 4, global_batch_size: 4, warmup_epochs: 0, log_every_steps: 1, motion_weight: 0.5}
runtime: {device: cpu}
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
        if codec == "libx264":  # whose fast routines give other bits in one process than in another
            options = {"x264-params": "cpu-independent=1", **options}
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
        "paths.txt": "clip.mp4\n\nb.avi\n",
        "mini.yaml": PRESET.format(classes=folder / "classes.txt"),
        "permuted.yaml": PRESET.format(classes=folder / "turned.txt"),
        "bad.yaml": "model: [\n",
        "rendered.yaml": RENDERED,
        "rawframe.txt": "frames 12 0\nmore 12 2\n",
        "offset.txt": "frames 2 8 0\nmore 0 8 1\n",
        "list.json": json.dumps([{"filename": path, "label": [label]} for path, _, label in rows[::2]]),
        "names.csv": "\ufeffclass_id,video_name\r\n" + "".join(f"{label},{path[:-4]}\r\n" for path, _, label in rows),
        "multi.txt": "".join(f"{path} {label} {(label + 1) % 3}\n" for path, _, label in rows[::2]),
        "multi.csv": "path,label\n" + "".join(f"{path},{name};wave\n" for path, name, _ in rows[:10]),
        "several.csv": "file,label\n" + "".join(f"{path[8:]},{name};wave\n" for path, name, _ in rows[:10]),
        "unknown.yaml": "model: {nothing: 1}\n",
    }
    shutil.copytree(folder / "frames", folder / "more")
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def make_datasets(folder: Path) -> None:
    """Make a few videos and the annotations of three datasets, with names in other case, missing and surplus files."""
    ids = ["aaaaaaaaaaa", "bbbbbbbbbbb", "ccccccccccc"]
    videos = [
        *("ucf101/videos/YoYo/v_YoYo_g01_c01.mp4", "ucf101/videos/yoyo/v_yoyo_g02_c01.mp4"),
        *("ucf101/videos/Archery/V_Archery_g01_c01.mp4", "ucf101/videos/Archery/v_Archery_g09_c01.mp4"),
        *("kinetics400/train/abseiling/aaaaaaaaaaa_000001_000011.mp4", "kinetics400/val/bbbbbbbbbbb.mp4"),
        *("sthv2/videos/1.webm", "sthv2/videos/2.webm", "sthv2/videos/7.webm"),
    ]
    for number, name in enumerate(videos):
        render(folder / name, codec="libvpx-vp9" if name.endswith("webm") else "libx264", phase=number, frames=8)
    kinetics = "label,youtube_id,time_start,time_end,split\n"
    held, moved = "Holding [something]", "Moving [something] up"
    texts = {
        "ucf101/annotations/trainlist01.txt": "YoYo/v_YoYo_g01_c01.avi 101\nYoYo/v_YoYo_g02_c01.avi 101\n"
        "YoYo/v_YoYo_g03_c01.avi 101\n",
        "ucf101/annotations/testlist01.txt": "Archery/v_Archery_g01_c01.avi\n",
        "kinetics400/annotations/train.csv": f"{kinetics}abseiling,{ids[0]},1,11,train\nzumba,{ids[2]},5,15,train\n",
        "kinetics400/annotations/val.csv": f"{kinetics}air drumming,{ids[1]},3,13,validate\n",
        "sthv2/annotations/labels.json": json.dumps({"Holding something": "0", "Moving something up": "1"}),
        "sthv2/annotations/train.json": json.dumps([{"id": "1", "template": held}, {"id": "3", "template": moved}]),
        "sthv2/annotations/validation.json": json.dumps([{"id": "2", "template": moved}]),
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")

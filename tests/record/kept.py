"""What the record keeps of a text and of an output file: all that is a result, and words in place of what is free."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

LONGEST_TEXT = 200_000
PICTURES = {".mp4", ".gif", ".png", ".avi", ".webm", ".jpg"}
TEXTS = {".csv", ".json", ".jsonl", ".txt", ".srt", ".yaml", ".html", ".tsv", ".md", ""}
NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
DURATION = r"\d+ (?:s|min|h|d)\b(?: \d+ (?:s|min|h)\b)?"
CLOCKS = (
    r"(?:seconds|seconds_left|(?:decode|preprocess|forward|waited)_seconds|(?:model_|read_)?clips_per_second|hours"
    r"|data_share|(?:peak_)?memory_mib|disk_free_gib|free_bytes)"
)
# Pattern, word, and why it is free. All other numbers are results, `duration_seconds` and `start_seconds` among them.
FREE = [
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?([+-]\d\d:?\d\d|Z)?", "DATE", "when the run was"),
    (rf'("{CLOCKS}": ?){NUMBER}', r"\1FREE", "in JSON: times, speeds, memory, room on the disk"),
    (rf"(/{CLOCKS} = ){NUMBER}", r"\1FREE", "the same in a checkpoint"),
    (r'("limited_by": ")[a-z ]+', r"\1FREE", "reading or the model, whichever was slower in this run"),
    (rf"(?m)^[a-z -]+: \d+/\d+(, {DURATION} left)?(, .*| done in {DURATION})?\n", "", "progress: a line now and then"),
    (
        rf"{NUMBER} clips/s, \d+% waiting for data, {DURATION} left",
        "FREE",
        "speed and memory in a line of training",
    ),
    (rf"(?m)^((?:reading|model) +){NUMBER} clips/s(; limited by .*)?", r"\1FREE", "speeds of `train --dry-run`"),
    (rf"(?m)^(peak memory +){NUMBER} MiB|^(time +)about {DURATION}", r"\1\2FREE", "its memory and time"),
    (r"(?m)^warning +videos are read slower .*(\n +.*)*\n", "", "its advice where reading was slower than the model"),
    (r'("stamp": \[\d+, )\d+', r"\1FREE", "in the journal of `prepare`: when a file was written"),
    (r"(Traceback .*\n)(  .*\n)+", r"\1", "a bug's way through the code: the last line says which"),
    (r"WORK/code/dualformer_cli/[\w/]+(/cockatoo.mp4)", r"PACKAGE\1", "where the package keeps its sample clip"),
    (rf"{NUMBER} ([kMGT]i?B) (of memory|free|available)", r"FREE \1 \2", "room on the disk"),
    (rf"about {DURATION} on", "about FREE on", "the estimated time of a conversion"),
    (r"in about .+ with (\d+ process(es)?)", r"in about FREE with \1", "the estimated time of rendering"),
    (rf"(free, and about ){DURATION}", r"\1FREE", "the same with `--dry-run`"),
    (r"process \d+ on \S+", "process FREE", "who holds a run folder"),
]


def normalise(text: str, names: dict[str, str]) -> str:
    """Return the text with each key of `names` replaced by its word, and what is free by words of FREE."""
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    for pattern, word, _ in FREE:
        text = re.sub(pattern, word, text)
    return text


def pixels(path: Path) -> str:
    """Return the number of frames, their sizes and the digest of their decoded pixels."""
    import av

    digest, sizes, count = hashlib.sha256(), set(), 0
    with av.open(f"file:{path}") as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="rgb24").tobytes())
            sizes.add(f"{frame.width}x{frame.height}")
            count += 1
    return f"{count} frames {','.join(sorted(sizes))} {digest.hexdigest()}"


def leaves(value: Any, name: str = "") -> list[str]:
    """Return one line per tensor, array or plain value in nested mappings and lists: its name and what it is."""
    if isinstance(value, dict):
        return [line for key in value for line in leaves(value[key], f"{name}/{key}")]
    if isinstance(value, list | tuple):
        return [line for at, item in enumerate(value) for line in leaves(item, f"{name}/{at}")]
    if hasattr(value, "detach"):
        import torch

        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    if hasattr(value, "tobytes"):
        return [f"{name} {value.dtype} {value.shape} {hashlib.sha256(value.tobytes()).hexdigest()[:16]}"]
    return [f"{name} = {value!r}"]


def short_data(text: str) -> str:
    """Return the text with each picture in it, a data address, replaced by its digest."""
    return re.sub(
        r"data:[\w/+.-]+;base64,[\w+/=]+", lambda m: "data:" + hashlib.sha256(m[0].encode()).hexdigest()[:16], text
    )


def content(path: Path, names: dict[str, str]) -> str:
    """Return what is kept of an output file: its text, or names and digests of what it holds."""
    kind = path.suffix.lower()
    if kind in TEXTS:
        text = short_data(normalise(path.read_text(encoding="utf-8", errors="replace"), names))
        return text if len(text) <= LONGEST_TEXT else hashlib.sha256(text.encode()).hexdigest()
    if path.name == "curves.png":
        return "a picture with speeds"
    try:
        if kind in PICTURES:
            return pixels(path)
        if kind == ".npz":
            import numpy as np

            with np.load(path, allow_pickle=False) as arrays:
                return "\n".join(leaves(dict(arrays)))
        if kind in {".pt", ".pth"}:
            import torch

            saved = torch.load(path, map_location="cpu", weights_only=False)
            return normalise("\n".join(leaves(saved)), names)
    except Exception as error:
        return f"unreadable: {type(error).__name__}"
    return hashlib.sha256(path.read_bytes()).hexdigest()

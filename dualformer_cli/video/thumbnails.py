"""A video becomes one small picture, to be recognised by."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import split_part
from dualformer_cli.video.tar_members import is_there

SIDE = 240
"""Width and height that a thumbnail fits into, in pixels; as JPEG it is about 10 kB."""


def read_thumbnail(path: str) -> bytes:
    """Return the middle frame of a video, a folder of frames or a part as a JPEG, shrunk to fit into SIDE x SIDE.

    Raises:
        VideoError: if the video cannot be read.
    """
    file, part = split_part(path)
    with open_video(file) as reader:
        first, count = part.frames(reader)
        frame = reader.read([min(first + count // 2, reader.info.num_frames - 1)])[0]
    picture = Image.fromarray(frame)
    picture.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, format="JPEG", quality=80)
    return encoded.getvalue()


def read_thumbnails(
    files: Mapping[str, str], pool: WorkerPool, *, on_name: Callable[[str], None] = lambda name: None
) -> dict[str, bytes]:
    """Return thumbnails of those files that still exist and can be read; the others are left out.

    Args:
        files: what to call each file in the result, and where it is.
        pool: worker processes that open them.
        on_name: called with the name of each file that was opened.
    """
    names: Sequence[str] = [name for name, file in files.items() if is_there(split_part(file)[0])]
    outcomes = pool.imap(read_thumbnail, (files[name] for name in names))
    found: dict[str, bytes] = {}
    for name, outcome in zip(names, outcomes, strict=True):
        if outcome.error is None:
            found[name] = outcome.value
        on_name(name)
    return found

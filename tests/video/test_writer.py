"""The one writer: pictures at their times, whole files or none, the same bytes every time."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import Colorspace

from dualformer_cli.video import writer
from dualformer_cli.video.writer import QUICK_TO_READ, PictureWriter, open_mp4


def opened(target: Any, **options: Any) -> PictureWriter:
    plan = {"width": 64, "height": 48, "rate": Fraction(25), "options": QUICK_TO_READ, "matrix": Colorspace.ITU709}
    return open_mp4(target, **{**plan, **options})


def grey(level: int) -> Any:
    return np.full((48, 64, 3), level, np.uint8)


def packets_of(file: Any) -> list[tuple[Fraction, bool]]:
    """The time and the kind of each picture in a file."""
    with av.open(file) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [(packet.pts * stream.time_base, packet.is_keyframe) for packet in packets]


def test_pictures_are_shown_at_their_ticks_and_every_16th_is_a_key(tmp_path: Path) -> None:
    times = [n + (n > 20) * 50 for n in range(40)]
    with opened(tmp_path / "a.mp4", tick=Fraction(1, 1000)) as writer:
        for number, time in enumerate(times):
            writer.write_rgb(grey(6 * number), time)
    packets = packets_of(str(tmp_path / "a.mp4"))
    assert [time for time, _ in packets] == [Fraction(time, 1000) for time in times]
    assert [number for number, (_, is_key) in enumerate(packets) if is_key] == [0, 16, 32]


def test_a_file_in_memory_has_its_index_behind_and_one_on_disk_in_front(tmp_path: Path) -> None:
    memory = BytesIO()
    for target in (memory, tmp_path / "a:b.mp4"):
        with opened(target) as writer:
            writer.write_rgb(grey(90), 0)
    on_disk = (tmp_path / "a:b.mp4").read_bytes()
    assert on_disk.index(b"moov") < on_disk.index(b"mdat")
    assert memory.getvalue().index(b"moov") > memory.getvalue().index(b"mdat")


def test_one_thread_writes_the_same_bytes_every_time() -> None:
    files = []
    for _ in range(2):
        files.append(BytesIO())
        with opened(files[-1]) as writer:
            for number in range(30):
                writer.write_rgb(grey(8 * number), number)
    assert files[0].getvalue() == files[1].getvalue()


def test_the_error_of_the_body_is_the_one_that_is_raised_where_closing_fails_too() -> None:
    class Failing:
        closed = False

        def close(self) -> None:
            self.closed = True
            raise av.error.FFmpegError(28, "No space left on device")

    writer, container = opened(BytesIO()), Failing()
    writer.container = container  # type: ignore[assignment]
    error = ZeroDivisionError()
    writer.__exit__(type(error), error, None)
    assert container.closed


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {"x264-params": "cpu-independent=1", "crf": "20"}), ("mpeg4", {"crf": "20"})]
)
def test_h264_does_without_routines_whose_bytes_depend_on_the_processor(codec: str, options: dict[str, str]) -> None:
    given: list[dict[str, str]] = []

    class Container:
        def add_stream(self, codec: str, *, rate: Fraction, options: dict[str, str]) -> Any:
            given.append(options)
            return av.open(BytesIO(), "w", format="mp4").add_stream(codec, rate=rate)

    sizes: dict[str, Any] = {"width": 64, "height": 48, "rate": Fraction(25)}
    writer._add_stream(Container(), codec, "yuv420p", options={"crf": "20"}, **sizes)  # type: ignore[arg-type]
    assert given == [options]

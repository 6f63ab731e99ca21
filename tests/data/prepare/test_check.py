"""What `prepare --check` says of sound, odd and damaged videos."""

from __future__ import annotations

import av
import numpy as np
import pytest
from rendered_clips import Recipe, render

from dualformer_cli.data.prepare.check import CheckJob, check_video
from dualformer_cli.video.pyav_reader import PyAVReader

SEQUENTIAL = ["mpeg4.avi", "h264.avi", "h264.ts", "mpeg2.mpg", "h264.h264"]
RANDOM = [
    *("h264.mp4", "h264.mkv", "h264_front.mp4", "h264_open_groups.mp4", "h264_444.mp4", "h264_one_frame.mp4"),
    *("vp9.webm", "vp8.webm", "hevc.mp4", "av1.mp4", "mjpeg.mp4", "mpeg4.mp4", "mpeg2.mkv"),
]


def checked(path):
    return check_video(CheckJob(path=str(path), check=True))


@pytest.mark.parametrize("name", RANDOM + SEQUENTIAL)
def test_sound_videos_raise_no_alarm(clips, name) -> None:
    found = checked(clips.path(name))
    assert found.status == ("sequential_only" if name in SEQUENTIAL else "ok")
    assert found.notes == ()
    assert found.is_decodable
    assert found.num_frames == len(clips.frames(name))


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("rotated_90.mp4", "stored turned by 270 degrees"),
        ("h264_vfr.mkv", "variable frame rate"),
        ("edit_list.mp4", "an edit list hides frames"),
    ],
)
def test_odd_videos_are_usable_and_noted(clips, name, note) -> None:
    found = checked(clips.path(name))
    assert (found.status, found.notes) == ("ok", (note,))


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_file_cut_short_is_broken_and_says_how_much_is_left(clips, tmp_path, share) -> None:
    data = clips.path("h264_front.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(len(data) * share)])
    found = checked(tmp_path / "cut.mp4")
    assert found.status.endswith("of its 40 frames are damaged or missing")
    assert found.status.startswith("broken: only partly readable, ")
    assert not found.is_decodable
    assert check_video(CheckJob(path=str(tmp_path / "cut.mp4"), check=False)).status == "ok"  # nobody looked


def test_damage_that_decoders_paint_over_is_found(clips, tmp_path) -> None:
    data = bytearray(clips.path("h264.mp4").read_bytes())
    begin, end = data.index(b"mdat") + 2000, data.index(b"moov") - 500
    for place in np.linspace(begin, end, 8).astype(int):
        data[place : place + 20] = bytes(255 - byte for byte in data[place : place + 20])
    (tmp_path / "damaged.mp4").write_bytes(data)
    assert checked(tmp_path / "damaged.mp4").status.startswith("broken: ")


def spoil_packet(source, target, number):
    """Copy a file with the picture in one packet overwritten."""
    with av.open(str(source)) as container:
        packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][number]
    head = packet[:8]  # length and kind of the slice
    target.write_bytes(source.read_bytes().replace(packet, head + b"\xff" * (len(packet) - len(head))))
    return checked(target)


def test_damage_reaches_to_the_next_key_picture_unless_nothing_refers_to_it(clips, tmp_path) -> None:
    render(tmp_path / "in.mp4", Recipe(options={"preset": "veryfast", "g": "12", "bf": "0"}))
    found = spoil_packet(tmp_path / "in.mp4", tmp_path / "out.mp4", 13)  # of frame 13, in the group of 12 to 23
    assert found.status == "broken: only partly readable, 11 of its 40 frames are damaged or missing"
    # frame 11 comes after the key picture 12, is shown before it, and no other frame is made from it
    found = spoil_packet(clips.path("hevc_open_groups.mkv"), tmp_path / "out.mkv", 12)
    assert (found.status, found.notes) == ("ok", ("1 of its 40 frames are damaged or missing",))


def test_the_stuffing_of_a_constant_bit_rate_is_no_damage(tmp_path) -> None:
    rate = dict.fromkeys(("b", "minrate", "maxrate"), "2000000")
    with av.open(str(tmp_path / "stuffed.mpg"), "w") as container:
        stream = container.add_stream("mpeg2video", rate=25, options={**rate, "bufsize": "800000", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for _ in range(40):
            grey = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 90, np.uint8), "rgb24")
            container.mux(stream.encode(grey))
        container.mux(stream.encode(None))
    assert (tmp_path / "stuffed.mpg").stat().st_size > 300_000  # a grey video needs a hundredth of that
    found = checked(tmp_path / "stuffed.mpg")
    assert (found.status, found.notes) == ("sequential_only", ())


def test_a_reader_that_seeks_to_the_wrong_frame_is_found(clips, monkeypatch: pytest.MonkeyPatch) -> None:
    right = PyAVReader.read

    def off_by_one(self, indices, transform=None):
        return right(self, [max(0, index - 1) for index in indices], transform)

    monkeypatch.setattr(PyAVReader, "read", off_by_one)
    found = checked(clips.path("h264.mp4"))
    assert found.status.startswith("broken: seeking to frame ")
    assert found.is_decodable


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty (0 bytes)"), (b"<html>", "a web page, not a video; download it again")],
)
def test_what_is_no_video_is_broken_with_its_reason(tmp_path, content, reason) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    found = checked(tmp_path / "a.mp4")
    assert (found.status, found.is_decodable, found.num_frames) == (f"broken: {reason}", False, None)


def test_an_unreadable_image_among_frames_is_found(clips, tmp_path) -> None:
    import PIL.Image

    for number in range(5):
        PIL.Image.fromarray(clips.draw(number)).save(tmp_path / f"img_{number}.png")
    assert checked(tmp_path).status == "ok"
    (tmp_path / "img_2.png").write_bytes(b"no image")
    assert checked(tmp_path).status == "broken: 'img_2.png' is not a readable image"

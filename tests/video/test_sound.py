"""The sound of a video goes into its copy: the same packets where they may, at the same times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from dualformer_cli.outputs.annotated_video import VideoWriter
from dualformer_cli.video.sound import SoundCopy

RATE = 48000


def a_video(path: Path, codec: str | None, *, video_starts: float = 0.0, seconds: float = 2.0) -> Path:
    """Write grey frames at 10 a second, and a tone whose pitch rises."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=10)
        pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
        sound = None if codec is None else container.add_stream(codec, rate=RATE, layout="mono")
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number + round(10 * video_starts), Fraction(1, 10)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        if sound is not None:
            moments = np.arange(round((seconds + video_starts) * RATE)) / RATE
            tone = (8000 * np.sin(2000 * moments * (1 + moments))).astype(np.int16)
            samples = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts, samples.time_base = RATE, 0, Fraction(1, RATE)
            container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def copied(source: Path, target: Path, *, seconds: float = 2.0) -> str | None:
    """Write other frames with the sound of a video, and return what is said of it."""
    with VideoWriter(target, fps=10, sound_of=str(source)) as writer:
        for number in range(round(seconds * 10)):
            writer.write(np.full((48, 64, 3), 5 * number, np.uint8))
    return writer.sound_problem


def sound_in(path: Path) -> tuple[str | None, list[tuple[float, bytes]]]:
    """Return the codec, and time and content of each packet."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, []
        stream = container.streams.audio[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return stream.codec_context.codec.canonical_name, [(float(p.pts * p.time_base), bytes(p)) for p in packets]


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "ac3"), ("mkv", "flac"), ("ts", "mp2")])
def test_every_packet_is_there_at_its_time(suffix: str, codec: str, tmp_path: Path) -> None:
    source = a_video(tmp_path / f"in.{suffix}", codec)
    assert copied(source, tmp_path / "out.mp4") is None
    (name, before), (copy_name, after) = sound_in(source), sound_in(tmp_path / "out.mp4")
    if codec == "mp2":  # which players do not find in an MP4
        assert copy_name == "aac"
        assert after[-1][0] == pytest.approx(before[-1][0] - before[0][0], abs=0.1)
        return
    assert copy_name == name == codec
    assert [packet for _, packet in after] == [packet for _, packet in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.002)


def test_sound_keeps_in_time_with_pictures_that_start_later(tmp_path: Path) -> None:
    source = a_video(tmp_path / "in.mkv", "aac", video_starts=0.7)
    assert copied(source, tmp_path / "out.mp4") is None
    (_, before), (_, after) = sound_in(source), sound_in(tmp_path / "out.mp4")
    kept = [(time - 0.7, packet) for time, packet in before if time - 0.7 + 1024 / RATE >= 0]
    assert [packet for _, packet in after] == [packet for _, packet in kept]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in kept], abs=0.003)


@pytest.mark.parametrize("default", [0, 1])
def test_of_several_sounds_the_default_one_is_taken(default: int, tmp_path: Path) -> None:
    source = tmp_path / "in.mkv"
    with av.open(str(a_video(tmp_path / "tone.mkv", "aac"))) as tone, av.open(str(source), "w") as container:
        pictures = container.add_stream_from_template(tone.streams.video[0])
        sounds = [container.add_stream_from_template(tone.streams.audio[0]) for _ in range(2)]
        for number, sound in enumerate(sounds):
            sound.disposition = av.stream.Disposition.default.value if number == default else 0
        packets = [packet for packet in tone.demux() if packet.size]
        for number, packet in enumerate(packets):
            is_picture = packet.stream.type == "video"
            packet.stream = pictures if is_picture else sounds[number % 2]  # so that each has packets of its own
            container.mux(packet)
    assert copied(source, tmp_path / "out.mp4") is None
    with av.open(str(source)) as container:
        wanted = [bytes(packet) for packet in container.demux(container.streams.audio[default]) if packet.size]
    assert [packet for _, packet in sound_in(tmp_path / "out.mp4")[1]] == wanted


@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_s24le"])
def test_sound_that_is_strange_to_an_mp4_becomes_aac_and_sounds_the_same(codec: str, tmp_path: Path) -> None:
    source = a_video(tmp_path / "in.mkv", codec)
    assert copied(source, tmp_path / "out.mp4") is None
    assert sound_in(tmp_path / "out.mp4")[0] == "aac"
    heard = []
    for path in (source, tmp_path / "out.mp4"):
        with av.open(str(path)) as container:
            resampler = av.AudioResampler("fltp", "mono", RATE)
            frames = [own for frame in container.decode(audio=0) for own in resampler.resample(frame)]
            heard.append(np.concatenate([frame.to_ndarray()[0] for frame in frames]))
    length = min(map(len, heard)) - 4096
    shifts = [np.corrcoef(heard[0][:length], heard[1][shift : shift + length])[0, 1] for shift in (0, 1024, 2048)]
    assert max(shifts) > 0.9


def test_a_video_without_sound_has_none_and_nothing_is_said(tmp_path: Path) -> None:
    source = a_video(tmp_path / "in.mp4", None)
    assert copied(source, tmp_path / "out.mp4") is None
    assert sound_in(tmp_path / "out.mp4") == (None, [])


def test_sound_that_breaks_off_costs_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = a_video(tmp_path / "in.mp4", "aac")
    write = SoundCopy._write

    def fail_at_one_second(self: SoundCopy, packet: av.Packet) -> None:
        if self._seconds >= 1:
            raise av.error.InvalidDataError(1094995529, "Invalid data found", "in.mp4")
        write(self, packet)

    monkeypatch.setattr(SoundCopy, "_write", fail_at_one_second)
    assert copied(source, tmp_path / "out.mp4") == "it ends at 1.0 s: invalid data found"
    assert 0.9 < sound_in(tmp_path / "out.mp4")[1][-1][0] < 1.1
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20


def test_sound_of_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    problem = copied(tmp_path / "gone.mp4", tmp_path / "out.mp4")
    assert problem is not None
    assert "no such file" in problem.lower()

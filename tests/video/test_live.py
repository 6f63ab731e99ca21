"""Live inputs, from real local senders: what clips come out, what is skipped, and how a broken stream ends."""

from __future__ import annotations

import io
import itertools
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import av
import numpy as np
import PIL.Image
import pytest

from dualformer_cli.errors import VideoError
from dualformer_cli.video import live
from dualformer_cli.video.addresses import is_live, mask_credentials
from dualformer_cli.video.live import LiveSource

FPS = 50
WIDTH, HEIGHT = 64, 48


class Bytes(bytearray):
    """A file that PyAV can write to."""

    write = bytearray.extend


def draw(output, num_frames, after_each):
    """Fill an open container with frames that `index_of` can tell apart."""
    track = output.add_stream("mpeg2video", rate=FPS)
    track.width, track.height, track.pix_fmt, track.gop_size = WIDTH, HEIGHT, "yuv420p", 5
    for index in range(num_frames):
        image = np.full((HEIGHT, WIDTH, 3), 40 + 4 * (index % 45), np.uint8)
        output.mux(track.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        after_each()
    output.mux(track.encode())


def encode(num_frames):
    """Return an MPEG transport stream in pieces, of which each is to be sent when its frame is due."""
    written, pieces = Bytes(), []

    def cut():
        pieces.append(bytes(written))
        written.clear()

    with av.open(written, "w", format="mpegts", options={"flush_packets": "1"}) as output:
        draw(output, num_frames, cut)
    cut()
    return pieces


def index_of(image):
    """Return which frame an image is, modulo 45, from its brightness."""
    return round((float(image.mean()) - 40) / 4) % 45


@contextmanager
def listening(serve):
    """Yield the port of a server that hands its first connection to serve(connection)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        finished = threading.Event()

        def accept():
            with server.accept()[0] as connection, suppress(OSError):  # the receiver has seen enough
                serve(connection, finished)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        finished.set()
        thread.join(5)


@contextmanager
def sender(pieces, *, stall=False):
    """Yield the address of a sender that plays a video in real time, then hangs up or falls silent."""

    def play(connection, finished):
        started = time.monotonic()
        for index, piece in enumerate(pieces):
            finished.wait(max(0.0, started + index / FPS - time.monotonic()))
            connection.sendall(piece)
        if stall:
            finished.wait(20)

    with listening(play) as port:
        yield f"tcp://127.0.0.1:{port}"


def test_cameras_and_addresses_are_live_and_files_are_not():
    addresses = ["rtsp://a/b", "RTSP://a", "rtsps://a", "rtmp://a", "udp://@:1234", "tcp://a:1?listen=1", "srt://a:1"]
    for name in [*addresses, "http://a/b.m3u8", "https://a/b", "camera:0", "camera:12", "/dev/video0"]:
        assert is_live(name), name
    for name in [
        "a.mp4",
        "rtsp.mp4",
        "camera",
        "camera:",
        "camera:x",
        "/dev/video",
        "dir/camera:0",
        "file:///a",
        "-",
        "",
    ]:
        assert not is_live(name), name


def test_a_file_is_not_a_live_source():
    with pytest.raises(ValueError, match=r"'a\.mp4' is not a live input"):
        LiveSource("a.mp4")


def test_credentials_are_masked():
    for name, shown in {
        "rtsp://user:secret@cam:554/live": "rtsp://***@cam:554/live",
        "rtsp://user:se@cr/et@cam/live": "rtsp://***@cam/live",
        "rtsp://cam/live?user=me&password=secret": "rtsp://cam/live?***",
        "https://cdn/a.m3u8?Token=secret": "https://cdn/a.m3u8?***",
        "tcp://0.0.0.0:5000?listen=1": "tcp://0.0.0.0:5000?listen=1",
        "s3://KEY:se/cr@et@bucket/clip.mp4": "s3://***@bucket/clip.mp4",
        "ftp://me@host/clip.mp4": "ftp://***@host/clip.mp4",
        "s3://bucket/a@b:c.mp4": "s3://bucket/a@b:c.mp4",
        "hf://datasets/me/clips@main/a.mp4": "hf://datasets/me/clips@main/a.mp4",
        "gs://bucket/clip.mp4?Signature=secret": "gs://bucket/clip.mp4?***",
        "camera:0": "camera:0",
        "/dev/video1": "/dev/video1",
    }.items():
        assert mask_credentials(name) == shown


def test_clips_are_the_latest_frames_at_their_interval():
    with sender(encode(45)) as address, LiveSource(address) as source:
        assert (source.name, source.width, source.height, source.fps) == (address, WIDTH, HEIGHT, FPS)
        clips = list(source.clips(num_frames=4, frame_interval=3, every_seconds=0.3))
        assert source.num_frames == 45
    assert len(clips) in (2, 3)
    assert clips[0][0] == 0.0
    for start, end, clip in clips:
        assert (clip.shape, clip.dtype) == ((4, HEIGHT, WIDTH, 3), np.uint8)
        first = round(start * FPS)
        assert [index_of(image) for image in clip] == [first, first + 3, first + 6, first + 9]
        assert end - start == pytest.approx(9 / FPS)
    for (_, before, _), (_, after, _) in itertools.pairwise(clips):
        assert after - before >= 0.3 - 1e-6


def test_a_slow_caller_skips_frames_and_gets_the_latest():
    with sender(encode(90)) as address, LiveSource(address) as source:
        ends = []
        for _, end, clip in source.clips(num_frames=4, frame_interval=1, every_seconds=0):
            lag = source.num_frames - 1 - round(end * FPS)
            assert lag <= 25
            assert index_of(clip[-1]) == round(end * FPS) % 45
            ends.append(end)
            time.sleep(0.3)
    assert 3 <= len(ends) <= 8
    assert ends == sorted(ends)


def test_the_transform_sees_each_kept_frame_once():
    seen = []

    def shrink(image):
        seen.append(index_of(image))
        return image[:4, :6]

    with sender(encode(40)) as address, LiveSource(address) as source:
        clips = list(source.clips(5, 4, 0.1, shrink))
    assert {clip.shape for _, _, clip in clips} == {(5, 4, 6, 3)}
    assert seen == [*range(17), *range(20, 40, 4)]  # all of the first span, in case that the stream ends within it


def test_a_stream_shorter_than_a_clip_yields_one_that_wraps_around():
    with sender(encode(7)) as address, LiveSource(address) as source:
        ((start, end, clip),) = source.clips(num_frames=6, frame_interval=2, every_seconds=1)
    assert (start, end) == (0.0, pytest.approx(6 / FPS))
    assert [index_of(image) for image in clip] == [0, 2, 4, 6, 1, 3]


def test_a_stream_that_stalls_is_told_after_what_it_gave():
    with sender(encode(20), stall=True) as address, LiveSource(address, read_timeout_seconds=0.5) as source:
        clips = source.clips(4, 1, 0.1)
        assert next(clips)[2].shape == (4, HEIGHT, WIDTH, 3)
        with pytest.raises(VideoError, match=rf"^'{address}': the stream stopped: no data for 0\.5 s$"):
            list(clips)


def test_a_stream_that_breaks_off_is_told():
    def reset(connection, finished):
        connection.sendall(b"".join(encode(20)))
        finished.wait(0.5)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with listening(reset) as port, LiveSource(f"tcp://127.0.0.1:{port}") as source:
        clips = source.clips(4, 1, 100)
        next(clips)
        with pytest.raises(VideoError, match=r": the stream broke off: Connection reset by peer$"):
            next(clips)


def test_a_sender_that_says_nothing_gives_no_answer():
    with sender([], stall=True) as address, pytest.raises(VideoError, match=r": no answer for 0\.4 s$"):
        LiveSource(address, open_timeout_seconds=0.4)


def test_what_is_not_a_video_is_told():
    text = [b"this is no video " * 1000]
    with sender(text) as address, pytest.raises(VideoError, match=r": holds no video that can be read$"):
        LiveSource(address)


def test_a_refused_connection_is_told_without_the_password():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(VideoError) as caught:
        LiveSource(f"rtsp://me:secret@127.0.0.1:{port}/live")
    assert caught.value.path == f"rtsp://***@127.0.0.1:{port}/live"
    assert caught.value.reason == "connection refused; is the address right and the sender running?"


def test_a_camera_that_is_not_there_is_told():
    for name in ("camera:63", "/dev/video63"):
        with pytest.raises(VideoError, match=rf"^'{name}': no such camera; present: "):
            LiveSource(name)


def test_an_error_of_the_transform_reaches_the_caller():
    def broken(_):
        raise ZeroDivisionError("a bug")

    with sender(encode(10)) as address, LiveSource(address) as source, pytest.raises(ZeroDivisionError, match="a bug"):
        list(source.clips(4, 1, 0, broken))


def test_close_ends_a_playing_stream_and_its_clips():
    with sender(encode(100)) as address:
        source = LiveSource(address)
        clips = source.clips(4, 1, 0)
        next(clips)
        source.close()
        source.close()
        assert not source._thread.is_alive()
        assert len(list(clips)) <= 1


def test_close_does_not_wait_for_a_silent_sender(monkeypatch):
    monkeypatch.setattr(live, "_CLOSE_SECONDS", 0.1)
    with sender(encode(10), stall=True) as address:
        source = LiveSource(address, read_timeout_seconds=1.5)
        next(source.clips(2, 1, 0))
        started = time.monotonic()
        source.close()
        assert time.monotonic() - started < 1.4
        source._thread.join(10)
        assert not source._thread.is_alive()


def test_a_source_whose_clips_nobody_takes_closes():
    with sender(encode(10), stall=True) as address, LiveSource(address) as source:
        pass
    assert not source._thread.is_alive()


def test_clips_are_taken_once_and_only_of_sensible_sizes():
    with sender(encode(10), stall=True) as address, LiveSource(address) as source:
        with pytest.raises(ValueError, match=r"no clips of 0 frames, one every 1, every 1 s"):
            source.clips(0, 1, 1)
        source.clips(2, 1, 1)
        with pytest.raises(ValueError, match="the clips of a live source can be taken once"):
            source.clips(2, 1, 1)


def test_a_recording_behind_an_http_address_waits_for_a_slow_caller():
    written = io.BytesIO()
    with av.open(written, "w", format="matroska") as output:
        draw(output, 200, lambda: None)
    recording = written.getvalue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(recording)))
            self.end_headers()
            self.wfile.write(recording)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with LiveSource(f"http://127.0.0.1:{server.server_port}/clip.mkv") as source:
            ends = []
            for _, end, _ in source.clips(5, 2, 1):
                ends.append(end)
                time.sleep(0.05)
        server.shutdown()
    assert ends == pytest.approx([0.16, 1.16, 2.16, 3.16], abs=0.005)


def rtsp_server(connection, finished, *, pieces, password):
    """Answer one RTSP client as a camera does: the video as MPEG-TS in RTP, inside the same TCP connection."""
    requests = connection.makefile("rb")
    describe = b"v=0\r\ns=cam\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track1\r\n"
    headers, wanted = b"", b"Authorization: Basic " + password
    while not headers.startswith(b"PLAY"):
        headers = b"".join(itertools.takewhile(lambda line: line.strip(), requests))
        if not headers:
            return
        number = next(line for line in headers.splitlines() if line.lower().startswith(b"cseq"))
        status, extra, body = b"200 OK", b"Session: 1\r\n", b""
        if headers.startswith(b"DESCRIBE"):
            body = describe
            if wanted not in headers:
                status, extra, body = b"401 Unauthorized", b'WWW-Authenticate: Basic realm="cam"\r\n', b""
        elif headers.startswith(b"SETUP"):
            extra += b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        if body:
            extra += b"Content-Type: application/sdp\r\nContent-Length: %d\r\n" % len(body)
        connection.sendall(b"RTSP/1.0 %s\r\n%s\r\n%s\r\n" % (status, number, extra) + body)
    transport = b"".join(pieces)
    for index, start in enumerate(range(0, len(transport), 7 * 188)):
        payload = transport[start : start + 7 * 188]
        packet = struct.pack(">BBHII", 0x80, 33, index, index * 1800, 1) + payload
        connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
        finished.wait(0.005)


def test_an_rtsp_camera_with_a_password_is_read():
    def serve(connection, finished):
        rtsp_server(connection, finished, pieces=encode(40), password=b"bWU6c2VjcmV0")  # me:secret

    with listening(serve) as port, LiveSource(f"rtsp://me:secret@127.0.0.1:{port}/live") as source:
        assert source.name == f"rtsp://***@127.0.0.1:{port}/live"
        clips = list(source.clips(4, 2, 0.2))
    assert len(clips) >= 2
    for _, _, clip in clips:
        first = index_of(clip[0])
        assert [index_of(image) for image in clip] == [first, first + 2, first + 4, first + 6]


def test_a_wrong_password_is_told_without_it():
    def serve(connection, finished):
        rtsp_server(connection, finished, pieces=[], password=b"bWU6c2VjcmV0")

    with listening(serve) as port, pytest.raises(VideoError) as caught:
        LiveSource(f"rtsp://me:wrong@127.0.0.1:{port}/live")
    assert str(caught.value) == (
        f"'rtsp://***@127.0.0.1:{port}/live': the user name or password is missing or wrong (401)"
    )


def test_times_survive_a_sender_that_sets_its_clock():
    clock = live._Clock()
    told_and_arrived = [(5000.0, 100.0), (5000.04, 100.1), (12.0, 100.2), (None, 100.5), (12.5, 100.6)]
    seconds = [clock.advance(told, arrival) for told, arrival in told_and_arrived]
    assert seconds == pytest.approx([0.0, 0.04, 0.14, 0.44, 0.54])


def test_a_cover_picture_is_not_the_video_of_a_live_input(web, tmp_path):
    cover = io.BytesIO()
    PIL.Image.new("RGB", (256, 256)).save(cover, "JPEG")
    path = tmp_path / "covered.mkv"
    with av.open(str(path), "w") as container:
        film = container.add_stream("libx264", rate=25)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        container.add_attachment("cover.jpg", "image/jpeg", cover.getvalue())
        for _ in range(10):
            container.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), "rgb24")))
        container.mux(film.encode(None))
    web.files = {"/covered.mkv": path.read_bytes()}
    with LiveSource(f"{web.address}/covered.mkv") as source:
        assert (source.width, source.height) == (64, 48)


def test_a_colour_matrix_that_ffmpeg_does_not_know_is_replaced_as_in_files():
    written = Bytes()
    with av.open(written, "w", format="mpegts") as output:
        track = output.add_stream("libx264", rate=FPS, options={"x264-params": "colormatrix=chroma-derived-nc"})
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(10):
            image = np.full((HEIGHT, WIDTH, 3), (50, 80, 200), np.uint8)
            output.mux(track.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        output.mux(track.encode())
    with sender([bytes(written)]) as address, LiveSource(address) as source:
        _, _, clip = next(source.clips(2, 1, 0))
    assert np.abs(clip[0].astype(int) - (50, 80, 200)).max() < 6


def test_a_stream_that_says_it_is_turned_comes_upright(tmp_path):
    written = Bytes()
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, WIDTH // 2 :] = 200
    with av.open(str(tmp_path / "in.mp4"), "w") as output:
        track = output.add_stream("libx264", rate=FPS)
        track.width, track.height, track.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for _ in range(10):
            output.mux(track.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        output.mux(track.encode())
    with av.open(str(tmp_path / "in.mp4")) as whole, av.open(written, "w", format="mpegts") as output:
        track = output.add_stream_from_template(whole.streams.video[0])
        option = "h264_metadata=display_orientation=insert:rotate=90"
        told = av.bitstream.BitStreamFilterContext(option, whole.streams.video[0], track)
        for packet in whole.demux(video=0):
            for changed in told.filter(packet):
                changed.stream = track
                output.mux(changed)
    with sender([bytes(written)]) as address, LiveSource(address) as source:
        _, _, clip = next(source.clips(2, 1, 0))
    assert clip.shape == (2, WIDTH, HEIGHT, 3)
    assert clip[:, : WIDTH // 4].mean() > 150  # counter-clockwise, what was on the right is above
    assert clip[:, -WIDTH // 4 :].mean() < 50

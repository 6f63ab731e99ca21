"""Files are opened and closed without waiting for ever."""

from __future__ import annotations

import subprocess
import sys

CLOSE_DAMAGED = """
import io
import numpy as np
from dualformer_cli.video.containers import load_av

av = load_av()
written = io.BytesIO()
with av.open(written, "w", format="mpegts") as output:
    stream = output.add_stream("libx264", rate=25)
    stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
    noise = np.random.default_rng(0)
    for _ in range(40):
        frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (360, 640, 3), dtype=np.uint8), "rgb24")
        output.mux(stream.encode(frame))
    output.mux(stream.encode())
damaged = bytearray(written.getvalue())
for index in range(20_000, len(damaged), 1000):
    damaged[index] ^= 0x5A
for number in range(60):
    container = av.open(io.BytesIO(damaged))
    stream = container.streams.video[0]
    stream.thread_type, stream.thread_count = "FRAME", 4
    for count, packet in enumerate(container.demux(stream)):
        try:
            stream.decode(packet)
        except av.error.FFmpegError:
            pass
        if count > number % 12:
            break
    del stream, packet, container
print("closed")
"""


def test_a_damaged_file_can_be_closed_while_decoder_threads_complain_of_it() -> None:
    """PyAV's levels of logging made these threads wait for the one that closes, and that one for them."""
    done = subprocess.run([sys.executable, "-c", CLOSE_DAMAGED], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout == "closed\n"

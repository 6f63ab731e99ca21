"""What every decoder promises: frames of one video by number, the same as in a decode from start to end.

Frame i is the i-th frame of a decode from the file's first byte to its last, in the order of display; frames that an
edit list hides do not count. A reader must be made in the process that uses it, and by one thread at a time.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.errors import VideoError
from dualformer_cli.video.orientation import UPRIGHT, Orientation

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

Frame = npt.NDArray[np.uint8]
"""One RGB frame, shape (height, width, 3)."""
Transform = Callable[[Frame], npt.NDArray[Any]]

MAX_FRAMES = 10_000_000
"""Frames of one file; a header may claim any number. 92 hours at 30 frames per second."""
MAX_PIXELS = 100_000_000
"""Pixels of one frame: three times 8K."""
MAX_RESULT_BYTES = 4 * 2**30
"""Bytes that one `read` may return."""

MAX_BAD_SHARE = 0.1
"""Of the frames of a video, how many may fail before it is refused, and called broken."""

USUAL_FPS = 25.0
"""Of a video that does not say how many frames it shows in a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a video is, as its reader will deliver it. Container tags, which may say where it was shot, are not read."""

    path: str
    num_frames: int
    fps: float | None
    """Mean frames per second; None when nothing says."""
    width: int
    height: int
    """Size in pixels, after rotation."""
    duration_seconds: float | None
    """From the start of the first frame to the end of the last."""
    codec: str
    decoder: str
    """What decodes it: pyav, decord, torchcodec, torchcodec-cuda or frames."""
    rotation: int
    """Degrees counter-clockwise by which stored frames are turned; already applied."""
    is_mirrored: bool = False
    """Whether stored frames are mirrored, left and right, before they are turned; already applied."""
    is_seekable: bool
    """Whether a frame can be reached without decoding all before it."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileIndex:
    """What a PyAVReader found out by reading a whole file, for the next reader of the same file.

    It is small, 200 to 300 bytes for 10 s of video, and travels between processes.
    """

    packed: bytes
    """Never from outside: it is a pickle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictDecode:
    """What a decode from start to end finds that forgives nothing."""

    frames: dict[int, Frame]
    """The frames that were asked for, by number; without those that could not be decoded."""
    num_expected: int
    """Frames there should be; more than the video has when it was cut short."""
    num_damaged: int
    """Those that are missing, or decoded from damaged data or from damaged frames."""
    has_edit_list: bool
    """Whether frames are hidden by an edit list."""
    stated_seconds: float | None
    """Duration that the container's header states, sound included."""


class VideoReader(ABC):
    """Frames of one video by number. Opened by `open_video`; close it, or use it in a `with`.

    What a reader can do beyond that, it says itself: `info.is_seekable`, `index`, `decode_strictly`, and `pictures`
    with their `orientation`.
    """

    info: VideoInfo
    times_seconds: npt.NDArray[np.float64] | None
    """When each frame is shown, in seconds after the first, shape (num_frames,); None when unknown."""
    warnings: list[str]
    """What was odd so far, each thing once."""
    index: FileIndex | None = None
    """What another reader of the same file need not find out again; None where nothing was costly."""
    held: ExitStack | None = None
    """A copy that is closed with the reader."""
    orientation: Orientation = UPRIGHT
    """By which `pictures` have to be turned upright; what `read` and `frames` return is."""

    @abstractmethod
    def decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Yield (number, frame) for each wanted number; `wanted` is ascending without repeats.

        May start over when what was yielded turns out to be doubtful; the later frame of a number counts.
        """

    def read(self, indices: Sequence[int], transform: Transform | None = None) -> npt.NDArray[Any]:
        """Decode the frames with these numbers.

        Args:
            indices: frame numbers in any order; repeats are allowed.
            transform: applied to each frame as soon as it is decoded, so that full-size frames never pile up. Its
                results must have one shape. When damage is met half-way, a frame may be transformed a second time.

        Returns:
            The frames in the order asked, shape (len(indices), height, width, 3), or as `transform` makes them.

        Raises:
            VideoError: if they cannot be decoded, or the result is larger than MAX_RESULT_BYTES.
            ValueError: if no frame is asked for, or one that does not exist.
        """
        slots = self._slots(indices)
        stack: npt.NDArray[Any] | None = None
        for index, frame in self.decode(sorted(slots)):
            image = frame if transform is None else transform(frame)
            if stack is None:
                stack = self._empty_stack(len(indices), image)
            elif image.shape != stack.shape[1:]:
                raise ValueError(f"transform made shape {image.shape} of frame {index}, {stack.shape[1:]} of others")
            for slot in slots[index]:
                stack[slot] = image
        assert stack is not None
        return stack

    def frames(self) -> Iterator[Frame]:
        """Yield all frames in order, one at a time."""
        position = 0
        for index, frame in self.decode(range(self.info.num_frames)):
            if index == position:
                yield np.ascontiguousarray(frame)
                position += 1

    def pictures(self) -> Iterator[VideoFrame]:
        """Yield all frames in order as they are stored: in their own pixel format, and not turned by `orientation`.

        A reader that has nothing but RGB yields that.
        """
        import av  # here: reading frames does not need PyAV everywhere

        for frame in self.frames():
            yield av.VideoFrame.from_ndarray(frame, "rgb24")

    def decode_strictly(self, wanted: Container[int]) -> StrictDecode | None:
        """Decode all frames, taking all for damaged that decoders usually paint over.

        Args:
            wanted: numbers of the frames to return.

        Returns:
            What was found; None from a reader that paints nothing over, whose errors say all.

        Raises:
            VideoError: if a frame cannot be decoded at all.
        """
        for _ in self.frames():
            pass
        return None

    def close(self) -> None:  # noqa: B027 (some hold nothing open)
        """Let go of the file."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if self.held is not None:
            self.held.close()

    def _slots(self, indices: Sequence[int]) -> dict[int, list[int]]:
        """Map each frame number to the places of the result that show it."""
        slots: dict[int, list[int]] = {}
        for slot, index in enumerate(indices):
            slots.setdefault(operator.index(index), []).append(slot)
        if not slots:
            raise ValueError("no frame numbers given")
        for index in (min(slots), max(slots)):
            if not 0 <= index < self.info.num_frames:
                raise ValueError(f"frame {index} is not one of the {self.info.num_frames} frames of {self.info.path!r}")
        return slots

    def _empty_stack(self, num_images: int, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = f"{num_images} frames of shape {image.shape} are {num_images * image.nbytes:,} bytes"
        advice = "ask for fewer frames or resize them"
        if num_images * image.nbytes > MAX_RESULT_BYTES:
            raise VideoError(self.info.path, f"{size}, more than the {MAX_RESULT_BYTES:,} of one read; {advice}")
        try:
            return np.empty((num_images, *image.shape), image.dtype)
        except MemoryError:
            raise VideoError(self.info.path, f"{size}, more memory than there is; {advice}") from None

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def check_pixels(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(path, f"frames of {width}x{height} pixels are more than the {MAX_PIXELS:,} allowed")

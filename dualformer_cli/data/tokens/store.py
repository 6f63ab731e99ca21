"""Token labels on the disk: which clips and tiles of a video they belong to, their files, and finding them again.

A teacher takes square clips, a training clip may show any part of a video. So labels are stored for clips that
together cover the video, evenly spaced from its first frame to its last, and in each for square tiles that together
cover the frame, evenly spaced along its long side. A training clip takes the label of each of its tokens from the
clip and the tile in which that place is, bilinear between the tokens there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.schema import Decoder
from dualformer_cli.data.clips import sampling
from dualformer_cli.data.clips.augment import Fractions
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.transforms import Box, Frames, resize_frame, resized_size
from dualformer_cli.data.clips.views import check_video, part_length
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system.files import atomic_path, sha256_of
from dualformer_cli.video.open import open_video
from dualformer_cli.video.reader import VideoInfo

FORMAT = 1
HEADER = "header.json"
SUMMARY = "summary.json"
CLIPS_PER_READ = 8
"""Clips of a video that are in memory at a time: 8 clips of 32 frames in two tiles of 224x224 are 77 MB."""

Size3 = tuple[int, int, int]

_ADVICE = "run tokenlabel write again, which makes what is missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """How each video is cut into the clips and tiles that a teacher labels."""

    num_frames: int
    frame_interval: int
    sampling: Literal["interval", "segments"]
    crop_size: int
    """Side of a tile, to which the short side of the frame is resized."""
    antialias: bool
    min_frames: int
    decoder: Decoder
    frame_rate: float | None
    frame_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The clips and tiles of one video."""

    info: VideoInfo
    starts: tuple[int, ...]
    """First frame of each clip, in the video."""
    num_frames: int
    """Frames of the part that counts."""
    tiles: tuple[Box, ...]
    """In the frame resized to the tiles' side."""
    size: tuple[int, int]
    """(height, width) of that frame."""

    @property
    def shares(self) -> Fractions:
        """The tiles as shares of the frame, (x, y, width, height), shape (tiles, 4)."""
        height, width = self.size
        return np.array(self.tiles) / (width, height, width, height)


@dataclass(frozen=True, slots=True)
class LabelJob:
    """Some clips of one video, for `read_label_clips`."""

    index: int
    """The video's place in its list."""
    path: str
    start: int
    num_frames: int | None
    first: int = 0
    """The first clip to read."""


def clip_starts(video_frames: int, *, num_frames: int, frame_interval: int) -> Indices:
    """Spread the fewest clips that cover a video evenly over it; one that is shorter than a clip has one, at 0.

    A clip takes num_frames * frame_interval frames, as for `sampling.random_clip`.
    """
    length = num_frames * frame_interval
    room, count = max(0, video_frames - length), max(1, -(-video_frames // length))
    starts: Indices = np.rint(np.linspace(0, room, count)).astype(np.int64)
    return starts


def tiles_of(height: int, width: int, side: int) -> tuple[Box, ...]:
    """Spread the fewest squares that cover a frame evenly along its long side; its short side is `side`."""
    long = max(height, width)
    offsets = np.rint(np.linspace(0, long - side, -(-long // side))).astype(int).tolist()
    return tuple(Box(x, 0, side, side) if width >= height else Box(0, x, side, side) for x in offsets)


def read_layout(plan: LabelPlan, job: LabelJob) -> Layout:
    """Find out the clips and tiles of a video without decoding it.

    Raises:
        VideoError: if the video cannot be used.
    """
    with open_video(job.path, decoder=plan.decoder, frame_rate=plan.frame_rate, frame_name=plan.frame_name) as reader:
        return _layout(plan, job, reader.info)


def read_label_clips(plan: LabelPlan, job: LabelJob) -> Frames:
    """Read up to CLIPS_PER_READ clips of a video, all tiles of each.

    Returns:
        uint8, shape (clips, tiles, num_frames, crop_size, crop_size, 3).

    Raises:
        VideoError: if the video cannot be read.
    """
    with open_video(job.path, decoder=plan.decoder, frame_rate=plan.frame_rate, frame_name=plan.frame_name) as reader:
        layout = _layout(plan, job, reader.info)
        indices = np.stack([_indices(plan, layout, job.start, start) for start in layout.starts])
        indices = indices[job.first : job.first + CLIPS_PER_READ]
        needed, positions = np.unique(indices, return_inverse=True)

        def cut(frame: Frames) -> Frames:
            resized = resize_frame(frame, layout.size, antialias=plan.antialias)
            return np.stack([resized[tile.window] for tile in layout.tiles])

        frames = reader.read(needed.tolist(), cut)
    clips = frames[positions.reshape(indices.shape)]  # (clips, frames, tiles, S, S, 3)
    return np.ascontiguousarray(clips.swapaxes(1, 2))


def read_whole_frame(plan: LabelPlan, job: LabelJob) -> tuple[Frames, Indices]:
    """Read the middle frame of the clip `job.first`, resized and uncut, and the numbers of the clip's frames.

    Raises:
        VideoError: if the video cannot be read.
    """
    with open_video(job.path, decoder=plan.decoder, frame_rate=plan.frame_rate, frame_name=plan.frame_name) as reader:
        layout = _layout(plan, job, reader.info)
        indices = _indices(plan, layout, job.start, layout.starts[job.first])
        middle = int(indices[len(indices) // 2])
        frames = reader.read([middle], lambda frame: resize_frame(frame, layout.size, antialias=plan.antialias))
    return frames[0], indices


def _layout(plan: LabelPlan, job: LabelJob, info: VideoInfo) -> Layout:
    available = part_length(info, job.start, job.num_frames)
    check_video(info, available, min_frames=plan.min_frames)
    size = resized_size(info.height, info.width, plan.crop_size)
    starts: Sequence[int] = [0]
    if plan.sampling == "interval":
        starts = clip_starts(available, num_frames=plan.num_frames, frame_interval=plan.frame_interval).tolist()
    return Layout(
        info=info,
        starts=tuple(job.start + start for start in starts),
        num_frames=available,
        tiles=tiles_of(*size, plan.crop_size),
        size=size,
    )


def _indices(plan: LabelPlan, layout: Layout, part_start: int, start: int) -> Indices:
    """Frame numbers of one clip; they wrap around at the end of the part that counts."""
    if plan.sampling == "segments":
        return part_start + sampling.segment_clip(layout.num_frames, num_frames=plan.num_frames)
    steps = np.arange(plan.num_frames, dtype=np.int64) * plan.frame_interval
    indices: Indices = part_start + (start - part_start + steps) % layout.num_frames
    return indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a folder of labels was made from: enough to see whether it fits a run."""

    teacher: dict[str, Any]
    """{"source", "weights_sha256", "precision"}."""
    source: str
    """The list, as it was named."""
    list_fingerprint: str
    num_videos: int
    clip: dict[str, Any]
    """num_frames, frame_interval, sampling, crop_size, antialias and min_frames of the LabelPlan."""
    grid: Size3
    """Tokens of one clip and tile along (time, height, width)."""
    top_k: int
    """Logits that are kept of each token, largest first."""
    class_names: tuple[str, ...]
    videos_per_shard: int
    versions: dict[str, str]

    @property
    def record(self) -> np.dtype[Any]:
        """How a token is stored: its best logits and their classes, 4 bytes each pair."""
        return np.dtype([("values", "<f2", (self.top_k,)), ("classes", "<u2", (self.top_k,))])

    @property
    def bytes_per_tile(self) -> int:
        """Of one clip in one tile."""
        t, h, w = self.grid
        return t * h * w * self.record.itemsize

    @property
    def num_shards(self) -> int:
        """Files that the list is cut into."""
        return -(-self.num_videos // self.videos_per_shard)

    def videos_of(self, shard: int) -> range:
        """Places in the list of a shard's videos."""
        return range(shard * self.videos_per_shard, min(self.num_videos, (shard + 1) * self.videos_per_shard))

    def difference(self, other: Header) -> str | None:
        """What differs between two folders' labels in one line; names and versions may."""
        for key in ("teacher", "list_fingerprint", "num_videos", "clip", "grid", "top_k", "class_names"):
            one, two = (getattr(header, key) for header in (self, other))
            if key == "teacher":
                one, two = ({**value, "source": ""} for value in (one, two))
            if one != two:
                shown = "" if key == "class_names" else f": {one}, now {two}"
                return f"{key.replace('_', ' ')} {'is' if shown else 'are'} another{shown}"
        if self.videos_per_shard != other.videos_per_shard:
            return f"videos per shard is another: {self.videos_per_shard}, now {other.videos_per_shard}"
        return None


@dataclass(frozen=True, slots=True)
class StoredVideo:
    """Where the labels of one video are, or why it has none."""

    index: int
    """Its place in the list."""
    path: str
    reason: str | None
    """Why it could not be labelled."""
    first_record: int = 0
    """Place in the shard's file, in clips times tiles."""
    starts: tuple[int, ...] = ()
    tiles: tuple[tuple[float, float, float, float], ...] = ()
    """Shares of the frame."""

    @property
    def num_records(self) -> int:
        """Clips times tiles."""
        return len(self.starts) * len(self.tiles)

    @classmethod
    def of(cls, index: int, path: str, first_record: int, layout: Layout) -> StoredVideo:
        """A video that is cut in this way."""
        shares = tuple((x, y, width, height) for x, y, width, height in layout.shares.round(6).tolist())
        return cls(index, path, None, first_record, layout.starts, shares)

    def row(self) -> list[Any]:
        """Its line in the index: the fields in order."""
        return [self.index, self.path, self.reason, self.first_record, self.starts, self.tiles]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> StoredVideo:
        """Read such a line."""
        index, path, reason, first_record, starts, tiles = row
        return cls(index, path, reason, first_record, tuple(starts), tuple((x, y, w, h) for x, y, w, h in tiles))


class LabelFolder:
    """A folder of token labels: header.json, and per shard its labels (.bin) and what they are of (.json).

    A shard is complete when its .json is there, which is written last. What a shard holds follows from the header and
    its number alone, so the same bytes come whoever writes it and however often it was interrupted.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def read_header(self) -> Header | None:
        """The header; None where there is none.

        Raises:
            DualFormerError: if it cannot be read or is of another version.
        """
        path = self.root / HEADER
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != FORMAT:
                raise DualFormerError(f"token labels {str(self.root)!r} are of another version; write them again")
            return Header(
                **{**document, "grid": tuple(document["grid"]), "class_names": tuple(document["class_names"])}
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DualFormerError(f"token labels {str(path)!r} cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DualFormerError(
                f"{str(path)!r} is not the header of token labels, or damaged; write them again"
            ) from None

    def write_header(self, header: Header) -> None:
        """Make the folder and its header; what an interrupted run left half written goes.

        Raises:
            DualFormerError: if the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DualFormerError(
                f"folder {str(self.root)!r} cannot be made: {error.strerror}; name another --output"
            ) from None
        for leftover in self.root.glob(".*.part.*"):
            leftover.unlink(missing_ok=True)
        self.write_json(HEADER, {"format": FORMAT, **asdict(header)})

    def write_json(self, name: str, document: object) -> None:
        """Write one of the folder's documents."""
        with atomic_path(self.root / name) as temporary:
            temporary.write_text(json.dumps(document, sort_keys=True) + "\n", encoding="utf-8")

    def has_shard(self, shard: int) -> bool:
        """Whether a shard is complete."""
        return self._json(shard).is_file()

    @contextmanager
    def shard_writer(self, shard: int) -> Iterator[ShardWriter]:
        """Write a shard; it appears when the body is done."""
        with atomic_path(self._bin(shard)) as temporary, temporary.open("wb") as file:
            writer = ShardWriter(file)
            yield writer
            file.flush()
            os.fsync(file.fileno())
        rows = [video.row() for video in writer.videos]
        document = {"sha256": sha256_of(self._bin(shard)), "statistics": writer.statistics, "videos": rows}
        self.write_json(self._json(shard).name, document)

    def read_index(self, shard: int) -> tuple[list[StoredVideo], dict[str, Any]]:
        """A shard's videos, and the statistics that were stored with it.

        Raises:
            DualFormerError: if its index is missing or damaged.
        """
        path = self._json(shard)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            return [StoredVideo.from_row(row) for row in document["videos"]], dict(document["statistics"])
        except OSError as error:
            raise DualFormerError(f"token labels {str(path)!r}: {error.strerror}; {_ADVICE}") from None
        except (ValueError, KeyError, TypeError):
            raise DualFormerError(f"token labels {str(path)!r} are damaged; delete the file and {_ADVICE}") from None

    def read_shard(self, shard: int, header: Header) -> tuple[list[StoredVideo], npt.NDArray[Any]]:
        """A shard's videos and its labels, as structured records of shape (records, t, h, w), mapped from the file.

        Raises:
            DualFormerError: if it is missing or damaged.
        """
        videos, _ = self.read_index(shard)
        path, shape = self._bin(shard), (sum(video.num_records for video in videos), *header.grid)
        expected = shape[0] * header.bytes_per_tile
        try:
            found = path.stat().st_size
        except OSError as error:
            raise DualFormerError(
                f"token labels {str(path)!r}: {error.strerror}; delete {self._json(shard).name} and {_ADVICE}"
            ) from None
        if found != expected or [video.index for video in videos] != list(header.videos_of(shard)):
            raise DualFormerError(
                f"token labels {str(path)!r} are damaged ({found:,} bytes, not {expected:,}); delete "
                f"{self._json(shard).name} and {_ADVICE}"
            )
        if not expected:
            return videos, np.empty(shape, header.record)
        return videos, np.memmap(path, header.record, "r", shape=shape)

    def size_bytes(self) -> int:
        """Bytes of all shards."""
        return sum(path.stat().st_size for path in self.root.glob("shard-*"))

    def _bin(self, shard: int) -> Path:
        return self.root / f"shard-{shard:05d}.bin"

    def _json(self, shard: int) -> Path:
        return self.root / f"shard-{shard:05d}.json"


class ShardWriter:
    """Appends videos to a shard's file."""

    def __init__(self, file: Any) -> None:
        self.videos: list[StoredVideo] = []
        self.statistics: dict[str, Any] = {}
        self._file = file
        self._num_records = 0

    def add(self, job: LabelJob, path: str, layout: Layout, records: Iterator[npt.NDArray[Any]]) -> bool:
        """Add a video: its labels clip by clip, each of shape (tiles, t, h, w). An error leaves nothing of it.

        Returns:
            Whether it could be labelled.
        """
        start = self._file.tell()
        video = StoredVideo.of(job.index, path, self._num_records, layout)
        try:
            for of_clip in records:
                self._file.write(of_clip.tobytes())
        except VideoError as error:
            self._file.seek(start)
            self._file.truncate()
            self.refuse(job, path, error.reason)
            return False
        self.videos.append(video)
        self._num_records += video.num_records
        return True

    def refuse(self, job: LabelJob, path: str, reason: str) -> None:
        """Note a video that cannot be labelled."""
        self.videos.append(StoredVideo(job.index, path, reason))


@dataclass(frozen=True, slots=True)
class Corners:
    """The stored tokens around each token of a clip, and how much each of them counts."""

    weights: npt.NDArray[np.float32]
    """Shape (corners, t, h, w); they add up to 1 over the corners."""
    values: npt.NDArray[np.float32]
    """Logits, shape (corners, t, h, w, k)."""
    classes: npt.NDArray[np.int64]
    """Shape (corners, t, h, w, k)."""


def find_corners(
    video: StoredVideo,
    records: npt.NDArray[Any],
    *,
    indices: Indices,
    box: Fractions,
    flipped: bool,
    frame_interval: int | None,
) -> Corners:
    """Find the labels of one training clip.

    Args:
        video: where its labels are in `records`.
        records: of the shard, shape (records, t, h, w).
        indices: the clip's frame numbers in the video, shape (T,).
        box: the clip's crop as shares of the frame, (x, y, width, height).
        flipped: whether the clip is mirrored.
        frame_interval: step between the clip's frames; None where each comes from a segment of its own.
    """
    t, h, w = records.shape[1:]
    first, shape = video.first_record, (len(video.starts), len(video.tiles), t, h, w)
    stored = records[first : first + video.num_records].reshape(shape)
    if frame_interval is None:
        clip, time = np.zeros(t, np.int64), np.arange(t, dtype=np.float64)
    else:
        clip, time = _times(np.array(video.starts), int(indices[0]), t, frame_interval * len(indices) // t)
    tiles = np.array(video.tiles)
    x, y = (
        start + extent * (np.arange(count) + 0.5) / count
        for start, extent, count in ((box[0], box[2], w), (box[1], box[3], h))
    )
    tile_x, column = _in_tiles(x[::-1] if flipped else x, tiles[:, 0], tiles[:, 2], w)
    tile_y, row = _in_tiles(y, tiles[:, 1], tiles[:, 3], h)
    tile = np.maximum(tile_y[:, None], tile_x[None])  # along one side all tiles are alike, and the first is taken
    sides = [_neighbours(time, t), _neighbours(row, h), _neighbours(column, w)]
    weights, found = [], []
    for at, share_t in sides[0]:
        for below, share_h in sides[1]:
            for beside, share_w in sides[2]:
                weight = share_t[:, None, None] * share_h[:, None] * share_w
                if weight.any():
                    weights.append(weight)
                    found.append(
                        stored[clip[:, None, None], tile, at[:, None, None], below[:, None], beside[None, None]]
                    )
    corner = np.stack(found)
    return Corners(
        np.stack(weights).astype(np.float32),
        corner["values"].astype(np.float32),
        corner["classes"].astype(np.int64),
    )


def _times(starts: Indices, start: int, t: int, step: int) -> tuple[Indices, npt.NDArray[np.float64]]:
    """For each of a clip's t tokens in time the stored clip that it is in, and where there, in tokens.

    Of several stored clips the one that starts nearest to the clip is taken, so that a clip that was stored is found
    again as it is.
    """
    places = (start + step * np.arange(t)[:, None] - starts) / step  # (t, stored clips)
    outside = np.maximum(0, np.maximum(-places, places - (t - 1)))
    distance = np.abs(starts - start) / (1 + np.abs(starts - start).max())  # below 1, to break ties only
    clip = np.argmin(np.ceil(outside) + distance, axis=1)
    return clip, places[np.arange(t), clip]


def _in_tiles(
    places: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.float64],
    extents: npt.NDArray[np.float64],
    count: int,
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """For each place along a side of the frame the tile with the nearest centre, and where there, in tokens."""
    tile = np.abs(places[:, None] - (offsets + extents / 2)).argmin(axis=1)
    return tile, (places - offsets[tile]) / extents[tile] * count - 0.5


def _neighbours(places: npt.NDArray[np.float64], count: int) -> list[tuple[Indices, npt.NDArray[np.float64]]]:
    """The tokens before and after each place, and the share of each; outside the grid its last token is taken."""
    inside = np.clip(places.round(6), 0, count - 1)  # 1.9999999 is token 2
    low = np.floor(inside).astype(np.int64)
    share = inside - low
    return [(low, 1 - share), (np.minimum(low + 1, count - 1), share)]

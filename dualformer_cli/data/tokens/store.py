"""A folder of token labels: what it was made from, and its files."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.schema import DataConfig, Size3
from dualformer_cli.documents.base import from_json
from dualformer_cli.documents.tokenlabel import TeacherFacts
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system.files import atomic_path, sha256_of
from dualformer_cli.system.output_checks import check_output_folder
from dualformer_cli.system.words import cannot_read, os_reason

if TYPE_CHECKING:
    from dualformer_cli.data.tokens.tiles import LabelJob, Layout

FORMAT = 1
HEADER = "header.json"
SUMMARY = "summary.json"

_ADVICE = "run tokenlabel write again, which makes what is missing"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelClip:
    """What decides which pixels a stored label is of, as the configuration has it."""

    num_frames: int
    frame_interval: int
    sampling: str
    crop_size: int
    antialias: bool
    min_frames: int

    @classmethod
    def of(cls, data: DataConfig) -> LabelClip:
        """Return the clip of a configuration."""
        return cls(
            num_frames=data.clip.num_frames,
            frame_interval=data.clip.frame_interval,
            sampling=data.clip.sampling,
            crop_size=data.crop_size,
            antialias=data.antialias,
            min_frames=data.min_frames,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a folder of labels was made from: enough to see whether it fits a run."""

    teacher: TeacherFacts
    source: str
    """The list, as it was named."""
    list_fingerprint: str
    num_videos: int
    clip: LabelClip
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
        """Return the places in the list of a shard's videos."""
        return range(shard * self.videos_per_shard, min(self.num_videos, (shard + 1) * self.videos_per_shard))

    def difference(self, other: Header) -> str | None:
        """Return what differs between two folders' labels in one line; names and versions may."""
        one, two = (
            {**asdict(header), "teacher": asdict(replace(header.teacher, source=""))} for header in (self, other)
        )
        keys = ("teacher", "list_fingerprint", "num_videos", "clip", "grid", "top_k", "class_names", "videos_per_shard")
        for key in keys:
            if one[key] != two[key]:
                shown = "" if key == "class_names" else f": {one[key]}, now {two[key]}"
                return f"{key.replace('_', ' ')} {'is' if shown else 'are'} another{shown}"
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
        """Return a video that is cut in this way."""
        shares = tuple((x, y, width, height) for x, y, width, height in layout.shares.round(6).tolist())
        return cls(index, path, None, first_record, layout.starts, shares)

    def row(self) -> list[Any]:
        """Return its line in the index: the fields in order."""
        return [self.index, self.path, self.reason, self.first_record, self.starts, self.tiles]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> StoredVideo:
        """Read such a line."""
        index, path, reason, first_record, starts, tiles = row
        return cls(index, path, reason, first_record, tuple(starts), tuple((x, y, w, h) for x, y, w, h in tiles))


@dataclass(frozen=True, slots=True)
class TokenCounts:
    """Counts over tokens."""

    best: Mapping[int, int] = field(default_factory=dict)
    """Tokens by their best class."""
    tokens: int = 0
    agreeing: int = 0
    """Tokens whose best class is a label of their video."""

    @classmethod
    def of(cls, classes: npt.NDArray[np.uint16], labels: Sequence[int]) -> TokenCounts:
        """Count tokens of one video by their best class."""
        found = Counter(classes.ravel().tolist())
        return cls(found, classes.size, sum(found[label] for label in labels))

    def __add__(self, other: TokenCounts) -> TokenCounts:
        best = Counter(self.best) + Counter(other.best)
        return TokenCounts(best, self.tokens + other.tokens, self.agreeing + other.agreeing)


class LabelFolder:
    """A folder of token labels: header.json, and per shard its labels (.bin) and what they are of (.json).

    A shard is complete when its .json is there, which is written last. What a shard holds follows from the header and
    its number alone, so the same bytes come whoever writes it and however often it was interrupted.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)

    def read_header(self) -> Header | None:
        """Return the header; None where there is none.

        Raises:
            DualFormerError: if it cannot be read or is of another version.
        """
        path = self.root / HEADER
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != FORMAT:
                raise DualFormerError(f"token labels {str(self.root)!r} are of another version; write them again")
            return from_json(Header, document)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DualFormerError(cannot_read("token labels", path, error)) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DualFormerError(
                f"{str(path)!r} is not the header of token labels, or damaged; write them again"
            ) from None

    def check(self) -> Header | None:
        """Return the header of labels that are there already; None where the folder is empty or is still to be made.

        Raises:
            DualFormerError: if it is a file, cannot be made or written, or holds something else than token labels.
        """
        check_output_folder(self.root)
        header = self.read_header()
        if header is None and self.root.exists() and any(entry.name[0] != "." for entry in self.root.iterdir()):
            raise DualFormerError(
                f"{str(self.root)!r} holds something else than token labels; name another --output, or empty it"
            )
        return header

    def write_header(self, header: Header) -> None:
        """Make the folder and its header; what an interrupted run left half written goes.

        Raises:
            DualFormerError: if the folder cannot be made.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DualFormerError(
                f"folder {str(self.root)!r} cannot be made: {os_reason(error)}; name another --output"
            ) from None
        for leftover in self.root.glob(".*.part.*"):
            leftover.unlink(missing_ok=True)
        self.write_json(HEADER, {"format": FORMAT, **asdict(header)})

    def write_json(self, name: str, document: object) -> None:
        """Write one of the folder's documents."""
        with atomic_path(self.root / name) as temporary:
            temporary.write_text(json.dumps(document, sort_keys=True) + "\n", encoding="utf-8")

    def has_shard(self, shard: int) -> bool:
        """Return whether a shard is complete."""
        return self._json(shard).is_file()

    @contextmanager
    def shard_writer(self, shard: int) -> Iterator[ShardWriter]:
        """Write a shard; it appears when the body is done."""
        with atomic_path(self._bin(shard)) as temporary, temporary.open("wb") as file:
            writer = ShardWriter(file)
            yield writer
            file.flush()
            os.fsync(file.fileno())
        self.write_json(self._json(shard).name, shard_index(sha256_of(self._bin(shard)), writer.counts, writer.videos))

    def read_index(self, shard: int) -> tuple[list[StoredVideo], TokenCounts]:
        """Return a shard's videos, and the counts over their tokens.

        Raises:
            DualFormerError: if its index is missing or damaged.
        """
        path = self._json(shard)
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            counts = document["statistics"]
            best = {int(index): count for index, count in counts["best"].items()}
            videos = [StoredVideo.from_row(row) for row in document["videos"]]
            return videos, TokenCounts(best, counts["tokens"], counts["agreeing"])
        except OSError as error:
            raise DualFormerError(f"token labels {str(path)!r}: {os_reason(error)}; {_ADVICE}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DualFormerError(f"token labels {str(path)!r} are damaged; delete the file and {_ADVICE}") from None

    def read_shard(self, shard: int, header: Header) -> tuple[list[StoredVideo], npt.NDArray[Any]]:
        """Return a shard's videos and labels: structured records of shape (records, t, h, w), mapped from the file.

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
                f"token labels {str(path)!r}: {os_reason(error)}; delete {self._json(shard).name} and {_ADVICE}"
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
        """Return the bytes of all shards."""
        return sum(path.stat().st_size for path in self.root.glob("shard-*"))

    def _bin(self, shard: int) -> Path:
        return self.root / f"shard-{shard:05d}.bin"

    def _json(self, shard: int) -> Path:
        return self.root / f"shard-{shard:05d}.json"


def shard_index(sha256: str, counts: TokenCounts, videos: Sequence[StoredVideo]) -> Mapping[str, object]:
    """Return what is stored as a shard's .json."""
    statistics = {"best": dict(counts.best), "tokens": counts.tokens, "agreeing": counts.agreeing}
    return {"sha256": sha256, "statistics": statistics, "videos": [video.row() for video in videos]}


class ShardWriter:
    """Appends videos to a shard's file."""

    def __init__(self, file: Any) -> None:
        self.videos: list[StoredVideo] = []
        self.counts = TokenCounts()
        self._file = file
        self._num_records = 0

    def add(
        self, job: LabelJob, path: str, layout: Layout, records: Iterator[npt.NDArray[Any]], labels: Sequence[int]
    ) -> None:
        """Add a video: its tokens' labels clip by clip, each of shape (tiles, t, h, w), which are counted by whether
        they agree with the video's own `labels`. A VideoError leaves nothing of it but the reason.
        """
        start = self._file.tell()
        video, counts = StoredVideo.of(job.index, path, self._num_records, layout), TokenCounts()
        try:
            for of_clip in records:
                self._file.write(of_clip.tobytes())
                counts += TokenCounts.of(of_clip["classes"][..., 0], labels)
        except VideoError as error:
            self._file.seek(start)
            self._file.truncate()
            self.refuse(job, path, error.reason)
            return
        self.videos.append(video)
        self.counts += counts
        self._num_records += video.num_records

    def refuse(self, job: LabelJob, path: str, reason: str) -> None:
        """Note a video that cannot be labelled."""
        self.videos.append(StoredVideo(job.index, path, reason))

"""The part of a file that has arrived, kept so that a later connection or a later run goes on with it.

`NAME.part` holds the bytes and `NAME.part.json` what the server said about the whole file. Either can be gone, stale or
half written after a crash; then the file is begun anew. When it is tried again say `fetch.py`, and `Patience` in
`http.py`.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, replace
from http.client import HTTPResponse
from pathlib import Path

from dualformer_cli.data.fetch.http import TransferError
from dualformer_cli.system.files import atomic_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Announcement:
    """What a server said about a whole file. When it says something else, it means another file."""

    url: str
    etag: str | None = None
    last_modified: str | None = None
    length: int | None = None
    """Bytes; None when the server does not say."""

    @property
    def validator(self) -> str | None:
        """Value for If-Range, which takes no weak ETag."""
        is_strong = self.etag is not None and not self.etag.startswith("W/")
        return self.etag if is_strong else self.last_modified

    def contradicts(self, other: Announcement) -> bool:
        """Whether something that both say differs."""
        pairs = zip(asdict(self).values(), asdict(other).values(), strict=True)
        return any(mine != theirs for mine, theirs in pairs if mine is not None and theirs is not None)


class PartialFile:
    """The bytes of one file so far.

    Args:
        target: the path that the whole file will have.
        url: address that the bytes come from; bytes from another one are not gone on with.

    Attributes:
        path: where the bytes are.
        size: how many of them count.
        joined: whether they came over more than one connection.
    """

    def __init__(self, target: Path, url: str) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._announcement_path = target.with_name(f"{target.name}.part.json")
        self._url = url
        self._announced = self._left_by_earlier_run()
        self.size = self.path.stat().st_size if self._announced else 0
        self.joined = self.size > 0

    @property
    def length(self) -> int | None:
        """Bytes of the whole file, when known."""
        return self._announced.length if self._announced else None

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are there."""
        return self._announced is not None and self.size == self._announced.length

    def range_headers(self) -> dict[str, str]:
        """Return the headers that ask for the rest, on the condition that the file is still the same."""
        if self._announced is None or self.size == 0:
            return {}
        validator = self._announced.validator
        return {"Range": f"bytes={self.size}-", **({"If-Range": validator} if validator else {})}

    def accept(self, response: HTTPResponse) -> None:
        """Prepare for the bytes of an answer: the rest (206) is appended, the whole file (200) begins anew.

        Raises:
            TransferError: if the answer is the rest of another file. The bytes are dropped.
        """
        if response.status == 200:
            self._begin(_announcement(response, self._url, response.length))
        elif response.status != 206 or not self._is_continued_by(response):
            self.discard()
            raise TransferError("the file changed on the server while it was fetched", passing=True)
        else:
            self.joined = True

    def end(self) -> None:
        """Check the size after the last byte of an answer.

        Raises:
            TransferError: if bytes are missing, or if there are too many, which are dropped.
        """
        if self._announced is not None and self._announced.length is None:
            self._announced = replace(self._announced, length=self.size)
        length = self.length or 0
        if self.size > length:
            sent = self.size
            self.discard()
            raise TransferError(f"the server sent {sent} bytes and announced {length}", passing=True)
        if self.size < length:
            raise TransferError(f"the connection ended after {self.size} of {length} bytes", passing=True)

    def discard(self) -> None:
        """Forget the bytes, on disk too."""
        self.size, self.joined, self._announced = 0, False, None
        self.path.unlink(missing_ok=True)
        self._announcement_path.unlink(missing_ok=True)

    def _begin(self, announced: Announcement) -> None:
        self.size, self.joined, self._announced = 0, False, announced
        self.path.open("wb").close()  # before the announcement: old bytes must never stand beside a new one
        with atomic_path(self._announcement_path) as temporary:
            temporary.write_text(json.dumps(asdict(announced)), encoding="utf-8")

    def _is_continued_by(self, response: HTTPResponse) -> bool:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or self._announced is None or int(match[1]) != self.size:
            return False
        now = _announcement(response, self._url, None if match[2] == "*" else int(match[2]))
        return not now.contradicts(self._announced)

    def _left_by_earlier_run(self) -> Announcement | None:
        """Return what was said about the bytes that are there, if they can be gone on with."""
        try:
            announced = Announcement(**json.loads(self._announcement_path.read_text(encoding="utf-8")))
            fits = isinstance(announced.length, int) and 0 < self.path.stat().st_size <= announced.length
            is_text = all(value is None or _is_plain(value) for value in (announced.etag, announced.last_modified))
        except (OSError, ValueError, TypeError, RecursionError):
            return None
        return announced if fits and is_text and announced.url == self._url else None


def url_of_part(target: Path) -> str | None:
    """Return the address that the bytes of a partial file came from; None where there are none."""
    try:
        announced = json.loads(target.with_name(f"{target.name}.part.json").read_text(encoding="utf-8"))
        return str(announced["url"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _announcement(response: HTTPResponse, url: str, length: int | None) -> Announcement:
    """Read what an answer says about its file."""
    etag, last_modified = response.headers.get("ETag"), response.headers.get("Last-Modified")
    return Announcement(
        url=url,
        etag=etag if _is_plain(etag) else None,
        last_modified=last_modified if _is_plain(last_modified) else None,
        length=length,
    )


def _is_plain(value: object) -> bool:
    """Whether a header can be sent back in a request: folded or non-ASCII ones cannot."""
    return isinstance(value, str) and bool(value) and value.isascii() and value.isprintable()

"""Records of a list that is being scored, kept so that a run which was stopped goes on from them."""

from __future__ import annotations

from typing import cast

import numpy as np

from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.documents.evaluate import Bucket
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.system.result_parts import Parts, PartWriter


class KeptRecords:
    """The records in a folder of parts, and this rank's part.

    Args:
        parts: the folder, which is open.
        rank: of this process.
    """

    def __init__(self, parts: Parts, rank: int) -> None:
        self._parts = parts
        self._writer: PartWriter = parts.writer(rank)

    def read(self, listed: LabelledList, *, patience: float) -> dict[int, VideoRecord]:
        """Return what an earlier run has kept, by line of the list, but for videos that are to be tried again.

        Args:
            listed: the list.
            patience: seconds for which a decoder may make no progress now. Videos that were missing, or were given up
                sooner than that, are left out.
        """
        records = {}
        for line in self._parts.lines():
            index, bucket = int(line.row["index"]), cast(Bucket, line.row["bucket"])
            if bucket == "missing" or line.row.get("timeout", patience) < patience:
                continue
            scores = None
            if "blob" in line.row:
                content = self._parts.blob(line.part, line.row["blob"])
                scores = np.frombuffer(content, "<f4").reshape(int(line.row["views"]), -1).astype(np.float32)
            path, labels = listed.samples[index].name, listed.labels[index]
            records[index] = VideoRecord(index, path, labels, bucket, line.row["reason"], scores)
        return records

    def append(self, record: VideoRecord, *, timeout: float | None = None) -> None:
        """Keep a record.

        Args:
            record: what became of a video.
            timeout: seconds after which its decoder was given up; None if it was not.

        Raises:
            DualFormerError: if there is no room; what was kept before is safe.
        """
        scores = b"" if record.scores is None else record.scores.astype("<f4").tobytes()
        views = 0 if record.scores is None else len(record.scores)
        row = {"index": record.index, "bucket": record.bucket, "reason": record.reason, "views": views}
        self._writer.append(row if timeout is None else {**row, "timeout": timeout}, scores)

    def close(self) -> None:
        """Write out what waits, and close this rank's part."""
        self._writer.close()

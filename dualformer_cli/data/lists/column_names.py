"""What people call the columns of a table and its splits, and which name that has here."""

from __future__ import annotations

PATH_NAMES = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "video_name"),
    *("video_file", "clip", "clip_path", "name", "video_id", "clip_id"),
)
"""What people call the column of files, the usual name first."""

LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "class_id", "label_name", "label_id", "category", "action", "target"),
    "activity",
)
"""What people call the column of labels, the usual name first."""

SPLIT_NAMES = ("split", "subset", "set", "partition")
"""What people call the column that says in which split a video is."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call a split, to its name."""

SPLITS = ("train", "val", "test")

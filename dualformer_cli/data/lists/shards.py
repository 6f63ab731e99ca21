"""Tar archives in the layout of WebDataset as a list: the label of NAME.mp4 is in NAME.cls or NAME.json beside it."""

from __future__ import annotations

import glob
import json
import os
import re

from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample
from dualformer_cli.data.lists.tables import read_label
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import counted, natural_key
from dualformer_cli.video.live_inputs import mask_credentials
from dualformer_cli.video.remote_files import is_address
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import Member, expand_ranges, members

_MAX_LABEL_BYTES = 1 << 20


def shards_folder(source: str) -> str:
    """Return the folder that all archives of a name, pattern or range lie in or below."""
    return os.path.dirname(re.split(r"[*?[{]", source, maxsplit=1)[0])


def read_shards(source: str, labels: Labels) -> ParsedList:
    """Return the videos in tar archives, in the order of the archives and in them, with their labels.

    Args:
        source: an archive, a pattern (`shards/*.tar`) or a range (`shard-{000..099}.tar`).
        labels: knows the classes. A label is what NAME.cls holds, else the value of "label" in NAME.json: the number or
            the name of a class, several with semicolons between them or as a list in JSON.

    Raises:
        DualFormerError: if an archive cannot be read, has a name twice, or a label is not one of the classes.
    """
    folder = shards_folder(source)
    rows: list[tuple[Member, str]] = []
    for archive in _archives(source):
        rows += _read_archive(archive)
    if not rows:
        raise DualFormerError(f"list {source!r}: the archives hold no videos; name others")
    pieces = (piece.strip() for text in {text for _, text in rows} for piece in text.split(";"))
    labels.report(filter(None, pieces))
    samples, some_have_several = [], False
    for member, text in rows:
        path = os.path.relpath(member.path, folder or os.curdir)
        try:
            found, has_several = read_label(text, labels)
        except ValueError as error:
            raise labels.error(f"the label of {path!r}", text, str(error)) from None
        some_have_several = some_have_several or has_several
        samples.append(Sample(path, found[0] if found else None, found))
    if some_have_several:
        samples = [Sample(sample.path, None, sample.labels) for sample in samples]
    unlabelled = [sample.path for sample in samples if not sample.labels]
    warnings = []
    if 0 < len(unlabelled) < len(samples):
        videos = counted(len(unlabelled), "video")
        warnings.append(f'{videos} without a .cls or a .json with "label", such as {unlabelled[0]!r}')
    return ParsedList(samples, some_have_several, tuple(warnings))


def _archives(source: str) -> list[str]:
    """Return the archives that a name, pattern or range stands for, each once.

    Raises:
        DualFormerError: if it stands for none, or one of them is not there.
    """
    found: dict[str, None] = {}
    for name in expand_ranges(source):
        if is_address(name):
            raise DualFormerError(
                f"list {mask_credentials(source)!r}: only `predict` reads archives on other machines where they are; "
                "fetch them to a disk of this one"
            )
        if not os.path.exists(name) and not glob.has_magic(name):
            raise DualFormerError(f"list {source!r}: there is no archive {name!r}; mend the name or the range")
        is_pattern = not os.path.exists(name)
        found.update(dict.fromkeys(sorted(glob.glob(name, recursive=True), key=natural_key) if is_pattern else [name]))
    if not found:
        raise DualFormerError(f"list {source!r}: the pattern matches no archive")
    return list(found)


def _read_archive(archive: str) -> list[tuple[Member, str]]:
    """Return the videos of an archive with the text of their labels, which is empty where there is none."""
    videos: dict[str, Member] = {}
    texts: dict[str, str] = {}
    for member in members(archive):
        stem, suffix = os.path.splitext(member.name)
        if is_video_name(member.name):
            if member.name in videos:
                raise DualFormerError(f"{archive!r} has two members called {member.name!r}; rename one")
            videos[member.name] = member
        elif suffix == ".cls":
            texts[stem] = _text(member).strip()
        elif suffix == ".json" and stem not in texts:
            texts[stem] = _label_in_json(member)
    return [(member, texts.get(os.path.splitext(name)[0], "")) for name, member in videos.items()]


def _text(member: Member) -> str:
    if member.size > _MAX_LABEL_BYTES:
        raise DualFormerError(f"{member.path!r} has {member.size:,} bytes, too many for a label")
    with open(member.archive, "rb") as file:
        file.seek(member.start)
        data = file.read(member.size)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DualFormerError(f"{member.path!r} is not UTF-8 text; it should hold a label") from None


def _label_in_json(member: Member) -> str:
    """Return the label in a JSON object as it would stand in a table; empty if it has none."""
    try:
        document = json.loads(_text(member))
    except (ValueError, RecursionError):
        raise DualFormerError(f"{member.path!r} is not JSON; it should hold an object with a label") from None
    label = document.get("label") if isinstance(document, dict) else None
    several = label if isinstance(label, list) else [label]
    if any(isinstance(each, bool | dict | list) for each in several):
        raise DualFormerError(f'{member.path!r}: "label" is neither a number nor a name of a class, nor a list of them')
    joined = ";".join(str(each) for each in several if each is not None)
    return f"{joined};" if isinstance(label, list) and joined else joined

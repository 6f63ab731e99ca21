"""The input of a command that takes one video: what is none is told before a model is loaded."""

from __future__ import annotations

import glob
import os

from dualformer_cli.errors import VideoError
from dualformer_cli.system.words import natural_key
from dualformer_cli.video.addresses import is_address, is_live, mask_credentials
from dualformer_cli.video.frame_folders import find_frames
from dualformer_cli.video.image_frames import numbered_images
from dualformer_cli.video.parts import split_part
from dualformer_cli.video.refusals import is_folder, missing
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import is_there


def check_one_video(name: str) -> None:
    """Refuse what is not one video file or one folder of frames; whether a file can be decoded is not asked.

    Raises:
        VideoError: saying what it is, and what to name in its place.
    """
    if not is_there(name):
        raise VideoError(mask_credentials(name), _not_one_video(name))
    if not is_folder(name):
        return
    with os.scandir(name) as entries:
        found = [entry.name for entry in entries if entry.is_file()]
    if find_frames(found) is None:
        numbered_images(name, None)  # says what the folder has instead


def _not_one_video(name: str) -> str:
    wanted = "one video file or folder of frames is taken"
    if name == "-" or (name.startswith("@") and os.path.isfile(name[1:])):
        return f"it is a list, and {wanted}; name one of its videos"
    if is_live(name) or is_address(name):
        return f"it is a camera or an address, and {wanted}; record or fetch it first"
    if (file := split_part(name)[0]) != name and is_there(file):
        return f"it is a part, and {wanted}; name {file}"
    if glob.has_magic(name):
        videos = sorted(filter(is_video_name, glob.glob(name, recursive=True)), key=natural_key)
        return f"it is a pattern, and {wanted}; name {videos[0]}" if videos else "the pattern matches no videos"
    return missing(name)

"""Configurations of the published code and of mmaction2 that people name as a preset, and the presets that they are."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath

_IMAGE_WEIGHTS = "it starts from timm's ImageNet-1k weights, as the authors published no image weights"
_VIDEO_LISTS = "it reads videos as well as folders of frames"
_TEACHER = "its teacher is fetched like other published weights, and --teacher names another"

_PUBLISHED = {
    "dualformer_tiny_patch244_window877_kinetics400_1k": ("k400-tiny", _IMAGE_WEIGHTS),
    "dualformer_small_patch244_window877_kinetics400_1k": ("k400-small", _IMAGE_WEIGHTS),
    "dualformer_base_patch244_window877_kinetics400_1k": ("k400-base", _IMAGE_WEIGHTS),
    "dualformer_base_patch244_window877_kinetics600_22k": ("k600-base", _IMAGE_WEIGHTS),
    "dualformer_small_patch244_window877_diving48": ("diving48-small", _VIDEO_LISTS),
    "dualformer_small_patch244_window877_hmdb51": ("hmdb51-small", _VIDEO_LISTS),
    "dualformer_small_patch244_window877_ucf101": ("ucf101-small", _VIDEO_LISTS),
    "dualformer_tiny_patch244_window877_ucf101": ("ucf101-tiny", _VIDEO_LISTS),
    "dualformer_tiny_tokenlabel_patch244_window877_kinetics400_1k": ("k400-tiny-tokenlabel", _TEACHER),
    "dualformer_small_tokenlabel_patch244_window877_kinetics400_1k": ("k400-small-tokenlabel", _TEACHER),
    **{f"dualformer_{size}": (size, "it has the architecture alone") for size in ("tiny", "small", "base")},
}
"""Preset by the name of each published configuration, and how it differs."""

_NEAREST = (
    ("kinetics.?600|k600", {"tiny": "k600-base", "small": "k600-base", "base": "k600-base"}),
    ("diving.?48", {"tiny": "diving48-small", "small": "diving48-small", "base": "diving48-small"}),
    ("hmdb", {"tiny": "hmdb51-small", "small": "hmdb51-small", "base": "hmdb51-small"}),
    ("ucf", {"tiny": "ucf101-tiny", "small": "ucf101-small", "base": "ucf101-small"}),
    ("", {"tiny": "k400-tiny", "small": "k400-small", "base": "k400-base"}),
)
"""Presets of a size by what the name of a data set looks like."""

PAGE = Path(__file__).parent.parent / "docs" / "coming-from.md"
"""Of the documentation, about all of this."""

OPTIONS = {
    "--cfg-options": "--set KEY=VALUE",
    "--options": "--set KEY=VALUE",
    "--cfg": "--preset NAME|FILE.yaml",
    "--config": "--preset NAME|FILE.yaml",
    "--rec": "--preset NAME|FILE.yaml",
    "--work-dir": "--output DIR",
    "--resume-from": "--resume --output DIR",
    "--load-from": "--init-from FILE",
    "--validate": "a second --data LIST",
    "--no-validate": "one --data LIST alone",
    "--gpu-ids": "--device cuda:N",
    "--amp": "--precision bf16",
    "--launcher": "--gpus N, or torchrun",
    "--checkpoint": "--weights FILE",
    "--rec-weights": "--weights FILE",
    "--target-layer-name": "--layer STAGE/BLOCK",
    "--out": "--dump FILE.jsonl",
    "--deterministic": "--seed N, which alone decides a run",
    "--auto-scale-lr": "always so",
    "--eval": "always so, every metric is printed",
    "--average-clips": "always so, scores are means of probabilities",
    "--tta": "--views 4x3",
    "--label-file": "--set data.classes=FILE",
    "--out-filename": "--save FILE.mp4",
    "--vid-out-dir": "--save FOLDER/",
    "--pred-out-file": "--json",
}
"""Options of the scripts of the published code and mmaction2, and what does the same here."""

COMMANDS = {
    **dict.fromkeys(("train", "dist_train", "slurm_train"), "train"),
    **dict.fromkeys(("test", "dist_test", "slurm_test"), "eval"),
    **dict.fromkeys(("demo", "demo_inferencer", "webcam_demo", "long_video_demo", "inference"), "predict"),
    **dict.fromkeys(("get_flops", "analysis"), "flops"),
    "demo_gradcam": "gradcam",
    "build_rawframes": "prepare",
}
"""Their scripts, and the commands that do the same."""

KEYS = {
    "videos_per_gpu": "train.batch_size",
    "samples_per_gpu": "train.batch_size",
    "update_interval": "train.global_batch_size",
    "workers_per_gpu": "runtime.num_workers",
    "total_epochs": "train.epochs",
    "max_epochs": "train.epochs",
    "clip_len": "data.clip.num_frames",
    "data_prefix": "data.root",
    "ann_file": "data.train_list",
    "load_from": "train.init_from",
    "use_checkpoint": "model.gradient_checkpointing",
    "pretrained": "train.pretrained_2d",
    "fp16": "runtime.precision",
    "warmup_iters": "train.warmup_epochs",
    "grad_clip": "train.clip_grad_norm",
    "dropout_ratio": "model.dropout",
}
"""Last parts of their keys, and the keys that decide the same here."""

_FOREIGN_KEYS = ("_base_", "default_scope", "dataset_type", "train_pipeline", "optim_wrapper", "model.type")


def foreign_key(key: str, name: str) -> str | None:
    """Return what to say of a key that mmaction2 has and no preset; None of others.

    Args:
        key: dotted.
        name: of the file that has it.
    """
    if key not in _FOREIGN_KEYS:
        return None
    return f"{name!r} is a configuration of mmaction2, as {key} says. {_advice(name)}"


def key_instead(key: str) -> str | None:
    """Return the key that decides what a key of mmaction2 does there; None of others."""
    part, _, name = key.rpartition(".")
    if name == "ann_file" and re.search("val|test", part):
        return "data.validation_list"
    return KEYS.get(name)


def option_instead(key: str) -> str | None:
    """Return the option that decides what a key of mmaction2 at the top of its files does there; None of others."""
    return OPTIONS.get(f"--{key.replace('_', '-')}")


def what_instead(typed: str) -> str | None:
    """Return what to say of an option or a script (`tools/test.py`, `test`) of other code; None of others."""
    command = command_instead(typed)
    here = OPTIONS.get(typed) or (f"dualformer {command}" if command else None)
    return None if here is None else f"{typed} is of other code; here it is {here}. More: {PAGE}"


def command_instead(typed: str) -> str | None:
    """Return the command that does what a script of other code does; None of others, and of our own commands."""
    script = re.fullmatch(r"(?:.*[/\\])?(\w+)\.(?:py|sh)", typed)
    command = COMMANDS.get(script[1] if script else typed)
    return command if command != typed else None


def preset_instead(name: str) -> tuple[str, bool] | None:
    """Return the preset that a configuration of other code is, or the nearest one, and whether it is the same.

    Args:
        name: a name or a path, with a suffix or without.

    Returns:
        Both; None of others.
    """
    stem = _foreign_stem(name)
    if stem is None:
        return None
    return (_PUBLISHED[stem][0], True) if stem in _PUBLISHED else (_nearest(stem), False)


def foreign_config(name: str) -> str | None:
    """Return what to say to a user who names a configuration of other code as a preset; None where it is none.

    Args:
        name: a name or a path, with a suffix or without.
    """
    stem = _foreign_stem(name)
    if stem is None:
        return None
    if stem in _PUBLISHED:
        preset, differs = _PUBLISHED[stem]
        return (
            f"{name!r} is a configuration of the published code; here it is the preset {preset}: --preset {preset}. "
            f"Lists are given with --data; {differs}. More: {PAGE}"
        )
    return f"{name!r} is a Python configuration, as mmaction2 has them. {_advice(stem)}"


def _foreign_stem(name: str) -> str | None:
    """Return the name of a configuration of other code without folder and suffix; None of others."""
    path = PurePath(name.replace("\\", "/"))
    is_yaml = path.suffix in (".yaml", ".yml")
    if is_yaml and os.path.exists(name):
        return None
    stem = path.stem if is_yaml or path.suffix == ".py" else path.name
    return stem if stem in _PUBLISHED or path.suffix == ".py" else None


def _nearest(name: str) -> str:
    size = next((size for size in ("tiny", "small") if size in name), "base" if "base" in name else "small")
    return next(sizes[size] for pattern, sizes in _NEAREST if re.search(pattern, name, re.IGNORECASE))


def _advice(name: str) -> str:
    return (
        "Presets are names or YAML files, of DualFormer alone; by size and data set the nearest one is "
        f"--preset {_nearest(name)}. More: {PAGE}"
    )

"""What a score depends on: a run folder, and scores that are kept, are gone on with where none of it has changed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.system.files import sha256_of

FREE_SETTINGS = ("data.decode_timeout_seconds", "data.train_list")
"""Of these settings, those on which no score depends."""


def score_settings(resolved: ResolvedConfig) -> dict[str, object]:
    """Return those of the configuration, by the names that users know."""
    data = asdict(resolved.config.data)
    for name in ("validation_list", "root", "train", "validation"):  # no matter to a score
        data.pop(name, None)
    return {"preset": resolved.preset, **_flat("model", asdict(resolved.config.model)), **_flat("data", data)}


def settings_before_loading(resolved: ResolvedConfig) -> dict[str, object]:
    """Return what is known of them, and of the weights, before a model is loaded."""
    settings, weights = score_settings(resolved), resolved.config.weights
    if weights == "random":
        settings["weights"] = named_weights(weights, None, seed=resolved.config.runtime.seed)
    elif weights is not None and os.path.isfile(weights):
        settings["weights"] = sha256_of(Path(weights))
    return settings


def named_weights(name: str, sha256: str | None, *, seed: int) -> str:
    """Return what tells weights from others: the hash of their file, or how they were made without one."""
    return sha256 or f"{name}, seed {seed}"


def _flat(prefix: str, section: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in section.items():
        key = f"{prefix}.{name}"
        found |= _flat(key, value) if isinstance(value, Mapping) else {key: value}
    return found

"""What the shell completes behind an option; where nothing fits, it completes names of files.

Only what is quick to import is read: a key press waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args


def _starting_with(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Return the shipped presets that start with `incomplete`."""
    from dualformer_cli.config.load import known_presets

    return _starting_with(incomplete, known_presets())


def complete_setting(incomplete: str) -> list[str]:
    """Return the configuration keys that start with `incomplete`, each up to its value."""
    from dualformer_cli.config.load import known_keys

    return _starting_with(incomplete, (f"{key}=" for key in known_keys()))


def complete_device(incomplete: str) -> list[str]:
    """Return the devices that start with `incomplete`; which of them are here is not known without torch."""
    return _starting_with(incomplete, ("auto", "cpu", "cuda", "mps", "xpu"))


def complete_precision(incomplete: str) -> list[str]:
    """Return the number formats that start with `incomplete`."""
    from dualformer_cli.config.load import known_keys

    return _starting_with(incomplete, get_args(known_keys()["runtime.precision"]))


def complete_weights(incomplete: str) -> list[str]:
    """Return the presets with weights that start with `incomplete`, and the words that stand for weights."""
    from dualformer_cli.data.fetch.weights import weights_names

    return _starting_with(incomplete, (*weights_names(), "published", "random"))


def complete_weights_of_presets(incomplete: str) -> list[str]:
    """Return the presets with weights that start with `incomplete`."""
    from dualformer_cli.data.fetch.weights import weights_names

    return _starting_with(incomplete, weights_names())


def complete_download(incomplete: str) -> list[str]:
    """Return the datasets, and presets with published weights, that start with `incomplete`."""
    from dualformer_cli.data.datasets.catalogue import load_catalogue

    catalogue = load_catalogue()
    return _starting_with(incomplete, (*catalogue.datasets, *catalogue.weights))


def complete_prepare(incomplete: str) -> list[str]:
    """Return the datasets that start with `incomplete`, and camera-motion."""
    from dualformer_cli.data.datasets.catalogue import load_catalogue

    return _starting_with(incomplete, (*load_catalogue().datasets, "camera-motion"))


def complete_formats(incomplete: str) -> list[str]:
    """Return what may follow: the formats behind the last comma that start as it does."""
    from dualformer_cli.config.schema import ListFormat

    return _listed(incomplete, get_args(ListFormat))


def complete_log(incomplete: str) -> list[str]:
    """Return what may follow: the experiment trackers behind the last comma that start as it does."""
    from dualformer_cli.outputs.trackers import TRACKERS

    return _listed(incomplete, TRACKERS)


def _listed(incomplete: str, words: Iterable[str]) -> list[str]:
    *before, last = incomplete.split(",")
    return [",".join((*before, name)) for name in _starting_with(last, words) if name not in before]

"""What the shell completes behind an option; where nothing fits, it completes names of files.

Only what is quick to import is read: a key press waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import NoneType
from typing import Literal, get_args, get_origin

_BASH = """
%(complete_func)s() {
    local IFS=$'\\n' words=() word i
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ $word == [=:]* || ( $i -gt 0 && ${COMP_WORDS[i-1]} == *[=:] ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
    done
    word=${words[-1]}
    COMPREPLY=( $( env COMP_WORDS="${words[*]}" \\
                   COMP_CWORD=$((${#words[@]} - 1)) \\
                   %(autocomplete_var)s=complete_bash "$1" ) )
    COMPREPLY=("${COMPREPLY[@]#"${word%%"$2"}"}")
    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace
    return 0
}

complete -o default -F %(complete_func)s %(prog_name)s
"""
"""Typer's script for bash, which cuts a line also at = and : (those parts are put together here, and what stands before
the last is left out of the answer), and puts a space behind the one word that fits, also where it ends with =."""


def complete_in_bash() -> None:
    """Have Typer give bash the script above in place of its own; one that keeps its own elsewhere goes on giving it."""
    with suppress(ImportError, AttributeError):
        from typer import _completion_classes, _completion_shared

        _completion_shared._completion_scripts["bash"] = _BASH
        _completion_classes.BashComplete.source_template = _BASH


def _starting_with(incomplete: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def complete_preset(incomplete: str) -> list[str]:
    """Return the shipped presets that start with `incomplete`."""
    from dualformer_cli.config.load import known_presets

    return _starting_with(incomplete, known_presets())


def complete_setting(incomplete: str) -> list[str]:
    """Return the configuration keys that start with `incomplete`, each up to its value; behind the =, known values."""
    from dualformer_cli.config.load import known_keys

    key, equals, _ = incomplete.partition("=")
    words = (f"{key}={value}" for value in _values(key)) if equals else (f"{key}=" for key in known_keys())
    return _starting_with(incomplete, words)


def _values(key: str) -> list[str]:
    """Return the values of a key that the schema or the package knows; none where it is likely to name a file."""
    from dualformer_cli.config.load import known_keys

    annotation = known_keys().get(key)
    values = list(_NAMES[key]("")) if key in _NAMES else []
    kinds = (annotation,) if get_origin(annotation) is Literal else get_args(annotation) or (annotation,)
    if str in kinds and not values:
        return []
    for kind in kinds:
        if kind is bool:
            values += ("true", "false")
        elif get_origin(kind) is Literal:
            values += map(str, get_args(kind))
        elif kind is NoneType:
            values.append("null")
    return values


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


def _complete_classes(incomplete: str) -> list[str]:
    from dualformer_cli.data.lists.class_lists import shipped_class_lists

    return _starting_with(incomplete, shipped_class_lists())


def _complete_metric(incomplete: str) -> list[str]:
    from dualformer_cli.config.metric_table import best_metrics

    return _starting_with(incomplete, best_metrics())


def _complete_train_list(incomplete: str) -> list[str]:
    from dualformer_cli.config.schema import RENDERED

    return _starting_with(incomplete, [RENDERED])


_NAMES: Mapping[str, Callable[[str], list[str]]] = {
    "weights": complete_weights,
    "data.classes": _complete_classes,
    "data.train_list": _complete_train_list,
    "train.best_metric": _complete_metric,
    "train.init_from": complete_weights_of_presets,
    "train.pretrained_2d": lambda incomplete: _starting_with(incomplete, ["timm"]),
    "train.teacher": complete_weights_of_presets,
    "train.teacher_preset": complete_preset,
    "runtime.device": complete_device,
}
"""The names that stand for something as the value of a key of text."""

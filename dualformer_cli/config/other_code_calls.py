"""Calls of mmaction2's scripts, also typed as words after one of our commands, and the lines that do the same."""

from __future__ import annotations

import os
import re
import shlex
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from dualformer_cli.config.other_code import OPTIONS, PAGE, command_instead, key_instead, preset_instead, what_instead
from dualformer_cli.config.schema import WEIGHTS_SUFFIXES

_LISTS = {"train": ("--data", "train.csv", "--data", "val.csv"), "eval": ("--data", "val.csv")}
"""What their configuration names, and ours does not."""
_VALUE = re.compile(r"[A-Z]+(/|\.\w+)?(=VALUE|/BLOCK|\|FILE\.yaml)?$")
"""What stands for a value at the end of an option in the words of `OPTIONS`, and the suffix that it has."""


class Answer(NamedTuple):
    """What is said of a call, and the line that does the same."""

    message: str
    line: str


def call_instead(command: str, words: Sequence[str]) -> Answer | None:
    """Return the answer to a script of theirs, or to its words after one of our commands; None to others.

    Args:
        command: that was typed, a script of theirs or a command of ours.
        words: that were typed after it; without a Python configuration they are no call.
    """
    call = _Call(words)
    if call.config is None or (found := preset_instead(call.config)) is None:
        return None
    if any(word.partition("=")[0] == "--preset" for word in words):  # ours, which theirs have not
        return None
    script = what_instead(command)
    ours = command_instead(command) or command
    # The shell makes such words of * too, where a script lies beside videos: in a call weights come next.
    is_first = call.words[:1] == [call.config] and call.words[1:2] == call.weights[:1]
    if ours == "predict" and script is None and call.config in call.words and not is_first:
        return None
    preset, is_same = found
    kind = "a configuration of the published code" if is_same else "a Python configuration, as mmaction2 has them"
    said = script or f"{call.config!r} is {kind}; here it is a preset. More: {PAGE}"
    which = "" if is_same else f", with {preset}, the nearest preset by size and data set"
    return Answer(f"{said}. The same line here{which}:", shlex.join(["dualformer", *call.line(ours, preset)]))


class _Call:
    """Their words, sorted, and what they are in ours."""

    def __init__(self, words: Sequence[str]) -> None:
        self.config: str | None = None
        self.weights: list[str] = []
        self.options: list[str] = []
        self.others: list[str] = []
        self.words: list[str] = []
        """All that belong to no option."""
        left = deque(words)
        while left:
            word = left.popleft()
            if word.partition("=")[0] in OPTIONS:
                self._take_option(word, left)
            elif word == "--weights":
                self.weights += _values(left, most=1)
            elif word.startswith("-"):
                self.options += [word, *_values(left, most=1)]
            else:
                self.words.append(word)
                self._take(word)

    def line(self, command: str, preset: str) -> list[str]:
        """Return the words that do the same, the command first."""
        if command in ("flops", "export"):
            named = self.weights[-1] if self.weights and command == "export" else preset
            return [command, named, *self.options]
        weights = [] if command == "train" or not self.weights else ["--weights", self.weights[-1]]
        line = [command, "--preset", preset, *weights, *_LISTS.get(command, ()), *self.options]
        if command not in ("predict", "gradcam"):
            return line + [word for each in self.others if each.isdecimal() for word in ("--gpus", each)]
        inputs = [word for word in self.others if not word.endswith(".txt")][:1] or ["VIDEO"]
        classes = [f"data.classes={word}" for word in self.others if word.endswith(".txt")][-1:]
        line = [command, *inputs, *line[1:], *(word for each in classes for word in ("--set", each))]
        return ["--out" if word == "--save" and command == "gradcam" else word for word in line]

    def _take(self, word: str) -> None:
        if self.config is None and preset_instead(word):
            self.config = word
        elif word.endswith(WEIGHTS_SUFFIXES):
            self.weights.append(word)
        else:
            self.others.append(word)

    def _take_option(self, word: str, left: deque[str]) -> None:
        name, is_given, value = word.partition("=")
        here = OPTIONS[name]
        place = _VALUE.search(here)
        is_key = place is not None and place[2] == "=VALUE"
        pattern, most = (r"\w+", None) if place is None else (r"[^=]+=.*", None) if is_key else (".*", 1)
        values = [value] if is_given else _values(left, pattern, most=most)
        if here.startswith("--preset"):
            for value in values:
                self._take(value)
        elif here.startswith("--weights"):
            self.weights += values
        elif place is None and here.startswith("--") and ", " not in here:  # else nothing is to be typed
            self.options += here.split()
        elif place is not None:
            for value in values:
                *before, last = here[: place.start()].split(" ")
                self.options += [*before, last + _in_place(value, name, place)]


def _values(left: deque[str], pattern: str = ".*", *, most: int | None) -> list[str]:
    """Take the next words that are values of an option, and at most so many."""
    values: list[str] = []
    while left and len(values) != most and re.fullmatch(pattern, left[0], re.DOTALL) and not left[0].startswith("-"):
        values.append(left.popleft())
    return values


def _in_place(value: str, name: str, place: re.Match[str]) -> str:
    """Return what stands in the place of a value, which an option of theirs has."""
    if place[2] == "=VALUE":
        key, _, value = value.partition("=")
        return f"{key_instead(key) or key}={value}"
    if name == "--resume-from":
        return os.path.dirname(value) or os.curdir
    if place[1] == "/":
        return os.path.join(value, "")
    is_fit = place[1] is None or value.endswith((place[1], ".gif"))
    return value if is_fit else os.path.splitext(value)[0] + place[1]

"""Multiply-adds, parameters and latency as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TextIO

from dualformer_cli.documents.flops import Flops, Latency, ModuleCost
from dualformer_cli.outputs.screen import Screen, print_facts
from dualformer_cli.system.words import counted


def print_flops(document: Flops, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print multiply-adds and parameters, and, when the document holds them, the modules' shares and the latency."""
    screen = Screen(stream, width)
    facts = [
        ("model", f"{document.model}, {counted(document.num_classes, 'class')}"),
        ("input", " x ".join(str(side) for side in document.input)),
        ("multiply-adds", f"{_giga(document.multiply_adds_per_view)} per view"),
        ("", f"{_giga(document.multiply_adds_per_video)} per video ({counted(document.views, 'view')})"),
        ("parameters", _short_count(document.parameters)),
        ("", f"{_short_count(document.parameters_backbone)} without the classifier"),
    ]
    print_facts(screen, facts)
    if document.by_module:
        screen.line()
        _print_modules(screen, document.by_module, total=document.multiply_adds_per_view or 1)
    if document.latency is not None:
        screen.line()
        screen.line(("latency", "bold"))
        print_facts(screen, _latency(document.latency))
    screen.flush()


def _latency(measured: Latency) -> list[tuple[str, str]]:
    compiled = ", compiled" if measured.compiled else ""
    threads, clips, runs = (
        counted(count, one)
        for count, one in ((measured.num_threads, "thread"), (measured.batch_size, "clip"), (measured.num_runs, "run"))
    )
    spread = f"{measured.p20_ms:.4g} to {measured.p80_ms:.4g} ms from the 20th to the 80th percentile"
    return [
        ("  device", f"{measured.device}, {measured.precision}{compiled}, {threads}"),
        ("  median", f"{measured.median_ms:.4g} ms for {clips}; {spread} of {runs}"),
        ("  speed", f"{measured.clips_per_second:.4g} clips/s"),
    ]


def _print_modules(screen: Screen, modules: Sequence[ModuleCost], *, total: float) -> None:
    head = ("module", "mult-adds", "share", "params")
    numbers = [
        (_short_count(row.multiply_adds), f"{row.multiply_adds / total:.1%}", _short_count(row.parameters))
        for row in modules
    ]
    taken = sum(2 + max(map(len, column)) for column in zip(head[1:], *numbers, strict=True))
    name_size = max(len(head[0]), screen.width - taken)
    names = [screen.cut(row.module, name_size, keep_end=True) for row in modules]
    rows = [(name, *row) for name, row in zip(names, numbers, strict=True)]
    screen.table(rows, right=(False, True, True, True), styles=("", "", "dim", ""), head=head)


def _giga(count: float) -> str:
    """Return multiply-adds as the published table prints them, 60.088 G; small models' with a smaller unit."""
    return f"{count / 1e9:,.3f} G" if count >= 1e8 else _short_count(count)


def _short_count(count: float) -> str:
    """Return a count to four digits with K, M or G, never T: papers compare multiply-adds in G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if count >= size * 0.99995:
            value = count / size
            digits = max(0, 3 - math.floor(math.log10(value * 1.00005)))
            return f"{value:,.{digits}f} {unit}"
    return f"{count:.4g}"

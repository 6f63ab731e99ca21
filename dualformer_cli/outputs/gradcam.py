"""What Grad-CAM found, and the layers that it can look at, as text."""

from __future__ import annotations

from typing import TextIO

from dualformer_cli.documents.gradcam import DeletionCurves, Gradcam, LayerList
from dualformer_cli.documents.predict import BUILT_IN_QUESTION
from dualformer_cli.outputs.screen import Screen, print_facts
from dualformer_cli.system.words import counted, shown_path


def print_gradcam(document: Gradcam, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print what `gradcam` found: the class with its score, the layer and the deletion score."""
    screen = Screen(stream, width)
    chosen, grid = document.class_, " x ".join(str(side) for side in document.grid)
    preset = document.facts.preset
    facts = [
        ("class", f"{chosen.label} ({chosen.index}), score {chosen.score:.1%}"),
        ("layer", f"{document.layer} of {preset}, tokens {grid}, gradient of the {document.gradient_of}"),
        ("frames", f"{document.num_frames} from {counted(document.num_views, 'view')}"),
    ]
    if document.fallback is not None:
        facts.insert(0, ("question", f"{BUILT_IN_QUESTION}, by the built-in model"))
    if (deleted := document.deletion) is not None:
        numbers = f"{100 * deleted.score:+.1f} points (spread {100 * deleted.spread:.1f})"
        facts.append(("deletion", f"{numbers}: {_verdict(deleted)}"))
    screen.line((shown_path(document.path), "bold"))
    print_facts(screen, facts)
    for warning in document.warnings:
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.flush()


def _verdict(deleted: DeletionCurves) -> str:
    """Return what the score shows, which is nothing within two of its spreads."""
    if abs(deleted.score) <= 2 * deleted.spread:
        return "hot and random places cannot be told apart"
    return f"hot places matter {'more' if deleted.score > 0 else 'less'} than random ones"


def print_layers(document: LayerList, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the layers of a model: name, attention, token grid, channels."""
    screen = Screen(stream, width)
    rows = [(row.layer, row.attention, " x ".join(map(str, row.grid)), str(row.channels)) for row in document.layers]
    head = ("layer", "attention", "tokens t,h,w", "channels")
    screen.line((document.preset, "bold"))
    screen.table(rows, right=(False, False, False, True), styles=("", "", "", ""), head=head)
    screen.flush()

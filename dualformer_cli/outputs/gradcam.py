"""What Grad-CAM found, and the layers that it can look at, as text."""

from __future__ import annotations

from typing import TextIO

from dualformer_cli.documents.gradcam import Gradcam, LayerList
from dualformer_cli.outputs.screen import Screen, print_facts
from dualformer_cli.system.words import counted


def print_gradcam(document: Gradcam, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print what `gradcam` found: the class with its score, the layer, the deletion score and the files."""
    screen = Screen(stream, width)
    chosen, grid = document.class_, " x ".join(str(side) for side in document.grid)
    preset = document.facts.preset
    facts = [
        ("class", f"{chosen.label} ({chosen.index}), score {chosen.score:.3f}"),
        ("layer", f"{document.layer} of {preset}, tokens {grid}, gradient of the {document.gradient_of}"),
        ("frames", f"{document.num_frames} from {counted(document.num_views, 'view')}"),
    ]
    if document.deletion is not None:
        facts.append(("deletion", f"{document.deletion.score:+.3f}: {_verdict(document.deletion.score)}"))
    facts += [(name, path) for name, path in (("written", document.output), ("maps", document.npz)) if path]
    screen.line((document.path, "bold"))
    print_facts(screen, facts)
    for warning in document.warnings:
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.flush()


def _verdict(deletion_score: float) -> str:
    if abs(deletion_score) < 0.0005:
        return "no difference between hot places and random ones"
    return f"hot places matter {'more' if deletion_score > 0 else 'less'} to the score than random ones"


def print_layers(document: LayerList, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the layers of a model: name, attention, token grid, channels."""
    screen = Screen(stream, width)
    rows = [(row.layer, row.attention, " x ".join(map(str, row.grid)), str(row.channels)) for row in document.layers]
    head = ("layer", "attention", "tokens (t x h x w)", "channels")
    screen.line((document.preset, "bold"))
    screen.table(rows, right=(False, False, False, True), styles=("", "", "", ""), head=head)
    screen.flush()

"""What Grad-CAM found, and the layers that it can look at, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TextIO

from dualformer_cli.outputs.screen import Screen, print_facts
from dualformer_cli.system.words import counted


def print_gradcam(document: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print what `gradcam` found: the class with its score, the layer, the deletion score and the files."""
    screen = Screen(stream, width)
    chosen, grid = document["class"], " x ".join(str(side) for side in document["grid"])
    facts = [
        ("class", f"{chosen['label']} ({chosen['index']}), score {chosen['score']:.3f}"),
        (
            "layer",
            f"{document['layer']} of {document['preset']}, tokens {grid}, gradient of the {document['gradient_of']}",
        ),
        ("frames", f"{document['num_frames']} from {counted(document['num_views'], 'view')}"),
    ]
    if (deletion := document.get("deletion")) is not None:
        facts.append(("deletion", f"{deletion['score']:+.3f}: {_verdict(deletion['score'])}"))
    facts += [(name, document[key]) for name, key in (("written", "output"), ("maps", "npz")) if document.get(key)]
    screen.line((str(document["path"]), "bold"))
    print_facts(screen, facts)
    for warning in document["warnings"]:
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.flush()


def _verdict(deletion_score: float) -> str:
    if abs(deletion_score) < 0.0005:
        return "no difference between hot places and random ones"
    return f"hot places matter {'more' if deletion_score > 0 else 'less'} to the score than random ones"


def print_layers(document: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the layers of a model: name, attention, token grid, channels."""
    screen = Screen(stream, width)
    rows = [
        (row["layer"], row["attention"], " x ".join(map(str, row["grid"])), str(row["channels"]))
        for row in document["layers"]
    ]
    head = ("layer", "attention", "tokens (t x h x w)", "channels")
    screen.line((str(document["preset"]), "bold"))
    screen.table(rows, right=(False, False, False, True), styles=("", "", "", ""), head=head)
    screen.flush()

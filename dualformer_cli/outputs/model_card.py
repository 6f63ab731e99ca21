"""The card and the configuration of a model on the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from dualformer_cli.config.metric_table import METRICS, says_something
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.export import Export, ModelFileFacts
from dualformer_cli.outputs.runs import with_unit

_CARD = """\
---
{data}
---

# {name}

A DualFormer, a local-global stratified video transformer ([arXiv 2112.04674](https://arxiv.org/abs/2112.04674)), that
classifies videos into {num_classes} classes: {classes}.

Exported by dualformer {version} from weights with SHA-256 `{sha256}`.

```
dualformer predict clip.mp4 --weights hf://OWNER/{name}
```

```python
from dualformer_cli import predict

print(predict("clip.mp4", weights="hf://OWNER/{name}").results[0].predictions)
```

## Input

Clips of {frames} frames of {height}x{width} pixels, {frames_chosen}, {views} views a video. From red, green and blue in
grey levels {mean} is subtracted, then they are divided by {std}.

## Evaluation

{evaluation}
"""


def config_json(facts: ModelFileFacts) -> str:
    """Return the content of config.json: what the weights' own metadata say, as JSON."""
    return json.dumps({"library_name": "dualformer", **to_json(facts)}, indent=2, ensure_ascii=False) + "\n"


def model_card(document: Export, facts: ModelFileFacts, evaluation: Mapping[str, Any] | None) -> str:
    """Return the content of README.md.

    Args:
        document: the export.
        facts: of the model.
        evaluation: what `eval --json` printed of the same weights; None says that there are no numbers.
    """
    from huggingface_hub import EvalResult, ModelCardData

    name = Path(document.output).absolute().name  # of the folder, also where it is called "."
    found = evaluation or {}
    shown = [key for key in METRICS if says_something(key, found.get("num_classes"))]
    numbers = {key: found[key] for key in shown if _is_number(found.get(key))}
    data = ModelCardData(
        library_name="dualformer",
        pipeline_tag="video-classification",
        tags=["video-classification", "dualformer"],
        model_name=name,
        eval_results=[
            EvalResult("video-classification", _list_name(evaluation), "video", key, value, METRICS[key].title)
            for key, value in numbers.items()
        ]
        or None,
    )
    names = facts.class_names or ()
    frames, height, width = facts.input_size
    return _CARD.format(
        data=data.to_yaml(),
        name=name,
        num_classes=document.num_classes,
        classes=", ".join(names[:10]) + (", ..." if len(names) > 10 else "") if names else "they have no names",
        version=facts.dualformer,
        sha256=document.weights_sha256,
        frames=frames,
        height=height,
        width=width,
        frames_chosen="one of each equal part of the video"
        if facts.sampling == "segments"
        else f"one every {facts.frame_interval} frames of the video",
        views=f"{facts.num_clips}x{facts.num_crops}",
        mean=list(facts.mean),
        std=list(facts.std),
        evaluation=_table(evaluation, numbers),
    )


def _table(evaluation: Mapping[str, Any] | None, numbers: Mapping[str, float]) -> str:
    """Return the numbers of an evaluation, and what they can be traced to."""
    if evaluation is None:
        return "Not evaluated."
    videos = evaluation["videos"]
    return "\n".join(
        [
            f"{videos['scored']} of {videos['listed']} videos of `{_list_name(evaluation)}` (fingerprint "
            f"`{str(evaluation.get('list_fingerprint'))[:16]}`), {evaluation.get('views')} views, "
            f"{evaluation.get('precision')}, digest of the scores `{evaluation['digest'][:16]}`.",
            "",
            "| | |",
            "|---|---|",
            *(f"| {METRICS[key].title} | {with_unit(key, value)} |" for key, value in numbers.items()),
        ]
    )


def _list_name(evaluation: Mapping[str, Any] | None) -> str:
    """Return the name of the list that was scored, without the folder that it has on this machine."""
    return PurePath(str((evaluation or {}).get("list"))).name


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

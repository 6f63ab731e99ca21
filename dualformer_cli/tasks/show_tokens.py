"""What a model says about each token of a clip, for a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dualformer_cli.data.clips.transforms import Frames, normalize
from dualformer_cli.data.clips.views import VideoViews, read_views
from dualformer_cli.engine.engine import Engine
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.workers import WorkerPool


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMap:
    """The best class of every token of one clip."""

    classes: npt.NDArray[np.int64]
    """Shape (t, h, w)."""
    views: VideoViews
    class_names: Sequence[str]
    title: str
    document: dict[str, Any]
    """{"path", "preset", "weights", "weights_sha256", "head", "grid", "frames", "classes": [{"label", "index",
    "tokens", "percent"}]}."""

    def panels(self, number: int) -> list[tuple[Frames, npt.NDArray[np.int64], str]]:
        """At most `number` moments, evenly spread: (frame (S, S, 3), classes (h, w), caption)."""
        t, fps = len(self.classes), self.views.info.fps
        per_token = self.views.clips.shape[1] // t
        chosen = np.linspace(0, t - 1, min(number, t)).round().astype(int).tolist()
        panels = []
        for token in chosen:
            frame = token * per_token + per_token // 2
            position = int(self.views.indices[0, frame])
            caption = f"frame {position}" + (f", {position / fps:.2f} s" if fps else "")
            panels.append((self.views.clips[0, frame], self.classes[token], caption))
        return panels


def token_map(engine: Engine, path: str, pool: WorkerPool, *, head: str = "auto") -> TokenMap:
    """Score every token of the clip in the middle of a video, cut to the centre of its frames.

    Args:
        engine: the model.
        path: a video file or a folder of numbered frames.
        pool: worker processes that open the file.
        head: classifier, token, or auto, which takes the token head where there is one.

    Raises:
        DualFormerError: if the video cannot be read, or there is no token head.
    """
    model, data = engine.model, engine.config.data
    if head == "token" and model.token_head is None:
        raise DualFormerError(f"{engine.preset} with {engine.weights} weights has no token head; use --head classifier")
    name = "classifier" if head == "classifier" or model.token_head is None else "token"
    layer = model.classifier if model.token_head is None or name == "classifier" else model.token_head
    one_view = replace(data.test, num_clips=1, num_crops=1)
    views = pool.call(partial(read_views, data=data, views=one_view), path).result()
    with torch.inference_mode():
        clips = torch.from_numpy(views.clips).to(engine.device)
        tokens = model.forward_tokens(normalize(clips, data.mean, data.std, model.classifier.weight.dtype))
        classes = layer(tokens)[0].argmax(dim=-1).cpu().numpy()
    counts = Counter(classes.ravel().tolist()).most_common()
    names = engine.class_names
    facts = engine.describe()
    return TokenMap(
        classes=classes,
        views=views,
        class_names=names,
        title=f"{engine.preset}, {engine.weights} weights, {name} head",
        document={
            "path": path,
            **{key: facts[key] for key in ("preset", "weights", "weights_sha256", "device", "precision")},
            "head": name,
            "grid": list(classes.shape),
            "frames": views.indices[0].tolist(),
            "classes": [
                {"label": names[index], "index": index, "tokens": count, "percent": 100 * count / classes.size}
                for index, count in counts
            ],
        },
    )

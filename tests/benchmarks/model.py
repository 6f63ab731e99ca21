"""The whole model, for speed.py: a forward pass, a training step, and all views of a video.

Before any timing, our logits must be close to those of the published architecture run eagerly, which the times are
compared with. In 16 bits that one runs under autocast, as the published mixed-precision runs did, and once more in
float32, which is what it does on a CPU unless told; ours runs with cast weights, as `dualformer predict` does, and
torchvision's models do too. A training step is forward, backward and AdamW, under autocast in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from published_baseline import PublishedDualFormer, pattern_baseline
from timing import (
    DTYPES,
    Deadline,
    Row,
    failure,
    lacks_memory,
    paired_rounds,
    peak_mib,
    random_clips,
    seconds_of,
    speedup,
    timed,
)
from torch import Tensor, nn
from torchvision.models.video import mvit_v2_s, swin3d_t

from dualformer_cli import create_model, load_weights
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.model.dualformer import DualFormer

FP32_TOLERANCE = 1e-4
"""Largest difference of float32 logits, over the largest logit."""
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
OTHERS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "mvit_v2_s": (mvit_v2_s, 16, 5),
    "swin3d_t": (swin3d_t, 32, 12),
}
"""torchvision's models: how they are made, and the frames of a clip and the clips of a video of their published
accuracy; 224x224 pixels, as ours."""


@dataclass(frozen=True)
class Contender:
    """One way to run one model."""

    name: str
    model: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float32
    """Of the clips."""
    autocast_dtype: torch.dtype | None = None
    optimizer: torch.optim.Optimizer | None = None
    """Makes a call a training step."""
    num_frames: int = 32
    is_checked: bool = True
    """Whether its logits are to be those of the published model."""

    def prepare(self, clips: Tensor) -> Tensor:
        """The clips as this model takes them, in the memory layout that it likes."""
        layout = torch.channels_last_3d if self.name.startswith("ours") else torch.contiguous_format
        return clips[:, :, : self.num_frames].to(self.dtype, memory_format=layout, copy=True)

    def __call__(self, clips: Tensor) -> Tensor:
        """Logits of prepared clips, in float32."""
        autocast: AbstractContextManager[object] = nullcontext()
        if self.autocast_dtype is not None:
            autocast = torch.autocast(clips.device.type, self.autocast_dtype)
        if self.optimizer is not None:
            return self._step(clips, autocast, self.optimizer)
        with torch.inference_mode(), autocast:
            return self.model(clips).float()

    def _step(
        self, clips: Tensor, autocast: AbstractContextManager[object], optimizer: torch.optim.Optimizer
    ) -> Tensor:
        with autocast:
            logits = self.model(clips)
        nn.functional.cross_entropy(logits.float(), torch.arange(len(clips), device=clips.device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return logits.detach().float()


@lru_cache(maxsize=1)
def published(size: str, device: torch.device) -> PublishedDualFormer:
    """The baseline in evaluation mode, with the golden files' weights, whose making takes seconds."""
    return pattern_baseline(size).to(device)


@lru_cache(maxsize=1)
def ours(size: str, device: torch.device) -> DualFormer:
    """Our model with the same weights."""
    model = create_model(size)
    load_weights(model, published(size, device).state_dict())
    return model.to(device).eval()


def forward_contenders(size: str, precision: str, device: torch.device, *, compiled: bool) -> list[Contender]:
    """Everything that predicts: the baseline first, in 16 bits the float32 baseline last."""
    dtype = DTYPES[precision]
    autocast_dtype = None if precision == "fp32" else dtype
    baseline = Contender("published", published(size, device), autocast_dtype=autocast_dtype)
    own = Contender("ours", deepcopy(ours(size, device)).to(dtype), dtype=dtype)
    contenders = [baseline, own]
    if compiled:
        modes = {"compiled": "default"} | ({"CUDA graphs": "reduce-overhead"} if device.type == "cuda" else {})
        contenders.append(
            replace(baseline, name="published, compiled", model=torch.compile(baseline.model, dynamic=False))
        )
        for name, mode in modes.items():
            model = torch.compile(own.model, dynamic=False, mode=mode)
            contenders.append(replace(own, name=f"ours, {name}", model=model))
    elif size == "tiny":
        contenders += other_contenders(device, dtype)
    return [*contenders, Contender("published, fp32", baseline.model)] if precision != "fp32" else contenders


def other_contenders(device: torch.device, dtype: torch.dtype) -> list[Contender]:
    """torchvision's models of about the size of tiny, with random weights."""
    return [
        Contender(name, make().to(device, dtype).eval(), dtype=dtype, num_frames=num_frames, is_checked=False)
        for name, (make, num_frames, _) in OTHERS.items()
    ]


def training_contenders(size: str, precision: str, device: torch.device, *, compiled: bool) -> list[Contender]:
    """Everything that trains, each with AdamW; ours with the fused one, as `dualformer train`."""
    checkpointed = deepcopy(ours(size, device))
    checkpointed.set_gradient_checkpointing(True)
    models: dict[str, nn.Module] = {
        "published": deepcopy(published(size, device)),
        "ours": deepcopy(ours(size, device)),
        "ours, checkpointed": checkpointed,
    }
    if compiled:
        models = {name: models[name] for name in ("published", "ours")}
        models |= {f"{name}, compiled": deepcopy(model) for name, model in models.items()}
    elif size == "tiny":
        models |= {name: make().to(device) for name, (make, _, _) in OTHERS.items()}
    contenders = []
    for name, model in models.items():
        optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-5, fused=name.startswith("ours"))
        contenders.append(
            Contender(
                name,
                torch.compile(model, dynamic=False) if name.endswith("compiled") else model,
                autocast_dtype=None if precision == "fp32" else DTYPES[precision],
                optimizer=optimizer,
                num_frames=OTHERS[name][1] if name in OTHERS else 32,
                is_checked=False,
            )
        )
    return contenders


def differences(contenders: list[Contender], clips: Tensor, precision: str) -> tuple[dict[str, float], list[str]]:
    """Each contender's largest difference from the float32 baseline over its largest logit, and those that err.

    In 16 bits a difference may be at most twice the baseline's own.
    """
    exact = replace(contenders[0], autocast_dtype=None)(clips)
    found = {
        c.name: float((c(c.prepare(clips)) - exact).abs().max() / exact.abs().max()) for c in contenders if c.is_checked
    }
    bound = FP32_TOLERANCE if precision == "fp32" else 2 * found["published"]
    return found, [name for name, difference in found.items() if not difference <= bound]


def measure(
    kind: str, size: str, precision: str, batch_size: int, device: torch.device, *, rounds: int, deadline: Deadline
) -> Iterator[Row]:
    """Check, warm up, and time all contenders of one setting.

    Args:
        kind: forward, training, or either with "compiled " before it.
    """
    head: Row = {"kind": kind, "size": size, "precision": precision, "batch_size": batch_size}
    if not deadline.seconds_left():
        yield {**head, "note": "skipped: no time left"}
        return
    try:
        yield from ({**head, **row} for row in _measure(kind, size, precision, batch_size, device, rounds, deadline))
    except Exception as error:  # a long run goes on; the row says so, and what is no lack of memory fails the run
        yield {**head, "note": failure(error, device)}


def _measure(
    kind: str, size: str, precision: str, batch_size: int, device: torch.device, rounds: int, deadline: Deadline
) -> Iterator[Row]:
    compiled, is_training = kind.startswith("compiled"), kind.endswith("training")
    if compiled:
        torch.compiler.reset()
    build = training_contenders if is_training else forward_contenders
    contenders = build(size, precision, device, compiled=compiled)
    clips = random_clips(batch_size, device)
    few = clips if compiled else clips[:1]  # what is compiled is compiled for one batch size
    found, wrong = ({}, []) if is_training else differences(contenders, few, precision)
    runs: dict[str, Callable[[], object]] = {}
    peaks: dict[str, float | None] = {}
    seconds_per_clip = 0.0
    for contender in contenders:
        prepared = contender.prepare(few)
        contender(prepared)
        peaks[contender.name] = peak_mib(lambda run=contender, given=prepared: run(given), device)
        spent = seconds_of(lambda run=contender, given=prepared: run(given), device) / len(few)
        reason = lacks_memory(peaks[contender.name], batch_size, device)
        if reason is None:
            runs[contender.name] = lambda run=contender, given=contender.prepare(clips): run(given)
            seconds_per_clip += spent
        else:
            yield {"contender": contender.name, "note": reason}
    possible = deadline.rounds(rounds, seconds_per_clip * batch_size)
    if not possible:
        yield {"note": f"skipped: a round takes about {seconds_per_clip * batch_size:,.0f} s, which are not left"}
        return
    for name in list(runs):
        try:
            peaks[name] = peak_mib(runs[name], device) if batch_size > 1 else peaks[name]
        except torch.OutOfMemoryError as error:
            del runs[name]
            yield {"contender": name, "note": failure(error, device)}
    seconds = paired_rounds({name: lambda run=run: seconds_of(run, device) for name, run in runs.items()}, possible)
    for name, own in seconds.items():
        row: Row = {"contender": name, **timed(own), "clips_per_second": batch_size / float(np.median(own))}
        for key, other in (("speedup", "published"), ("speedup_over_fp32", "published, fp32")):
            theirs = seconds.get(other, seconds.get("published") if precision == "fp32" else None)
            if theirs is not None and name not in OTHERS:
                row[key] = vars(speedup(theirs, own))
        yield {
            **row,
            "peak_mib": peaks[name],
            "difference": found.get(name),
            **({"note": "failed: not the published model's logits"} if name in wrong else {}),
        }


def measure_video(precision: str, device: torch.device, *, rounds: int, deadline: Deadline) -> Iterator[Row]:
    """Time a whole video, from the uint8 frames of all its views to its scores, with each model's own views."""
    head: Row = {"precision": precision}
    if not deadline.seconds_left():
        yield {**head, "note": "skipped: no time left"}
        return
    dtype, rng = DTYPES[precision], np.random.default_rng(0)

    def frames(num_views: int, num_frames: int) -> np.ndarray:
        return rng.integers(0, 256, (num_views, num_frames, 224, 224, 3), dtype=np.uint8)

    scorer = Scorer(create_model("k400-tiny").to(device, dtype).eval(), mean=MEAN, std=STD)
    runs: dict[str, Callable[[], object]] = {"k400-tiny": lambda views=frames(4, 32): scorer.score(views)}
    num_views = {"k400-tiny": 4}
    for name, (make, num_frames, num_views[name]) in OTHERS.items():
        model = make().to(device, dtype).eval()
        runs[name] = lambda model=model, views=frames(num_views[name], num_frames): _score(model, views, device, dtype)
    spent = sum(seconds_of(run, device) for run in runs.values())
    possible = deadline.rounds(rounds, spent)
    if not possible:
        yield {**head, "note": f"skipped: a round takes about {spent:,.0f} s, which are not left"}
        return
    seconds = paired_rounds({name: lambda run=run: seconds_of(run, device) for name, run in runs.items()}, possible)
    for name, own in seconds.items():
        yield {
            **head,
            "contender": name,
            "views": num_views[name],
            **timed(own),
            "our_speedup": vars(speedup(own, seconds["k400-tiny"])),
        }


def _score(model: nn.Module, views: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Mean scores over views, one at a time on a CPU, as `Scorer` does, and all together on a GPU."""
    with torch.inference_mode():
        parts = torch.from_numpy(views).split(len(views) if device.type == "cuda" else 1)
        clips = (normalize(part.to(device), MEAN, STD, dtype).contiguous() for part in parts)
        return torch.cat([model(clip).float().softmax(-1) for clip in clips]).mean(0).cpu()

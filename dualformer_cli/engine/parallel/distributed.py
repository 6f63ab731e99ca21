"""Where a process computes, and what it shares with the others: device, precision, ranks and sums over them.

torchrun and srun tell every process who it is in environment variables; nobody else reads them. One process is a
world of size 1, in which every sum is the number itself: callers have no branch for it.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import counted

BatchNormMode = Literal["per_rank", "synchronized", "frozen"]

LAUNCHER_PID = "DUALFORMER_LAUNCHER_PID"
"""Environment variable with the process that started this rank and without which it shall not live."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BUCKET_BYTES = 64 * 2**20
_SECONDS_FOR_THE_WATCHER = 3.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """This process among those that work together."""

    rank: int
    """Number of this process among all."""
    local_rank: int
    """Number of this process on this machine."""
    world_size: int
    """Number of processes on all machines."""
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes and prints."""
        return self.rank == 0

    def exit_code(self, code: int) -> int:
        """The code that this process leaves with when the run as a whole ends with `code` (3, 75, ...).

        Rank 0 alone speaks for the run: torchrun takes the first process that leaves with anything but 0 for dead,
        and kills the others at their work.
        """
        return code if self.is_main else 0


class RanksLost(DualFormerError):  # noqa: N818
    """Another process of the run is gone or does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placement:
    """What the environment says about this process."""

    rank: int = 0
    local_rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    is_srun: bool = False


def is_one_of_many(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether torchrun or srun started this process together with others.

    Raises:
        DualFormerError: if their variables contradict each other.
    """
    return _placement(environ).world_size > 1


@contextmanager
def init_ranks(device_name: str, *, timeout: timedelta = timedelta(minutes=30)) -> Iterator[Ranks]:
    """Join the other processes of this run, as torchrun's or srun's variables tell, and leave them at the end.

    Args:
        device_name: auto, cpu, cuda or cuda:INDEX. Of several processes on a machine each takes the GPU of its
            local rank.
        timeout: how long to wait for another process, here and in every later exchange.

    Raises:
        DualFormerError: if there is no such device, the variables contradict each other, or the others do not come.
    """
    _die_with_launcher()
    placement = _placement(os.environ)
    ranks = Ranks(
        rank=placement.rank,
        local_rank=placement.local_rank,
        world_size=placement.world_size,
        device=_device_of(placement, device_name),
    )
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if ranks.world_size == 1:
        yield ranks
        return
    _join(placement, ranks.device, timeout)
    is_done = False
    try:
        yield ranks
        barrier()  # so that no process takes the others' store or connections with it
        is_done = True
    finally:
        if is_done or ranks.device.type == "cpu":  # NCCL would wait here for what the others never send
            dist.destroy_process_group()


def sum_over_ranks(values: _T) -> _T:
    """Add up a tensor or numpy array over all ranks.

    Args:
        values: a Tensor or an ndarray, of one shape and type on every rank; it stays as it is.

    Returns:
        The sum, of the same kind, type and device, bitwise the same on every rank.
    """
    if isinstance(values, np.ndarray):
        total: Any = torch.from_numpy(np.array(values, order="C"))
    elif isinstance(values, Tensor):
        total = values.detach().clone(memory_format=torch.contiguous_format)
    else:
        raise ValueError(f"sum_over_ranks takes a Tensor or an ndarray, got {type(values).__name__}")
    _all_reduce(total, "adding up numbers")
    return total.numpy() if isinstance(values, np.ndarray) else total


def gather_objects(value: _T) -> list[_T]:
    """The values of all ranks in rank order, on every rank; anything that can be pickled."""
    if _world_size() == 1:
        return [value]
    gathered: list[Any] = [None] * _world_size()
    with _in_touch("gathering results"):
        dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: _T) -> _T:
    """Rank 0's value, on every rank; anything that can be pickled."""
    if _world_size() == 1:
        return value
    carrier = [value]
    with _in_touch("hearing from rank 0"):
        dist.broadcast_object_list(carrier, src=0)
    return carrier[0]


def any_rank(flag: bool) -> bool:
    """Whether the flag is up on any rank; the same answer on every rank."""
    flags = torch.tensor([int(flag)])
    _all_reduce(flags, "agreeing on what to do next", dist.ReduceOp.MAX)
    return bool(flags.item())


def barrier() -> None:
    """Wait until every rank is here."""
    any_rank(False)


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all ranks, in place.

    Args:
        parameters: the same ones in the same order on every rank. A gradient that only some ranks have counts as
            zero on the others; one that none has stays None.
    """
    if _world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    has_gradient = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
    _all_reduce(has_gradient, "comparing gradients", dist.ReduceOp.MAX)
    gradients = []
    for parameter, is_needed in zip(trained, has_gradient.tolist(), strict=True):
        if is_needed and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if parameter.grad is not None:
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        _sum_bucket(bucket)


def average_buffers(model: nn.Module) -> None:
    """Give every rank the same buffers: means of floating-point ones (running statistics), maxima of counters."""
    if _world_size() == 1:
        return
    buffers = list(model.buffers())
    floats = [buffer for buffer in buffers if buffer.is_floating_point()]
    counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
    if floats:  # in float64, so that the mean of equal values is that value
        total = torch.cat([buffer.reshape(-1).double() for buffer in floats])
        _all_reduce(total, "averaging running statistics")
        _scatter(total / _world_size(), floats)
    if counters:
        most = torch.cat([buffer.reshape(-1).long() for buffer in counters])
        _all_reduce(most, "averaging running statistics", dist.ReduceOp.MAX)
        _scatter(most, counters)


def convert_batch_norm(model: nn.Module, mode: BatchNormMode) -> nn.Module:
    """Choose which statistics the BatchNorm3d layers of a model train with; names in the state dict stay.

    per_rank: of the rank's own micro-batch, as in the published runs: results depend on how the batch is cut.
    synchronized: of the micro-batches of all ranks together, whatever their sizes. Every rank then runs the same
    number of forward passes, one without samples included (an empty batch).
    frozen: the running statistics, which stay as they are; scale and shift still learn.

    Args:
        model: changed in place; parameters and buffers stay the same tensors.
        mode: one of the three.

    Returns:
        The model; another module only if it is a BatchNorm itself.

    Raises:
        ValueError: if there is no such mode, or frozen layers have no running statistics.
    """
    if mode not in ("per_rank", "synchronized", "frozen"):
        raise ValueError(f"mode must be per_rank, synchronized or frozen, got {mode!r}")
    if isinstance(model, nn.BatchNorm3d):
        return _converted(model, mode)
    for name, child in model.named_children():
        setattr(model, name, convert_batch_norm(child, mode))
    return model


def pick_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda or cuda:INDEX into a device that this machine has; auto takes a GPU when there is one.

    Raises:
        DualFormerError: if there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = counted(count, "CUDA device") if count else "no CUDA device"
            raise DualFormerError(f"device {name!r} is not here: this machine has {found}; use --device auto or cpu")
        device = torch.device("cuda", device.index or 0)
    return device


def pick_precision(name: str, device: torch.device, *, bf16_on_cpu: bool = False) -> str:
    """Turn auto into bf16 on GPUs that have it and fp32 elsewhere; other names come back unchanged.

    Args:
        name: auto, fp32, bf16 or fp16.
        device: where the model runs.
        bf16_on_cpu: take auto for bf16 on a processor that has instructions for it, too.
    """
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_on_cpu and multiplies_bf16() else "fp32"


def multiplies_bf16() -> bool:
    """Whether this processor multiplies matrices faster in bfloat16 than in float32: AVX-512 BF16, or tiles (AMX)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def dtype_of(precision: str) -> torch.dtype:
    """The floating-point type of fp32, bf16 or fp16."""
    return _DTYPES[precision]


class SynchronizedBatchNorm(nn.BatchNorm3d):
    """BatchNorm whose training statistics are those of all ranks' batches together, on CPU and on GPUs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Exchanges stay out of compiled graphs. A decorator would load the compiler, 3 s, with this file.
        self._uncompiled = torch.compiler.disable(SynchronizedBatchNorm._forward_together)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, ...) to (b, c, ...); b may differ between ranks and be 0 on some."""
        if not self.training or _world_size() == 1:
            return super().forward(x)
        return self._uncompiled(self, x)

    def _forward_together(self, x: Tensor) -> Tensor:
        mean, variance, count = _moments_over_ranks(x.detach())
        if self.track_running_stats:
            self._follow(mean, variance, count)
        wide = _wide(x).dtype
        mean, scale = mean.to(wide), torch.rsqrt(variance + self.eps).to(wide)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        return _NormalizeOverRanks.apply(x, weight, bias, mean, scale, count)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics; the variance there is unbiased, and a step without samples moves nothing."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.double() if self.momentum is None else self.momentum
        step = momentum * (count > 0).double()
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.add_((mean - self.running_mean) * step)
        self.running_var.add_((unbiased - self.running_var) * step)


class FrozenBatchNorm(nn.BatchNorm3d):
    """BatchNorm that uses its running statistics in training too, and leaves them as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, ...) to (b, c, ...)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class _NormalizeOverRanks(torch.autograd.Function):
    """(x - mean) * scale * weight + bias, where mean and scale come from the x of all ranks.

    The loss is the sum over ranks, so the gradient of x has terms of every rank's output gradient. Gradients of
    weight and bias are of this rank's samples only, like those of all parameters until `sum_gradients`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, count: Tensor
    ) -> Tensor:
        """Shapes: x (b, c, ...); count (), samples per channel on all ranks; the others (c,)."""
        ctx.save_for_backward(x, weight, mean, scale, count)
        y = (_wide(x) - _along(mean, x)) * _along(scale * weight, x) + _along(bias, x)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias, with one exchange of 2 c numbers."""
        x, weight, mean, scale, count = ctx.saved_tensors
        gradient = _wide(gradients[0])
        normalized = (_wide(x) - _along(mean, x)) * _along(scale, x)
        axes = _axes_but_channels(x)
        sums = torch.stack([gradient.sum(axes), (gradient * normalized).sum(axes)])
        grad_bias, grad_weight = sums.to(weight.dtype).unbind()
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None, None
        total = sums.to(torch.float64, copy=True)
        _all_reduce(total, "exchanging statistics of BatchNorm")
        mean_gradient, mean_product = (total / count.clamp(min=1)).to(sums.dtype).unbind()
        grad_x = gradient - _along(mean_gradient, x) - normalized * _along(mean_product, x)
        grad_x = grad_x * _along(scale * weight, x)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


def _moments_over_ranks(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (c,), biased variance (c,) and number of samples per channel () of all ranks' x (b, c, ...), in float64.

    Each rank sends its mean and squared deviations, which lose less to rounding than sums of squares.
    """
    axes, channels = _axes_but_channels(x), x.shape[1]
    size = x.numel() // max(1, channels)
    own_mean = _wide(x).sum(axes) / max(1, size)
    own_deviation = (_wide(x) - _along(own_mean, x)).square().sum(axes)
    own = torch.cat([own_mean.double(), own_deviation.double(), own_mean.new_full((1,), size).double()])
    rows = [torch.empty_like(own) for _ in range(_world_size())]
    with _in_touch("exchanging statistics of BatchNorm"):
        dist.all_gather(rows, own)
    means, deviations, sizes = torch.stack(rows).split([channels, channels, 1], dim=1)
    count = sizes.sum()
    mean = (means * sizes).sum(0) / count.clamp(min=1)
    deviation = deviations.sum(0) + (sizes * (means - mean).square()).sum(0)
    return mean, deviation / count.clamp(min=1), count


def _wide(x: Tensor) -> Tensor:
    """In float32 at least, where sums are taken."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _axes_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _along(values: Tensor, x: Tensor) -> Tensor:
    """(c,) to (c, 1, ...), which broadcasts along the channels of x (b, c, ...)."""
    return values.view(-1, *[1] * (x.dim() - 2))


def _converted(layer: nn.BatchNorm3d, mode: BatchNormMode) -> nn.BatchNorm3d:
    if mode == "frozen" and layer.running_mean is None:
        raise ValueError("a BatchNorm without running statistics cannot be frozen")
    wanted = {"per_rank": nn.BatchNorm3d, "synchronized": SynchronizedBatchNorm, "frozen": FrozenBatchNorm}[mode]
    if type(layer) is wanted:
        return layer
    new = wanted(
        layer.num_features,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
        device="meta",
    )
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    new.training = layer.training
    return new


def _world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _all_reduce(values: Tensor, doing: str, operation: Any = dist.ReduceOp.SUM) -> None:
    if _world_size() > 1:
        with _in_touch(doing):
            dist.all_reduce(values, op=operation)


@contextmanager
def _in_touch(doing: str) -> Iterator[None]:
    """Turn the many ways in which an exchange ends when another process is gone into one error."""
    try:
        yield
    except RuntimeError as error:
        rank, world_size = dist.get_rank(), dist.get_world_size()
        _let_the_watcher_act()
        raise RanksLost(
            f"rank {rank} of {world_size} lost the other ranks while {doing}: {_first_sentence(error)}; "
            "the message of the rank that failed first says why"
        ) from error


def _let_the_watcher_act() -> None:
    """Give torchrun's agent the time to notice who died first, before this process looks dead as well.

    Without the others no state can be agreed and saved: SIGTERM, which the agent sends, ends this process at once.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    with suppress(ValueError):  # only the main thread can, and a backward pass on a GPU has its own
        signal.signal(signal.SIGTERM, leave)
    time.sleep(_SECONDS_FOR_THE_WATCHER)


def _first_sentence(error: Exception) -> str:
    """What the library says, without the place in its source that it says it from."""
    text = re.sub(r"^\[[^\]]*:\d+\]\s*", "", str(error).strip())
    return re.split(r"\.?\s*\n|\. ", text)[0].rstrip(".") or type(error).__name__


def _buckets(tensors: list[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list into runs of one type and device and of a bounded size, in order."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        is_other = bucket and (tensor.dtype, tensor.device) != (bucket[0].dtype, bucket[0].device)
        if bucket and (is_other or size + tensor.nbytes > _BUCKET_BYTES):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.nbytes
    if bucket:
        yield bucket


def _sum_bucket(gradients: list[Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    _all_reduce(flat, "adding up gradients")
    _scatter(flat, gradients)


@torch.no_grad()
def _scatter(flat: Tensor, tensors: list[Tensor]) -> None:
    """Copy a flat tensor back into the tensors that it was made of."""
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def _placement(environ: Mapping[str, str]) -> _Placement:
    """Read torchrun's variables, else srun's.

    Raises:
        DualFormerError: if a variable is missing or contradicts another one.
    """
    if "RANK" in environ:
        placement = _Placement(
            rank=_integer(environ, "RANK"),
            local_rank=_integer(environ, "LOCAL_RANK", 0),
            world_size=_integer(environ, "WORLD_SIZE"),
            local_world_size=_integer(environ, "LOCAL_WORLD_SIZE", 1),
        )
    elif "SLURM_PROCID" in environ and "MASTER_ADDR" in environ:
        placement = _srun_placement(environ)
    elif _integer(environ, "SLURM_STEP_NUM_TASKS", 1) > 1:
        raise DualFormerError(
            f"srun started {environ['SLURM_STEP_NUM_TASKS']} tasks, but MASTER_ADDR is not set; before srun, "
            'export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
        )
    else:
        placement = _Placement()
    if not 0 <= placement.rank < placement.world_size:
        raise DualFormerError(
            f"rank must be between 0 and {placement.world_size - 1} in a world of {placement.world_size} processes, "
            f"got {placement.rank}; see RANK and WORLD_SIZE, or SLURM_PROCID and SLURM_NTASKS, in the environment"
        )
    return placement


def _srun_placement(environ: Mapping[str, str]) -> _Placement:
    def first_set(*names: str) -> str:
        return next((name for name in names if name in environ), names[0])

    tasks_per_node = environ.get(first_set("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"), "1")
    node = _integer(environ, "SLURM_NODEID", 0)
    tasks = [
        int(count)
        for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks_per_node)
        for _ in range(int(times or 1))
    ]
    return _Placement(
        rank=_integer(environ, "SLURM_PROCID"),
        local_rank=_integer(environ, "SLURM_LOCALID", 0),
        world_size=_integer(environ, first_set("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")),
        local_world_size=tasks[node] if node < len(tasks) else 1,
        is_srun=True,
    )


def _integer(environ: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environ.get(name)
    if text is None and default is not None:
        return default
    if text is None or not re.fullmatch(r"\s*[0-9]+\s*", text):
        found = "is not set" if text is None else f"is {text!r}"
        raise DualFormerError(f"environment variable {name} must be a whole number, but {found}; start with torchrun")
    return int(text)


def _device_of(placement: _Placement, name: str) -> torch.device:
    """The device of this process: among others, the GPU with its local rank.

    Raises:
        DualFormerError: if there are not enough GPUs, or several processes were given one by its number.
    """
    if placement.world_size == 1 or name == "cpu" or not torch.cuda.is_available():
        return pick_device(name)
    if name not in ("auto", "cuda"):
        if placement.local_world_size > 1:
            raise DualFormerError(
                f"device {name!r} is one GPU for {placement.local_world_size} processes on this machine; "
                "use --device cuda, and each takes its own"
            )
        return pick_device(name)
    count = torch.cuda.device_count()
    if placement.is_srun and count == 1:  # --gpus-per-task hides the other tasks' GPUs
        return torch.device("cuda", 0)
    if placement.local_rank >= count:
        raise DualFormerError(
            f"{max(placement.local_world_size, placement.local_rank + 1)} processes on this machine need a GPU each, "
            f"it has {count}; start {count}, or use --device cpu"
        )
    return torch.device("cuda", placement.local_rank)


def _join(placement: _Placement, device: torch.device, timeout: timedelta) -> None:
    """Connect all processes; small things go through Gloo, tensors on GPUs through NCCL.

    Raises:
        DualFormerError: if the others cannot be reached in time.
    """
    if placement.is_srun:  # two jobs on one machine must not meet
        os.environ.setdefault("MASTER_PORT", str(20000 + _integer(os.environ, "SLURM_JOB_ID", 0) % 10000))
    if placement.local_world_size == placement.world_size and sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # works also where the machine's own name does not resolve
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, rank=placement.rank, world_size=placement.world_size, timeout=timeout)
    except (RuntimeError, ValueError) as error:
        address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
        raise DualFormerError(
            f"rank {placement.rank} of {placement.world_size} could not join the others at {address}: "
            f"{_first_sentence(error)}; check that all of them run and that MASTER_ADDR and MASTER_PORT can be reached"
        ) from error


def _die_with_launcher() -> None:
    """Have the kernel end this process when the one that started it ends, however that happens (Linux).

    Raises:
        DualFormerError: if it is gone already.
    """
    pid = os.environ.pop(LAUNCHER_PID, None)
    if pid is None or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
    if os.getppid() != int(pid):
        raise DualFormerError(f"process {pid}, which started this rank, is gone")

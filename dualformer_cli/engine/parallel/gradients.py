"""Gradients are added up over the ranks while the backward pass computes those of earlier layers.

`training/step.py` divides the loss by the clips of all ranks, so that their sum is the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from dualformer_cli.engine.parallel.reductions import begin_sum, end_sum, scatter_flat, world_size

_BUCKET_BYTES = 25 * 2**20
_DOING = "adding up gradients"


class GradientSums:
    """Adds up the gradients of all ranks, several at a time, as soon as the backward pass has them.

    Of three ranks, the last digit of a sum depends on its place in the exchange: libraries add up in a ring, every part
    from another rank on. So buckets follow from the parameters that have a gradient on any rank in this step, and from
    nothing before it: a run that resumes has the same sums. A backward pass expects those of the last step; where that
    turns out wrong, or there was none, all gradients are exchanged after it.

    Args:
        parameters: in the order in which a forward pass uses them, the same on all ranks.
    """

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad][::-1]
        self._plan: list[list[Tensor]] = []
        """Parameters of each bucket, the last layers first, as they were in the last step."""
        self._bucket_of: dict[Tensor, int] = {}
        self._missing: list[int] = []
        """Gradients of each bucket that the backward pass still owes; empty but in one that is followed."""
        self._sent: list[tuple[Tensor, dist.Work]] = []
        """Buckets on their way, each as one tensor."""
        if world_size() > 1:
            for parameter in self._parameters:
                parameter.register_post_accumulate_grad_hook(self._arrived)

    def follow(self) -> None:
        """Send gradients on as the backward pass that comes now, the last one of the step, has them."""
        self._missing = [len(bucket) for bucket in self._plan]

    def send_rest(self) -> None:
        """Send on what no backward pass of this rank has; all ranks call it after their passes."""
        self._missing = []
        self._send(len(self._plan))

    def present(self) -> Tensor:
        """Return which gradients this rank has, as numbers that ranks can add up."""
        return torch.tensor([parameter.grad is not None for parameter in self._parameters], dtype=torch.float64)

    def finish(self, num_ranks: Tensor) -> None:
        """Wait for the sums, and put them in the place of the gradients.

        Args:
            num_ranks: the sum of what `present` says on all ranks. A gradient that only some have counts as zero on the
                others, and one that none has stays None.
        """
        if world_size() == 1:
            return
        needed = [each for each, ranks in zip(self._parameters, num_ranks.tolist(), strict=True) if ranks]
        if self._bucket_of.keys() != set(needed):
            list(self._sums())  # which are of no use
            self._plan = list(_buckets(needed))
            self._bucket_of = {each: number for number, bucket in enumerate(self._plan) for each in bucket}
            self._send(len(self._plan))
        for bucket, sums in zip(self._plan, self._sums(), strict=True):
            for parameter in bucket:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
            scatter_flat(sums, [each.grad for each in bucket if each.grad is not None])

    def _arrived(self, parameter: Tensor) -> None:
        """Count a gradient that is complete on this rank, and send on the buckets that are, in their order."""
        number = self._bucket_of.get(parameter)
        if not self._missing or number is None:
            return
        self._missing[number] -= 1
        assert self._missing[number] >= 0, "a backward pass completes a gradient once"
        self._send(next((n for n, missing in enumerate(self._missing) if missing), len(self._missing)))

    def _send(self, end: int) -> None:
        """Send on the buckets before this one that have not been sent yet."""
        for bucket in self._plan[len(self._sent) : end]:
            gradients = (torch.zeros_like(each) if each.grad is None else each.grad for each in bucket)
            flat = torch.cat([gradient.detach().reshape(-1) for gradient in gradients])
            self._sent.append((flat, begin_sum(flat, _DOING)))

    def _sums(self) -> Iterator[Tensor]:
        """Wait for what is on its way, bucket by bucket."""
        while self._sent:
            flat, work = self._sent.pop(0)
            end_sum(flat, work, _DOING)
            yield flat


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

"""Whether all ranks have the same weights, which every sum of their gradients takes for granted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

from dualformer_cli.engine.parallel.reductions import gather_objects
from dualformer_cli.errors import DualFormerError


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of named tensors, in hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def digest_of_all_ranks(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of tensors that are the same on every rank.

    Raises:
        DualFormerError: if they are not, naming the first rank that differs.
    """
    digests = gather_objects(digest_of(tensors))
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise DualFormerError(
                f"the weights of rank {rank} are not those of rank 0 ({digest[:8]} and {digests[0][:8]}): the ranks do "
                "not work on one run; give all of them the same --output, weights and settings"
            )
    return digests[0]

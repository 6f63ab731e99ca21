"""The card that decodes videos where the configuration asks for one: chosen and tried before any work."""

from __future__ import annotations

import logging
import os

from dualformer_cli.config.schema import Decoder
from dualformer_cli.engine.parallel.placement import read_placement
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.video.sample import sample_clip

_LOGGER = logging.getLogger(__name__)


def use_decoding_card(decoder: Decoder, device: str) -> None:
    """Have the worker processes that start from now on decode on this process's card, and say how exact that is.

    Does nothing for decoders that need no card.

    Args:
        decoder: that the configuration names.
        device: where the model runs, as the configuration names it; beside a model on a processor, cuda:0 decodes.

    Raises:
        DualFormerError: if there is no card, or it cannot decode the sample clip.
    """
    if decoder != "torchcodec-cuda":
        return
    import torch

    from dualformer_cli.engine.parallel.devices import device_of
    from dualformer_cli.video.torchcodec_cuda_reader import CARD_VARIABLE, difference_from_exact

    if not torch.cuda.is_available():
        raise DualFormerError(
            f"data.decoder {decoder!r} decodes on an NVIDIA card, and torch finds none; use --set data.decoder=auto"
        )
    placement = read_placement(os.environ)
    chosen = device_of(placement, device)
    os.environ[CARD_VARIABLE] = str(chosen) if chosen.type == "cuda" else "cuda:0"
    try:
        mean, most = difference_from_exact(str(sample_clip()))
    except VideoError as error:
        raise DualFormerError(f"data.decoder {decoder!r} does not work on this machine: {error.reason}") from error
    if placement.rank == 0:
        _LOGGER.warning(
            "data.decoder %s: frames of the sample clip differ by %.2f of 255 grey levels from the exact ones, at most "
            "by %d",
            decoder,
            mean,
            most,
        )

"""Names of the published checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

_CHANGES = (
    (r"^stages\.(\d+)\.blocks\.(\d+)\.", r"backbone.blocks.\1.\2."),
    (r"^stages\.(\d+)\.patch_embed\.", r"backbone.patch_embeds.\1."),
    (r"^stages\.(\d+)\.position\.", r"backbone.pos_block.\1.proj.0."),
    (r"\.attention\.pool\.fine\.", ".attn.sr."),
    (r"\.attention\.pool\.coarse_conv\.", ".attn.lr.0."),
    (r"\.attention\.pool\.coarse_norm\.", ".attn.lr.1."),
    (r"\.attention\.pool\.coarse_pool\.", ".attn.lr.3."),
    (r"\.attention\.pool\.norm\.", ".attn.norm."),
    (r"\.attention\.", ".attn."),
    (r"^norm\.", "backbone.norm."),
    (r"^classifier\.", "cls_head.fc_cls."),
    (r"^token_head\.", "cls_head.token_linear."),
)


def published_key(key: str) -> str:
    """Return the published name of one of our tensors."""
    for pattern, name in _CHANGES:
        key = re.sub(pattern, name, key)
    return key


def to_published(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a model's tensors to the published layout."""
    return {published_key(key): value for key, value in state_dict.items()}

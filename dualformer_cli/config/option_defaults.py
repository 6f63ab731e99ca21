"""What an option of the command line is where it is not given, unless it is a setting, which `schema.py` has.

The commands, the requests of `tasks` and the Python functions all take it from here. Opening it loads nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

TOP_K = 5
"""Labels that predict shows of a video."""
LIVE_SECONDS = 2.0
"""How often it classifies a camera or stream."""

GRADCAM_LAYER = "last"
ScoreKind = Literal["logit", "probability"]
GRADCAM_SCORE: ScoreKind = "logit"
"""What its gradient is of."""
GRADCAM_FPS = 10.0
"""Frames per second of its GIF or video."""
GRADCAM_ALPHA = 0.5
"""Share of the heat's colours in the picture, 0 to 1."""
Colormap = Literal["magma", "viridis", "turbo", "gray"]
GRADCAM_COLORMAP: Colormap = "magma"
"""Colours of the heat."""

TRAIN_OUTPUT = Path("runs/train")

TOKENS_OUT = Path("tokens.png")
TOKENS_MOMENTS = 8
"""Moments of a clip that tokenlabel show draws."""
TOKEN_LABELS_OUTPUT = Path("token-labels")
VIDEOS_PER_SHARD = 64
"""Videos whose token labels share a file."""

DECODE_TIMEOUT_SECONDS = 20.0
"""prepare gives up a video on which the decoder makes no progress for so long; so does data.decode_timeout_seconds."""
CLASS_DEPTH = 1
"""Levels of a folder of videos that make a class's name."""
SPLIT_SHARES = "0.8/0.2"
"""Train and val of videos that nothing puts into a split."""
CONVERTED_SHORT_SIDE = 256
"""Pixels to which prepare shrinks larger videos."""
TRANSCODE_CRF = 23
JPEG_QUALITY = 95

RENDERED_CLIPS = 10_000
"""Clips of camera-motion, all splits together."""
RENDERED_FRAMES = 32
"""Frames of such a clip."""
RENDERED_DIFFICULTY = 1.0
RENDERED_BUSY = 0.0

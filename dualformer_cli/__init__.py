"""DualFormer video classification: the Python door to the same engine that the `dualformer` command uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualformer_cli.tasks.python import create_model as create_model
    from dualformer_cli.tasks.python import evaluate as evaluate
    from dualformer_cli.tasks.python import gradcam as gradcam
    from dualformer_cli.tasks.python import load_weights as load_weights
    from dualformer_cli.tasks.python import predict as predict
    from dualformer_cli.tasks.python import train as train

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "evaluate", "gradcam", "load_weights", "predict", "train"]

# Before torch loads: an OpenMP thread that waits sleeps after some 30 microseconds. Turning in circles for 5
# milliseconds, as it does otherwise, it takes a core from threads that compute alone and from processes that decode.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# In a checkout, kernels/ and presets/ sit beside this folder, not in it; a wheel installs them inside.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """Load the Python interface on first use, so that `dualformer --help` never imports torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dualformer_cli.tasks import python

    return getattr(python, name)


def __dir__() -> list[str]:
    """Return all names, those that nobody has used yet included, for completion."""
    return sorted({*globals(), *__all__})

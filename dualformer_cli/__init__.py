"""DualFormer video classification: the Python door to the same engine that the `dualformer` command uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualformer_cli.engine.build import create_model as create_model
    from dualformer_cli.model.weights import load_weights as load_weights

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "load_weights"]

# In a checkout, kernels/ and presets/ sit beside this folder, not in it; a wheel installs them inside.
_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))


def __getattr__(name: str) -> Any:
    """Load the Python interface on first use, so that `dualformer --help` never imports torch."""
    if name == "create_model":
        from dualformer_cli.engine.build import create_model

        return create_model
    if name == "load_weights":
        from dualformer_cli.model.weights import load_weights

        return load_weights
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

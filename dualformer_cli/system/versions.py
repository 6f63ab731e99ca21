"""Versions that numbers depend on."""

from __future__ import annotations

import platform
import sys

from dualformer_cli import __version__


def version_of(package: str) -> str:
    """Return the version of a package as it is loaded, else as it is installed; "python" counts as one."""
    known = {"dualformer": __version__, "python": platform.python_version()}
    if package in known:
        return known[package]
    if loaded := getattr(sys.modules.get(package), "__version__", None):
        return str(loaded)  # of torch it says which CUDA, which the installer may not know
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def versions(*packages: str) -> dict[str, str]:
    """Return the version of each package, under its name."""
    return {package: version_of(package) for package in packages}

"""Python, PyTorch and the C compiler."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from ...schemas.errors import MissingError
from ..host.build import compiler
from ..recorder.build import compiler as cxx_compiler
from .examination import Finding

TESTED_TORCH = ("2.11", "2.13")
"""Releases of PyTorch on which the hooks were tested."""


def findings() -> Iterator[Finding]:
    """Return what the software here allows."""
    fits = sys.version_info >= (3, 11)
    remedy = "" if fits else "use Python 3.11 or newer"
    yield Finding("Python", "ok" if fits else "gap", platform.python_version(), remedy)
    yield _torch()
    yield _compiler()
    yield _cxx_compiler()


def _torch() -> Finding:
    tested = " and ".join(TESTED_TORCH)
    try:
        found = version("torch")
    except PackageNotFoundError:
        return Finding(
            "PyTorch", "absent", "not installed", "for `capture run`: pip install 'eidola-sim[capture]'"
        )
    release = ".".join(found.split("+")[0].split(".")[:2])
    if release in TESTED_TORCH:
        return Finding("PyTorch", "ok", f"{found}, tested")
    remedy = f"should work; tested with {tested}: on trouble use one of these"
    return Finding("PyTorch", "gap", f"{found}, not tested", remedy)


def _compiler() -> Finding:
    try:
        path, line = compiler()
    except MissingError as error:
        return Finding("C compiler", "absent", "none found", str(error))
    return Finding("C compiler", "ok", f"{path}: {line}")


def _cxx_compiler() -> Finding:
    try:
        return Finding("C++ compiler", "ok", cxx_compiler())
    except MissingError as error:
        return Finding("C++ compiler", "gap", "none found", str(error))

"""A fabric from a TOML file."""

from pathlib import Path

from ..schemas import InputError
from .fabric import Fabric


def load(path: Path | str) -> Fabric:
    """Read a fabric. Raises InputError."""
    raise InputError(f"{path}: not yet")

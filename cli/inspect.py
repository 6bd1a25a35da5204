"""`eidola inspect`: what a trace or a run holds."""

from pathlib import Path


def inspect(path: Path) -> None:
    """Print what a trace or a run holds."""

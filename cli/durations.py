"""Durations on the command line."""

from ..schemas.durations import parse_ps

__all__ = ["parse_ps", "us"]


def us(duration_ps: float) -> str:
    """Return picoseconds as microseconds with thousands separators."""
    return f"{round(duration_ps / 1e6, 3) + 0.0:,.3f}"  # + 0.0: no minus before a zero

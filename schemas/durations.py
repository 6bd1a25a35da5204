"""Durations as people write them: a number with its unit."""

import re
from decimal import Decimal

from .errors import UsageError

_UNITS_PS = {"ps": 1, "ns": 10**3, "us": 10**6, "ms": 10**9, "s": 10**12}
_PATTERN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ps|ns|us|ms|s)\s*")


def parse_ps(text: str, option: str) -> int:
    """Return `100ns`, `1.5us`, ... in picoseconds; raises UsageError, naming `option`, for anything else."""
    found = _PATTERN.fullmatch(text)
    if not found:
        raise UsageError(f"{option} {text}: give a number and a unit (ps, ns, us, ms, s), such as 100ns")
    value = Decimal(found[1]) * _UNITS_PS[found[2]]
    if value != value.to_integral_value():
        raise UsageError(f"{option} {text}: replay counts whole picoseconds; give a multiple of 1ps")
    return int(value)


def text_ps(duration_ps: int) -> str:
    """Return picoseconds in the largest unit of which they are a whole number, as `parse_ps` reads them."""
    units = ((name, size) for name, size in reversed(_UNITS_PS.items()) if duration_ps % size == 0)
    name, size = next(units) if duration_ps else ("ns", 1)
    return f"{duration_ps // size}{name}"

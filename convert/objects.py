"""Events that a JSON parser read, of whatever types, in the columns that the scanner gives."""

from decimal import Decimal, InvalidOperation
from typing import Any

import numpy as np

from .scanner import BACKENDS, CATEGORIES, COLUMNS, INTEGERS, NULL, OPERATOR, RECORD, Scanned, first_number

_LIMIT_US = Decimal(2**63 // 1000)


def columns_of(events: list[dict[str, Any]]) -> Scanned:
    """Return `events` as if they had been scanned; what does not fit its column is NULL."""
    texts: dict[str, int] = {}
    rows = np.full((len(COLUMNS), len(events)), NULL)
    for i, event in enumerate(events):
        for name, value in _row(event, texts).items():
            if value is not None:
                rows[COLUMNS.index(name), i] = value
    return Scanned(dict(zip(COLUMNS, rows, strict=True)), list(texts))


def _row(event: dict[str, Any], texts: dict[str, int]) -> dict[str, int | None]:
    args = event.get("args")
    args = args if isinstance(args, dict) else {}
    name, category = (str(event[key]) if key in event else None for key in ("name", "cat"))
    recorded = name is not None and (name == RECORD or name.startswith(BACKENDS))
    kind = CATEGORIES.get(category or "", -1)
    tid = event.get("tid")
    grid = args.get("grid")
    numbers = [integer(n) for n in grid] if isinstance(grid, list) else []
    phase = str(event.get("ph", ""))
    return {
        "phase": ord(phase) if len(phase) == 1 else 0,
        "category": _intern(category, texts),
        "kind": -1 if kind == OPERATOR and not recorded else kind,
        "name": _intern(name, texts),
        "start_ns": _nanoseconds(event.get("ts")),
        "duration_ns": _nanoseconds(event.get("dur")),
        "pid": integer(event.get("pid")),
        "tid": None if isinstance(tid, str) else integer(tid),
        "tid_number": first_number(tid) if isinstance(tid, str) else None,
        **{column: integer(args.get(key)) for column, key in INTEGERS.items()},
        "grid_x": numbers[0] if numbers and None not in numbers else None,
        "described": int("Collective name" in args or recorded),
    }


def _intern(text: str | None, texts: dict[str, int]) -> int | None:
    if text is None:
        return None
    text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text
    return texts.setdefault(text, len(texts))


def integer(value: Any) -> int | None:
    """Return an integer of 64 bits, given as a number or its digits; None for anything else."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) < number < 2**63 else None


def _nanoseconds(value: Any) -> int | None:
    """Return a time in microseconds, given as a number or a string of digits, cut to whole nanoseconds."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) >= _LIMIT_US:
        return None
    return int(number * 1000)

"""What a run's summary says, as facts for the head of the page."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from .text import size_text, time_text

_FIRST = ("fabric", "mode", "wait", "engine", "law", "captured")  # shown first, where they are there
_APART = {"extrapolated", "flag_reads", "gpus", "gpus_a_box", "makespan_ps"}  # said elsewhere
_UNLESS_ZERO = {"buffer_bytes", "stalled"}  # where 0 says that there is none of it
_MOST = 18
_NO_RATES = ("virtual", "timesliced", "host")  # backends that are no truth for rates and delays


def facts(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of what `given` says in single values, the most telling first."""
    flat = dict(_flat(given))
    order = sorted(
        flat, key=lambda key: next((at for at, word in enumerate(_FIRST) if key.startswith(word)), 99)
    )
    said = [key for key in order if flat[key] not in (None, "") and (key not in _UNLESS_ZERO or flat[key])]
    return [_fact(key, flat[key]) for key in said][:_MOST]


def _flat(given: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield single values; those of a nested mapping under `outer inner`, one level deep."""
    for key, value in given.items():
        if not prefix and key in _APART:
            continue
        if isinstance(value, Mapping) and not prefix:
            yield from _flat(value, f"{key} ")
        elif isinstance(value, str | int | float):
            yield prefix + key, value


def _fact(key: str, value: Any) -> tuple[str, str]:
    name = key.replace("_", " ")
    if isinstance(value, bool):
        return name, "yes" if value else "no"
    if isinstance(value, str):
        return name, f"{value[:16]}…" if key == "results_hash" else value
    if key.endswith("_ps"):
        return name[:-3], time_text(value)
    if key.endswith("_ns"):
        return name[:-3], time_text(1000 * value)
    if key.endswith("_bytes"):
        return name[:-6], size_text(value)
    return name, f"{value:,}" if isinstance(value, int) and key != "seed" else str(value)


def backend_warning(backends: Iterable[str]) -> list[str]:
    """Warn where ranks ran on what is no GPU of their own."""
    found = sorted(set(backends) & set(_NO_RATES))
    if not found:
        return []
    return [
        f"Captured on backend {', '.join(found)}: truth for order, sizes, counts and protocol, not for link "
        "rates or flag delays."
    ]


def warnings(given: Mapping[str, Any]) -> list[str]:
    """Return what a reader of a run must know: what was extrapolated, and captures that are no truth for rates."""
    found = backend_warning(_backends(given))
    extrapolated = given.get("extrapolated")
    if extrapolated:
        items = [extrapolated] if isinstance(extrapolated, str | Mapping) else list(extrapolated)
        texts = [item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in items]
        found.append(f"Extrapolated: {'; '.join(texts)}")
    return found


def _backends(given: Mapping[str, Any]) -> list[str]:
    value = given.get("backends", given.get("backend", []))
    return [value] if isinstance(value, str) else [str(item) for item in value]

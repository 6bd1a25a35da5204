"""Patterns from a TOML file.

    gpus = 16
    poll_ns = 100                  # optional, as are jitter_ns and seed

    [[pattern]]
    kind = "poisson"               # uniform, poisson, incast, permutation
    gpus = "0-7"                   # who sends; default: all
    peers = [8, 9]                 # whom to; default: all ("uniform"), of incast GPU 0
    rate_per_s = 1e6               # or load = 0.5 with link_mb_per_s = 50000
    size_bytes = [4096, 65536]     # one, or a list from which each message draws
    messages = 1000                # or duration_ns
    flags = "each"                 # last (default), each, none

Also start_ns, and of permutation shift.
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...schemas import InputError, UsageError
from . import patterns
from .patterns import Pattern, Patterns, rate_per_s

KINDS: Mapping[str, Callable[..., Pattern]] = {
    name: getattr(patterns, name) for name in ("uniform", "poisson", "incast", "permutation")
}
_TOP = {"gpus": int, "seed": int, "poll_ns": int, "jitter_ns": int}
_NUMBERS = {"messages": int, "duration_ns": int, "start_ns": int, "rate_per_s": float, "flags": str}
_LOAD = ("load", "link_mb_per_s")
_SPECIAL = ("kind", "gpus", "peers", "size_bytes", "shift", *_LOAD)


def read_patterns(path: str | Path, **overrides: int) -> Patterns:
    """Return the patterns of a TOML file; `overrides` (gpus, seed, poll_ns, jitter_ns) replace its own keys.

    Raises InputError, naming the file, the key and the remedy.
    """
    path = Path(path)
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}; give a TOML file of patterns, see docs/generate.md") from error
    tables = data.pop("pattern", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InputError(f"{path}: no [[pattern]]; write at least one")
    options = {**_typed(str(path), data, _TOP), **overrides}
    if "gpus" not in options:
        raise InputError(f"{path}: gpus is missing; give how many GPUs there are, or pass --gpus")
    found = tuple(_pattern(f"{path}, pattern {i}", table) for i, table in enumerate(tables, start=1))
    for number, pattern in enumerate(found, start=1):
        try:
            pattern.check(options["gpus"])
        except UsageError as error:
            raise InputError(f"{path}, pattern {number}: {error}") from error
    return Patterns(patterns=found, **options)


def _pattern(where: str, table: dict[str, Any]) -> Pattern:
    kind = str(table.get("kind", ""))
    if kind not in KINDS:
        raise InputError(f"{where}: kind is {kind!r}; choose {', '.join(KINDS)}")
    special = {name: table[name] for name in _SPECIAL if name in table}
    if "shift" in special and kind != "permutation":
        raise InputError(f"{where}: shift belongs to kind permutation; leave it out")
    options = _typed(where, {k: v for k, v in table.items() if k not in special}, _NUMBERS)
    sizes = special.get("size_bytes", Pattern().size_bytes[0])
    options["size_bytes"] = _list(where, "size_bytes", sizes)
    options |= {"senders": gpu_list(where, "gpus", special["gpus"])} if "gpus" in special else {}
    if special.get("peers", "uniform") != "uniform":
        options["peers"] = gpu_list(where, "peers", special["peers"])
    options |= _typed(where, {k: v for k, v in special.items() if k == "shift"}, {"shift": int})
    options |= _rate(where, special, options)
    return KINDS[kind](**options)


def _rate(where: str, special: dict[str, Any], options: dict[str, Any]) -> dict[str, float]:
    """Return the rate that a load means, where one is given."""
    given: dict[str, Any] = {name: special[name] for name in _LOAD if name in special}
    if not given:
        return {}
    if len(given) < 2 or "rate_per_s" in options:
        raise InputError(f"{where}: give load and link_mb_per_s together, and then no rate_per_s")
    typed = _typed(where, given, {"load": float, "link_mb_per_s": int})
    try:
        return {"rate_per_s": rate_per_s(typed["load"], typed["link_mb_per_s"], options["size_bytes"])}
    except UsageError as error:
        raise InputError(f"{where}: {error}") from error


def _typed(where: str, data: dict[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    """Return `data`, all of whose keys are known and of their type; an integer may stand for a float."""
    for key, value in data.items():
        if key not in types:
            known = ", ".join(types if types is not _NUMBERS else (*_SPECIAL, *types))
            raise InputError(f"{where}: unknown key {key}; known are {known}")
        allowed = (int, float) if types[key] is float else types[key]
        if isinstance(value, bool) or not isinstance(value, allowed):
            raise InputError(f"{where}: {key} is {value!r}; give a value of type {types[key].__name__}")
    return data


def _list(where: str, key: str, value: Any) -> tuple[int, ...]:
    """Return one integer, or a list of them, as a tuple."""
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in values):
        raise InputError(f"{where}: {key} is {value!r}; give a whole number from 0, or a list of them")
    return tuple(values)


def gpu_list(where: str, key: str, value: Any) -> tuple[int, ...]:
    """Return the GPUs of `"0-3,8"`, or of a list. Raises InputError, naming `where` and `key`."""
    if not isinstance(value, str):
        return _list(where, key, value)
    gpus: list[int] = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(end.isascii() and end.isdigit() for end in ends) or int(ends[0]) > int(ends[1]):
            raise InputError(f'{where}: {key} is {value!r}; give GPUs such as "0-3,8"')
        gpus += range(int(ends[0]), int(ends[1]) + 1)
    return tuple(gpus)

"""Links of a fabric that differ from what made them: `[[override]]` of a fabric's TOML file."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import translate
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas import InputError
from .fabric import Fabric

Bools = npt.NDArray[np.bool_]
Error = Callable[[str, str], InputError]
"""Makes an error from the key that it is about, and what is wrong with it and helps."""

KEYS: dict[str, tuple[type, ...]] = {
    "link": (str, list),
    "rate_gb_per_s": (int, float),
    "latency_ns": (int, float),
    "header_bytes": (int,),
    "payload_bytes": (int,),
}
_COLUMNS = {  # of the fabric, with how many of its units are one of the file's, and the least
    "rate_gb_per_s": ("rate_mb_per_s", 1000, 1),
    "latency_ns": ("latency_ps", 1000, 1),
    "header_bytes": ("header_bytes", 1, 0),
    "payload_bytes": ("payload_bytes", 1, 0),
}


def override(fabric: Fabric, rows: Sequence[Mapping[str, Any]], error: Error) -> Fabric:
    """Return the fabric with other rates, latencies or headers on the links that rows name; later rows win.

    `link` is "FROM -> TO", or "FROM <-> TO" for both directions, or a list of such. The ends are names of
    nodes, `*` and `?` stand for any characters, "gpu 8-15" for several GPUs.

    Raises what `error` makes: no such link, nothing to change, a value that no link can have.
    """
    names = np.array(fabric.node_names)
    columns = {column: getattr(fabric, column).copy() for column, _, _ in _COLUMNS.values()}
    for index, row in enumerate(rows):
        where = f"override {index + 1}"
        patterns = row["link"] if isinstance(row["link"], list) else [row["link"]]
        links = np.zeros(fabric.links, bool)
        for pattern in patterns:
            found = _matching(fabric, names, str(pattern), partial(error, f"{where}, link"))
            if not found.any():
                raise error(
                    f"{where}, link", f"{pattern!r} is no link of {fabric.name}; one is {_example(fabric)!r}"
                )
            links |= found
        if len(row) == 1:
            raise error(where, f"changes nothing; give {', '.join(_COLUMNS)}")
        for key, value in row.items():
            if key != "link":
                column, scale, least = _COLUMNS[key]
                if round(value * scale) < least:
                    raise error(f"{where}, {key}", f"{value} is too little; give at least {least / scale:g}")
                columns[column][links] = round(value * scale)
    if (bad := (columns["header_bytes"] > 0) & (columns["payload_bytes"] == 0)).any():
        raise error(
            "override",
            f"{fabric.link_name(int(bad.argmax()))} has headers; it needs a payload_bytes of at least 1",
        )
    return replace(fabric, **columns)


def _matching(
    fabric: Fabric, names: npt.NDArray[np.str_], pattern: str, error: Callable[[str], InputError]
) -> Bools:
    """Return which links a pattern means."""
    parts = re.fullmatch(r"(.+?)\s*(<->|->)\s*(.+)", pattern)
    if not parts:
        raise error(f"{pattern!r} is no link; write 'FROM -> TO', or 'FROM <-> TO' for both directions")
    a, b = (_nodes(names, parts[end].strip()) for end in (1, 3))
    found: Bools = a[fabric.source] & b[fabric.destination]
    return found | (b[fabric.source] & a[fabric.destination]) if parts[2] == "<->" else found


def _nodes(names: npt.NDArray[np.str_], pattern: str) -> Bools:
    """Return which nodes a name, a name with `*` or `?`, or a range of GPUs means."""
    if span := re.fullmatch(r"gpu (\d+)-(\d+)", pattern):
        wanted = {f"gpu {i}" for i in range(int(span[1]), int(span[2]) + 1)}
        return np.array([name in wanted for name in names], bool)
    matches = re.compile(translate(pattern)).match
    return np.array([matches(name) is not None for name in names], bool)


def _example(fabric: Fabric) -> str:
    return fabric.link_name(0) if fabric.links else "none, it is ideal"

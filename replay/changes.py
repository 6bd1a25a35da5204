"""Links, NICs and GPUs that slow down, fail and come back while a run goes on."""

import fnmatch
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import InputError
from ..schemas.durations import parse_ps
from .fabric import Fabric

_ACTIONS = ("slow", "fail", "restore")


@dataclass(frozen=True)
class LinkChange:
    """From `time_ps` on, `link` has this rate; 0: it is down. What it serves at that time it finishes.

    A link that is down serves nothing: what waits for it takes another link of the same rule, where one is up, and
    otherwise waits for it to come back.
    """

    time_ps: int
    link: int
    rate_mb_per_s: int


def load_changes(path: str | Path, fabric: Fabric) -> tuple[LinkChange, ...]:
    """Return the changes that an events file describes.

    Each `[[event]]` has `at` (a time such as "20us"), `what` (a link as `gpu 3 -> *`, or a node as `nic 0.3` or
    `gpu 3`, with wildcards), `action` (slow, fail, restore), and for slow either `factor` or `rate_gb_per_s`.

    Raises InputError, naming file, event and key, for anything that cannot be understood or matches nothing.
    """
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: {error}; give a TOML file with [[event]] tables") from error
    events = table.get("event")
    if not isinstance(events, list) or set(table) != {"event"}:
        raise InputError(f"{path}: give [[event]] tables and nothing else; docs/fabrics.md has an example")
    return tuple(
        change for number, event in enumerate(events, 1) for change in _read(path, number, event, fabric)
    )


def _read(path: str | Path, number: int, event: Any, fabric: Fabric) -> list[LinkChange]:
    where = f"{path}, event {number}"
    known = {"at", "what", "action", "factor", "rate_gb_per_s"}
    if (
        not isinstance(event, dict)
        or (unknown := set(event) - known)
        or not {"at", "what", "action"} <= set(event)
    ):
        extra = f"unknown key {sorted(unknown)[0]!r}; " if isinstance(event, dict) and unknown else ""
        raise InputError(
            f"{where}: {extra}an event has at, what, action, and for slow factor or rate_gb_per_s"
        )
    if event["action"] not in _ACTIONS:
        raise InputError(f"{where}: action {event['action']!r}; use {', '.join(_ACTIONS)}")
    time_ps = parse_ps(str(event["at"]), f"{where}, at")
    links = _links(where, str(event["what"]), fabric)
    return [
        LinkChange(time_ps, int(link), _rate(where, event, int(fabric.rate_mb_per_s[link]))) for link in links
    ]


def _links(where: str, what: str, fabric: Fabric) -> list[int]:
    """Return the links that `what` names: links by both ends, or all links of a node."""
    names = fabric.node_names
    if "->" in what:
        source, destination = (part.strip() for part in what.split("->", 1))
        left = {n for n, name in enumerate(names) if fnmatch.fnmatchcase(name, source)}
        right = {n for n, name in enumerate(names) if fnmatch.fnmatchcase(name, destination)}
        found = [
            i for i in range(fabric.links) if fabric.source[i] in left and fabric.destination[i] in right
        ]
    else:
        nodes = [n for n, name in enumerate(names) if fnmatch.fnmatchcase(name, what)]
        touched = np.isin(fabric.source, nodes) | np.isin(fabric.destination, nodes)
        found = np.flatnonzero(touched).tolist()
    if not found:
        raise InputError(
            f"{where}: what {what!r} is no link or node; `eidola replay fabric` lists their names"
        )
    return found


def _rate(where: str, event: dict[str, Any], own: int) -> int:
    """Return the rate that the event gives to a link of `own` rate."""
    if event["action"] != "slow":
        return 0 if event["action"] == "fail" else own
    given = [key for key in ("factor", "rate_gb_per_s") if key in event]
    if len(given) != 1 or not isinstance(event[given[0]], int | float) or not event[given[0]] > 0:
        raise InputError(
            f"{where}: slow needs either factor or rate_gb_per_s, above 0 (fail takes a link down)"
        )
    rate: float = own * event["factor"] if given == ["factor"] else event["rate_gb_per_s"] * 1000
    return max(1, round(rate))

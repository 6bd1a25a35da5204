"""A fabric from a TOML file.

    name = "two boxes"
    gpus = 4                       # named "gpu 0" to "gpu 3"
    box_gpus = 2                   # consecutive GPUs that share a box; default 1
    boxes = [8, 8, 4]              # instead: GPUs of each box, where these differ
    gpu = "hopper"                 # generation, by which collective libraries choose; default unknown
    forwarding = ["gpu 1"]         # GPUs that pass on what is not for them; default none

    [[switch]]                     # switches, NICs, hosts: all that is no GPU
    name = "leaf"                  # "nic 0-3" makes four
    store_and_forward = true       # data lands there before it goes on, as in a host's memory; default false
    computes = true                # reduces and multicasts (NVLink SHARP, SHARP); default false

    [[link]]
    from = ["gpu 0-1", "gpu 3"]    # one name, or a list; "gpu 0-1" and "nic 0-3" are ranges
    to = "leaf"                    # every `from` gets a link to every `to`
    pairs = true                   # the first of `from` to the first of `to`, and so on; default false
    rate_gb_per_s = 50
    latency_ns = 500
    header_bytes = 32              # default 0; needs payload_bytes
    payload_bytes = 128
    both = false                   # default true: a link each way

Routes are the shortest ones in links, found by breadth-first search; among several the destination decides.

Or a preset, with what differs; `[[override]]` goes with either:

    base = "hgx-h100"              # `gpus` may be left out: as many as are asked for
    settings = { scale_out = "fat-tree" }

    [[override]]
    link = ["gpu 24-31 <-> *", "nic 3.* <-> *"]  # the fourth box; "->" is one direction, * any name
    rate_gb_per_s = 25             # or latency_ns, header_bytes, payload_bytes
"""

import re
import tomllib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from ..schemas import InputError, UsageError
from .fabric import Fabric, FabricBuilder, Ints
from .fabric_overrides import KEYS as OVERRIDE_KEYS
from .fabric_overrides import override

_KEYS: dict[str, dict[str, tuple[type, ...]]] = {
    "": {"name": (str,), "gpus": (int,), "box_gpus": (int,), "boxes": (list,), "gpu": (str,), "forwarding": (list,),
         "switch": (list,), "link": (list,), "base": (str,), "settings": (dict,), "override": (list,)},
    "override": OVERRIDE_KEYS,
    "switch": {"name": (str,), "store_and_forward": (bool,), "computes": (bool,)},
    "link": {"from": (str, list), "to": (str, list), "rate_gb_per_s": (int, float), "latency_ns": (int, float),
             "header_bytes": (int,), "payload_bytes": (int,), "both": (bool,), "pairs": (bool,)},
}  # fmt: skip
_NEEDED = {
    "": ("gpus", "link"),
    "override": ("link",),
    "switch": ("name",),
    "link": ("from", "to", "rate_gb_per_s", "latency_ns"),
}
GENERATIONS = ("volta", "ampere", "hopper", "blackwell", "cdna2", "cdna3", "cdna4")
_FEW = 4  # stretches of destinations that a node gets a rule each for


def load(path: Path | str, gpus: int | None = None) -> Fabric:
    """Return the fabric that a TOML file describes; see this module's text for its keys.

    A preset is built for `gpus` GPUs, unless the file says how many.

    Raises InputError, naming file, key and remedy: no file or no TOML, an unknown or missing key, a wrong type, a
    rate or size that is not positive, a name given twice or not at all, a GPU without links, no route.
    """
    path = Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; give the path of a TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no TOML: {error}") from error
    reader = _Reader(path)
    found = reader.preset(table, gpus) if "base" in table else reader.read(table)
    rows = table.get("override", [])
    for index, row in enumerate(rows):
        reader.check("override", row, f"override {index + 1}")
    return override(found, rows, reader.error) if rows else found


@dataclass
class _Reader:
    path: Path

    def read(self, table: Mapping[str, Any]) -> Fabric:
        self.check("", table, "top level")
        gpus, box = table["gpus"], table.get("box_gpus", 1)
        if gpus < 1 or box < 1:
            raise self.error("gpus", f"{gpus} GPUs, {box} a box; give at least 1 of each")
        generation = table.get("gpu", "")
        if generation and generation not in GENERATIONS:
            raise self.error("gpu", f"{generation!r} is no generation; choose {', '.join(GENERATIONS)}")
        builder = FabricBuilder(table.get("name", self.path.stem), gpus, box, generation)
        nodes = {f"gpu {i}": i for i in range(gpus)}
        for index, switch in enumerate(table.get("switch", [])):
            where = f"switch {index + 1}"
            self.check("switch", switch, where)
            for name in _names(switch["name"]):
                if name in nodes:
                    raise self.error(f"{where}, name", f"{name!r} is there already; rename one of them")
                nodes[name] = builder.node(
                    name,
                    store_and_forward=switch.get("store_and_forward", False),
                    computes=switch.get("computes", False),
                )
        links = [
            link for index, row in enumerate(table["link"]) for link in self.links(builder, nodes, index, row)
        ]
        forwarding = {n for text in table.get("forwarding", []) for n in self.find(nodes, text, "forwarding")}
        for node in forwarding:
            builder.land(node)
        self.route(builder, links, {*forwarding, *range(gpus, len(nodes))}, list(nodes))
        return replace(builder.build(), box=self.boxes(table))

    def boxes(self, table: Mapping[str, Any]) -> Ints:
        """Return (gpus,) the box of each GPU."""
        gpus, sizes = table["gpus"], table.get("boxes")
        if sizes is None:
            same: Ints = np.arange(gpus, dtype=np.int32) // int(table.get("box_gpus", 1))
            return same
        if (
            "box_gpus" in table
            or any(type(size) is not int or size < 1 for size in sizes)
            or sum(sizes) != gpus
        ):
            raise self.error(
                "boxes", f"give the GPUs of each box, {gpus} in all, and no box_gpus beside them"
            )
        return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)

    def preset(self, table: Mapping[str, Any], gpus: int | None) -> Fabric:
        """Return the preset that `base` names."""
        from .presets.catalogue import preset

        self.check("", table, "top level", needed=("base",))
        if extra := sorted(set(table) & {"box_gpus", "boxes", "gpu", "forwarding", "switch", "link"}):
            raise self.error(
                extra[0], "is not for a preset; take out it or `base`, or change links by [[override]]"
            )
        count = table.get("gpus", gpus)
        if count is None:
            raise self.error("gpus", "is missing; add how many GPUs the fabric has")
        try:
            made = preset(table["base"], count, **table.get("settings", {}))
        except UsageError as error:
            raise self.error("base", str(error).removeprefix("--fabric ")) from error
        return replace(made, name=table.get("name", self.path.stem))

    def error(self, key: str, what: str) -> InputError:
        return InputError(f"{self.path}: {key}: {what}")

    def check(self, kind: str, table: Any, where: str, needed: tuple[str, ...] | None = None) -> None:
        """Refuse unknown and missing keys, and values of a wrong type."""
        known = _KEYS[kind]
        if not isinstance(table, dict):
            raise self.error(where, "is no table; write [[switch]], [[link]] and [[override]]")
        for key, value in table.items():
            if key not in known:
                raise self.error(where, f"unknown key {key!r}; keys are {', '.join(known)}")
            if type(value) not in known[key]:
                names = " or ".join(t.__name__ for t in known[key])
                raise self.error(f"{where}, {key}", f"{value!r} is no {names}")
        for key in _NEEDED[kind] if needed is None else needed:
            if key not in table:
                raise self.error(where, f"key {key!r} is missing; add it")

    def find(self, nodes: Mapping[str, int], text: Any, where: str) -> list[int]:
        """Return the nodes that a name, or a range of numbered ones, means."""
        names = [text] if text in nodes or not isinstance(text, str) else _names(text)
        for name in names:
            if name not in nodes:
                raise self.error(where, f"no GPU or switch {name!r}; add a [[switch]], or raise gpus")
        return [nodes[name] for name in names]

    def links(
        self, builder: FabricBuilder, nodes: Mapping[str, int], index: int, row: Any
    ) -> list[tuple[int, int, int]]:
        """Add the links of one row; return (source, destination, link) of each."""
        where = f"link {index + 1}"
        self.check("link", row, where)
        rate, latency = round(row["rate_gb_per_s"] * 1000), round(row["latency_ns"] * 1000)
        header, payload = row.get("header_bytes", 0), row.get("payload_bytes", 0)
        if rate < 1 or latency < 1:
            raise self.error(f"{where}, rate_gb_per_s, latency_ns", "give at least 0.001 GB/s and 0.001 ns")
        if header < 0 or payload < 0 or (header and not payload):
            raise self.error(f"{where}, header_bytes", "headers need a payload_bytes of at least 1")
        ends = []
        for key in ("from", "to"):
            names = row[key] if isinstance(row[key], list) else [row[key]]
            ends.append([n for text in names for n in self.find(nodes, text, f"{where}, {key}")])
        pairs = row.get("pairs", False)
        if pairs and len(ends[0]) != len(ends[1]):
            raise self.error(f"{where}, pairs", f"{len(ends[0])} ends do not pair with {len(ends[1])}")
        made = []
        for a, b in zip(*ends, strict=True) if pairs else product(*ends):
            if a == b:
                raise self.error(where, f"links {list(nodes)[a]!r} to itself; take it out")
            for pair in ((a, b), (b, a)) if row.get("both", True) else ((a, b),):
                made.append((*pair, builder.link(*pair, rate, latency, header, payload)))
        return made

    def route(
        self, builder: FabricBuilder, links: list[tuple[int, int, int]], passing: set[int], names: list[str]
    ) -> None:
        """Add rules along shortest routes over the nodes that pass on, and make sure that every pair has one."""
        into: list[list[tuple[int, int]]] = [[] for _ in names]
        for source, destination, link in links:
            into[destination].append((source, link))
        onward: list[list[tuple[int, ...]]] = [[] for _ in names]
        linked = {node for source, destination, _ in links for node in (source, destination)}
        alone = sorted(set(range(builder.endpoints)) - linked)
        if alone and builder.endpoints > 1:
            raise self.error("link", f"{names[alone[0]]!r} has no link; add one")
        for goal in range(builder.endpoints):
            chosen = _towards(goal, into, passing)
            for node, choices in enumerate(chosen):
                if not choices and node < builder.endpoints and node != goal:
                    raise self.error("link", f"no route from {names[node]!r} to {names[goal]!r}; add links, or "
                                     "name the GPUs in `forwarding` that may pass data on")  # fmt: skip
                onward[node].append(choices)
        for node, choices_of in enumerate(onward):
            _add_rules(builder, node, choices_of)


def _names(text: str) -> list[str]:
    """Return what a name means: itself, or with a range at its end ("nic 0-3") a name each."""
    span = re.fullmatch(r"(.+ )(\d+)-(\d+)", text)
    return [f"{span[1]}{i}" for i in range(int(span[2]), int(span[3]) + 1)] if span else [text]


def _towards(goal: int, into: list[list[tuple[int, int]]], passing: set[int]) -> list[tuple[int, ...]]:
    """Return, for each node, the links that begin a shortest route to `goal`, by breadth-first search."""
    distance = {goal: 0}
    chosen: list[list[int]] = [[] for _ in into]
    queue = deque([goal])
    while queue:
        node = queue.popleft()
        if node != goal and node not in passing:
            continue
        for source, link in into[node]:
            if source not in distance:
                distance[source] = distance[node] + 1
                queue.append(source)
            if distance[source] == distance[node] + 1:
                chosen[source].append(link)
    return [tuple(sorted(links)) for links in chosen]


def _add_rules(builder: FabricBuilder, node: int, choices_of: list[tuple[int, ...]]) -> None:
    """Give a node a rule for each stretch of destinations that share links; where those are many, one for all.

    What is for the node itself never asks, so that it does not break a stretch.
    """
    filled = list(choices_of)
    if node < len(filled):
        filled[node] = filled[node - 1] if node else filled[min(1, len(filled) - 1)]
    starts = [i for i in range(len(filled)) if i == 0 or filled[i] != filled[i - 1]]
    if len(starts) > _FEW:
        builder.rule(node, 0, len(filled), filled, stride=1)
        return
    for low, high in zip(starts, [*starts[1:], len(filled)], strict=True):
        builder.rule(node, low, high, [filled[low]])

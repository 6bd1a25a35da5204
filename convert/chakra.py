"""Chakra execution traces (MLCommons) -> a trace: nodes as spans, communication nodes as collectives.

Many Chakra files have durations and no start times. Their nodes are then laid out: each starts when what it
depends on has ended and its lane is free; the report says so. Order across lanes is the source's, an edge's kind
follows from what it joins: a host's call launches GPU work, GPU work that a call depends on was waited for.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from google.protobuf.message import DecodeError

from ..schemas.errors import InputError
from ..schemas.tables import BACKENDS
from .chakra_attributes import OWN, number_in, small_in
from .chakra_model import TYPES
from .chakra_nodes import LATEST_NS, ChakraFile, parse_metadata, read_nodes
from .chakra_order import lay_out
from .chakra_parts import GROUPS, part_of, read_groups
from .chakra_spans import add_launches, build_spans, edges_between
from .formats import Format, Head
from .rank import RankRecord
from .sources import rank_in_name

_SUFFIXES = (".et", ".et.gz", ".eg")
_RANK = re.compile(r"\.(\d+)\.(?:et|eg|json)(?:\.gz)?$")
_MARKS = (b'"ctrlDeps"', b'"dataDeps"', b'"durationMicros"', b'_NODE"')
_LEFT_OUT = ("INVALID_NODE", "METADATA_NODE")


def recognise(head: Head) -> bool:
    """Whether a file starts with Chakra's metadata and a node, or is JSON with a node's fields."""
    start = head.start.lstrip()
    if head.path.name == GROUPS:
        return True
    if start[:1] in (b"{", b"["):
        return b'"attr"' in start and any(mark in start for mark in _MARKS) and b'"traceEvents"' not in start
    if head.path.name.endswith(_SUFFIXES):
        return True
    size = head.start[0] if head.start else 0x80
    after = head.start[1 + size : 40 + size]
    try:
        told = parse_metadata(head.start[1 : 1 + size]) if 0 < size < 0x80 else {}
    except DecodeError:
        return False
    return bool(told) and any(mark in after[:6] for mark in (b"\x08", b"\x12"))


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Path]:
    """Return the files given, and those in folders. Raises InputError where there is none."""
    del companions
    found = [
        file
        for path in paths
        for file in (
            sorted(f for f in path.rglob("*") if f.name.endswith(_SUFFIXES)) if path.is_dir() else [path]
        )
    ]
    found = [file for file in found if file.name != GROUPS]
    if not found:
        raise InputError(f"no *.et in {', '.join(map(str, paths))}; give Chakra's files or their folder")
    return found


def read(path: Path, alone: bool) -> list[RankRecord]:
    """Read the one rank of a file. Raises InputError where it cannot be read or does not tell its rank."""
    file = read_nodes(path)
    told = _rank(path, alone)
    rank = told or 0
    notes = [] if told is not None else [f"{path.name} does not tell its rank; 0 was taken"]
    nodes = [
        n for n in file.nodes.values() if TYPES[n.type] not in _LEFT_OUT and not n.attributes.get(f"{OWN}gap")
    ]
    if not nodes:
        raise InputError(f"{path} holds no work: all of its {len(file.nodes)} nodes are metadata")
    lay_out(file, nodes, notes)
    spans = build_spans(nodes)
    groups = read_groups(file)
    parts = [part for n in nodes if (part := part_of(n, spans.of[n.id], groups)) is not None]
    edges, contradicted = edges_between(nodes, spans)
    add_launches(spans, edges, parts)
    times = [t for name in ("start_ns", "end_ns") for t in spans.columns[name]]
    left = len(file.nodes) - len(nodes)
    return [
        RankRecord(
            rank,
            path,
            small_in(file.metadata, f"{OWN}world_size"),
            {"backend": _backend(file)},
            spans.columns,
            edges,
            sorted(parts, key=lambda part: (part.start_ns, part.span)),
            (min(times), max(times)),
            dropped={"node without work (metadata, gap)": left} if left else {},
            truncated=file.truncated,
            contradicted=contradicted,
            notes=notes,
            clock=_clock(file),
        )
    ]


FORMAT = Format("chakra", recognise, plan, read)


def _rank(path: Path, alone: bool) -> int | None:
    """Return the rank in the name: as ASTRA-sim has it, NAME.RANK.et, else rank<N>; None where one alone has none.

    Raises InputError where one of several has none.
    """
    if match := _RANK.search(path.name):
        return int(match[1])
    rank = rank_in_name(path)
    if rank is None and not alone:
        raise InputError(f"{path} does not tell its rank; name the files NAME.<rank>.et")
    return rank


def _backend(file: ChakraFile) -> str:
    """Return `gpu` for what a profiler saw, `virtual` for what a generator made up."""
    if (backend := file.metadata.get(f"{OWN}backend")) in BACKENDS:
        return str(backend)
    seen = any("rf_id" in n.attributes or "stream" in n.attributes for n in file.nodes.values())
    return "gpu" if seen else "virtual"


def _clock(file: ChakraFile) -> str | None:
    """Return the clock that this project's exports of aligned ranks share; others say nothing of theirs."""
    if file.metadata.get(f"{OWN}clock") != "aligned":
        return None
    return f"export from {number_in(file.metadata, f'{OWN}origin_ns', -LATEST_NS)} ns"

"""Nodes of a Chakra file as spans: on which lane, of what kind, and what waits for what across lanes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..schemas.tables import TRACE_TABLES
from .chakra_attributes import OWN, number_in
from .chakra_model import POINT_TO_POINT, TYPES, Node
from .parts import Part

_KINDS = TRACE_TABLES["spans"].by_name["kind"].values
_COPIES = ("MEM_LOAD_NODE", "MEM_STORE_NODE")
_OF_THE_HOST = ("STORAGE_NODE", "BATCH_NODE", "CHECKPOINT_NODE")


def on_host(node: Node) -> bool:
    """Whether a node ran on the host: as it says, else by its type."""
    return bool(node.attributes.get("is_cpu_op", TYPES[node.type] in _OF_THE_HOST))


def lane_of(node: Node) -> str:
    """Return the lane: as exported, else by stream or thread, else one for compute and one for communication."""
    told = node.attributes
    if lane := told.get(f"{OWN}lane"):
        return str(lane)
    if on_host(node):
        return f"thread {told.get('tid', 0)}"
    stream = told.get("stream", told.get("tid"))
    if stream is not None:
        return f"stream {stream}"
    return "stream communication" if TYPES[node.type].startswith("COMM") else "stream compute"


def _kind(node: Node) -> str:
    if (kind := node.attributes.get(f"{OWN}kind")) in _KINDS:
        return str(kind)
    if on_host(node):
        return "host_call"
    return "copy" if TYPES[node.type] in _COPIES else "kernel"


class Spans:
    """The columns of `spans`, and the span of every node."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {
            name: [] for name in ("span", "lane", "kind", "name", "launch_ns", "start_ns", "end_ns")
        }
        self.of: dict[int, int] = {}


def build_spans(nodes: Sequence[Node]) -> Spans:
    """Make a span a node; nodes that were exported as pieces of one span are that span again."""
    spans = Spans()
    held: dict[Any, int] = {}
    columns = spans.columns
    for node in sorted(nodes, key=lambda n: (n.start_ns, n.id)):
        piece = number_in(node.attributes, f"{OWN}span")
        is_piece = piece is not None and TYPES[node.type] not in POINT_TO_POINT
        span = held.setdefault(("span", piece) if is_piece else node.id, len(columns["span"]))
        spans.of[node.id] = span
        end = node.start_ns + node.duration_ns
        if span < len(columns["span"]):
            columns["end_ns"][span] = max(columns["end_ns"][span], end)
            continue
        row = (span, lane_of(node), _kind(node), node.name, None, node.start_ns, end)
        for values, value in zip(columns.values(), row, strict=True):
            values.append(value)
    return spans


def edges_between(nodes: Sequence[Node], spans: Spans) -> tuple[dict[str, list[Any]], Counter[str]]:
    """Return the columns of `dependencies` between lanes, and how many edges the times contradict, by kind."""
    rows: dict[tuple[int, int], str] = {}
    contradicted: Counter[str] = Counter()
    lanes, start, end = (spans.columns[name] for name in ("lane", "start_ns", "end_ns"))
    for node in nodes:
        after = spans.of[node.id]
        onto_host = lanes[after].startswith("thread")
        for other, calls in [*((o, False) for o in node.dependencies), *((o, True) for o in node.callers)]:
            before = spans.of.get(other, after)
            host = lanes[before].startswith("thread")
            if lanes[before] == lanes[after] or (calls and (onto_host or not host)):
                continue  # order within a lane is implied, and calls within a thread are no order
            kind = {(1, 0): "launch", (0, 1): "sync", (1, 1): "thread", (0, 0): "event"}[host, onto_host]
            if kind == "thread" and end[before] > start[after]:
                kind = "launch"  # of a host's own worker, which began while the call was running
            first = start[before] if kind == "launch" else end[before]
            if first > (end[after] if kind == "sync" else start[after]):
                contradicted[kind] += 1
            else:
                rows[before, after] = kind
    ordered = sorted((after, before, kind) for (before, after), kind in rows.items())
    return {
        "before": [before for _, before, _ in ordered],
        "after": [after for after, _, _ in ordered],
        "kind": [kind for _, _, kind in ordered],
        "origin": ["measured"] * len(ordered),
    }, contradicted


def add_launches(spans: Spans, edges: Mapping[str, Sequence[Any]], parts: Sequence[Part]) -> None:
    """Say when GPU work was launched: at the start of the last call that launches it."""
    launch, start = spans.columns["launch_ns"], spans.columns["start_ns"]
    for before, after, kind in zip(edges["before"], edges["after"], edges["kind"], strict=True):
        if kind == "launch":
            launch[after] = max(start[before], launch[after] if launch[after] is not None else start[before])
    for part in parts:
        part.launch_ns = launch[part.span]

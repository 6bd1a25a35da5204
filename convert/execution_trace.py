"""PyTorch's ExecutionTrace: what each collective of a rank moved, where Kineto does not say.

Only the `record_param_comms` nodes and the process groups are read. A node's inputs are [tensors, sequence, group,
rank, name, in splits, out splits, ...], without tensors for a `wait`; the group is a pointer up to schema 1.0.1,
its name in 1.0.2, name and description from 1.0.3. From 1.1.0 a node has `attrs` (collective_name, pg_name, ...):
the schemas are told apart as in et_replay of MLCommons' param (execution_trace.py).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError
from .formats import Head
from .json_stream import EventFile, find_objects, open_bytes

_MARKS = re.compile(rb'"record_param_comms"|"## process_group:init ##"|"(?:gloo|mpi|ucc):')
_HOST_BACKENDS = ("gloo:", "mpi:", "ucc:")
_OVERLAP_BYTES = 1 << 20
_WITHOUT_TENSORS = 3
"""Where the operation's name is in inputs without tensors."""
_ELEMENT = re.compile(r"Tensor\(([^)]+)\)")


@dataclass
class CommsNode:
    """One `record_param_comms` node, its arguments under the names that Kineto gives them."""

    function: int
    args: dict[str, Any]


@dataclass
class ExecutionTrace:
    """The communication of one rank's ExecutionTrace; nodes in the order in which they ran.

    `annotations` holds what backends that run on the host (Gloo) note of their collectives, by function id;
    `truncated` says that the file breaks off.
    """

    path: Path
    schema: str
    pid: int | None
    nodes: list[CommsNode] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)
    truncated: bool = False


def recognise(head: Head) -> bool:
    """Whether a file starts like an ExecutionTrace: an object with a schema and nodes."""
    return head.start.lstrip()[:1] == b"{" and b'"schema"' in head.start and b'"nodes"' in head.start


def read_execution_trace(path: Path) -> ExecutionTrace:
    """Read the ExecutionTrace `path`, plain or gzip.

    Raises InputError where it is none, or of a layout that is not known, by its schema's name.
    """
    file = EventFile(path, key="nodes")
    found: dict[Any, dict[str, Any]] = {}
    before = b""
    with open_bytes(path) as source:
        for piece in file.pieces(source):
            # A cut may fall into a node: the end of the last piece is looked at again, and ids tell doubles.
            for node in find_objects(before + piece, _MARKS, "id"):
                found[node["id"]] = node
            before = piece[-_OVERLAP_BYTES:]
    metadata = file.metadata or _head(path)
    trace = ExecutionTrace(path, str(metadata.get("schema", "unknown")), metadata.get("pid"))
    trace.truncated = file.truncated or not before.rstrip(b"\0 \t\r\n").endswith(b"}")
    for node in found.values():
        name = str(node.get("name"))
        if name == "record_param_comms":
            trace.nodes.append(_comms_node(trace, node))
        elif name.startswith(_HOST_BACKENDS):
            trace.annotations[_function(node)] = _annotation(name, node)
        else:
            trace.groups += _groups(node)
    trace.nodes.sort(key=lambda node: node.function)
    return trace


def _head(path: Path) -> dict[str, Any]:
    """Return schema and pid, which stand before the nodes."""
    with open_bytes(path) as source:
        head = source.read(4096).decode("utf-8", "replace")
    schema = re.search(r'"schema"\s*:\s*"([^"]*)"', head)
    pid = re.search(r'"pid"\s*:\s*(\d+)', head)
    return {"schema": schema[1] if schema else "unknown", "pid": int(pid[1]) if pid else None}


def _comms_node(trace: ExecutionTrace, node: dict[str, Any]) -> CommsNode:
    attrs = _attrs(node)
    function = _function(node)
    if "collective_name" in attrs:
        return CommsNode(function, _from_attrs(attrs, _values(node)))
    values = _values(node)
    place = next((i for i in range(3, min(len(values), 5)) if _named(values, i)), None)
    if place is not None:
        return CommsNode(function, _from_inputs(values, place, _types(node)))
    raise InputError(
        f"{trace.path}: node {node.get('id')} (record_param_comms) has an unknown layout, "
        f"schema {trace.schema!r}; "
        "convert without --execution-trace, or report the schema"
    )


def _attrs(node: dict[str, Any]) -> dict[str, Any]:
    return {a["name"]: a.get("value") for a in node.get("attrs", ()) if isinstance(a, dict) and "name" in a}


def _function(node: dict[str, Any]) -> int:
    return int(node.get("rf_id", _attrs(node).get("rf_id")) or 0)


def _annotation(name: str, node: dict[str, Any]) -> dict[str, Any]:
    return {"Collective name": name, **_tensor_args(_values(node), _types(node))}


def _types(node: dict[str, Any]) -> list[Any]:
    inputs = node.get("inputs")
    types = inputs.get("types") if isinstance(inputs, dict) else node.get("input_types")
    return types if isinstance(types, list) else []


def _named(values: list[Any], place: int) -> bool:
    """Whether the operation's name is at `place` of a node's inputs: right behind the rank."""
    return isinstance(values[place], str) and isinstance(values[place - 1], int)


def _values(node: dict[str, Any]) -> list[Any]:
    inputs = node.get("inputs")
    values = inputs.get("values") if isinstance(inputs, dict) else inputs
    return values if isinstance(values, list) else []


def _from_attrs(attrs: dict[str, Any], inputs: list[Any]) -> dict[str, Any]:
    names = {
        "collective_name": "Collective name",
        "dtype": "dtype",
        "in_msg_nelems": "In msg nelems",
        "out_msg_nelems": "Out msg nelems",
        "in_split_size": "In split size",
        "out_split_size": "Out split size",
        "pg_name": "Process Group Name",
        "pg_desc": "Process Group Description",
        "pg_size": "Group size",
        "global_rank_start": "Global rank start",
        "global_rank_stride": "Global rank stride",
    }
    args = {ours: attrs[theirs] for theirs, ours in names.items() if theirs in attrs}
    sequence = next(
        (v[0] for v in inputs if isinstance(v, list) and len(v) == 2 and isinstance(v[1], bool)), None
    )
    # The rank, which is a root or the other side where there is one, stands before the operation's name.
    name = args["Collective name"]
    rank = inputs[inputs.index(name) - 1] if name in inputs[1:] else None
    return args | {key: value for key, value in (("Seq", sequence), ("Rank", rank)) if value is not None}


def _from_inputs(values: list[Any], place: int, types: list[Any]) -> dict[str, Any]:
    """Return what inputs whose operation's name is at `place` say; a number from then on is null where it is -1."""
    group, rank, name, *more = values[place - 2 :]
    keys = ("In split size", "Out split size", "Global rank start", "Global rank stride", "Group size")
    args = {key: value for key, value in zip(keys, more, strict=False) if value != -1}
    args |= {"Collective name": name, "Rank": rank}
    if place > _WITHOUT_TENSORS:
        first = values[0] if isinstance(values[0], list) else []
        args |= _tensor_args(first if first and isinstance(first[0], list) else [first], types)
    names = group if isinstance(group, list) else [group]
    if names and all(isinstance(word, str) for word in names):
        args |= dict(zip(("Process Group Name", "Process Group Description"), names, strict=False))
    elif isinstance(group, int):
        args["group_pointer"] = group  # an address in this process: says nothing across ranks
    return args


def _tensor_args(values: list[Any], types: list[Any]) -> dict[str, Any]:
    """Describe tensors, each [id, storage, offset, elements, bytes an element, device]."""
    tensors = [v for v in values if isinstance(v, list) and len(v) >= 5]
    element = _ELEMENT.search(str(types[0])) if types else None
    if not tensors:
        return {}
    return {
        "In msg nelems": sum(t[3] for t in tensors),
        "element_bytes": tensors[0][4],
        "dtype": element[1] if element else None,
    }


def _groups(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in _values(node):
        if isinstance(value, str):
            try:
                groups = json.loads(value)
            except ValueError:
                continue
            yield from (g for g in groups if isinstance(g, dict))

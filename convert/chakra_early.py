"""Chakra's versions before GlobalMetadata, in which a file begins with a node.

The first, mlcommons/chakra eg_def/eg_def.proto (commit df405e8e), has a field for everything; its run time counts
cycles of 1 ns (ASTRA-sim, 3ad841a5). The next have attributes with a type beside the value: et_def/et_def.pb.h of
commit 9d917e3c, and et_def/et_def.proto of the same commit, which put a type before the others and METADATA_NODE
among the kinds of nodes. Their attribute `runtime` is in microseconds, as PyTorch's converter wrote it (`dur`).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from .chakra_model import TYPES, Node
from .messages import message_classes

_OLD_TYPES = (0, 2, 3, 4, 5, 6, 7)  # there was no METADATA_NODE
_FIRST_COLLECTIVES = (None, 0, 6, 2, 7)  # INVALID_COMM, ALL_REDUCE, ALL_TO_ALL, ALL_GATHER, REDUCE_SCATTER
_NEXT_COLLECTIVES = (0, 6, 2, 7)  # the same without INVALID_COMM
_RENAMED = {"is_host_op": "is_cpu_op"}

_MESSAGES = message_classes(
    "eidola.chakra.early",
    "proto2",
    {
        "First": (
            "1 id uint64",
            "2 name string",
            "3 node_type uint32",
            "4 parent *uint64",
            "6 tensor_size uint64",
            "7 simulated_run_time uint64",
            "12 num_ops uint64",
            "13 comm_type uint32",
            "15 communicator_id uint32",
            "16 comm_src uint32",
            "17 comm_dst uint32",
            "18 comm_size uint32",
            "19 comm_tag uint32",
        ),
        "Next": (
            "1 id uint64",
            "2 name string",
            "3 type uint32",
            "4 parent *uint64",
            "5 inputs string",
            "11 attribute *bytes",  # a number in the first version
        ),
        "Second": ("1 name string", "2 type uint32", "4 f float", "5 i int64", "6 s string", "8 ints *int64"),
        "Third": (
            "1 name string", "2 type uint32", "4 b bool", "5 f float", "6 i int64", "7 s string", "10 ints *int64",
        ),
    },
)  # fmt: skip


@dataclass(frozen=True)
class _Version:
    """How attributes are written: the message, the field by type, and the kinds of nodes by number."""

    message: str
    values: Sequence[str | None]
    types: Sequence[int]


_VERSIONS = (
    _Version("Third", ("b", "f", "i", "s", None, None, "ints"), range(8)),
    _Version("Second", ("f", "i", "s", None, "ints"), _OLD_TYPES),
)


def early_reader(messages: Iterable[bytes]) -> Callable[[bytes], Node]:
    """Return what reads a file's nodes, by the first attribute in it.

    It raises DecodeError or IndexError where a message is no node of that version.
    """
    for message in messages:
        try:
            for data in _MESSAGES["Next"].FromString(message).attribute:
                version = max(_VERSIONS, key=lambda known: _value(known, data)[1] is not None)
                return partial(_next, version)
        except DecodeError:
            continue  # told when it is read
    return _first


def _value(version: _Version, data: bytes) -> tuple[str, Any]:
    """Return an attribute's name and value; None where it is not as its type says."""
    attribute = _MESSAGES[version.message].FromString(data)
    name = version.values[attribute.type] if attribute.type < len(version.values) else None
    if name == "ints":
        return attribute.name, list(attribute.ints)
    return attribute.name, getattr(attribute, name) if name and attribute.HasField(name) else None


def _next(version: _Version, message: bytes) -> Node:
    node = _MESSAGES["Next"].FromString(message)
    told = dict(_value(version, data) for data in node.attribute)
    attributes = {_RENAMED.get(name, name): value for name, value in told.items() if value is not None}
    kind = version.types[node.type]
    collective = attributes.pop("comm_type", None)
    if TYPES[kind] == "COMM_COLL_NODE" and isinstance(collective, int):
        attributes["comm_type"] = _NEXT_COLLECTIVES[collective]
    runtime = attributes.pop("runtime", 0)
    duration_ns = runtime * 1000 if isinstance(runtime, int) and runtime > 0 else 0
    after = tuple(dict.fromkeys(node.parent))
    return Node(node.id, node.name, kind, after, (), 0, duration_ns, attributes, node.inputs)


def _first(message: bytes) -> Node:
    node = _MESSAGES["First"].FromString(message)
    kind = _OLD_TYPES[node.node_type]
    attributes: dict[str, Any] = {}
    if TYPES[kind].startswith("COMM"):
        attributes = {name: getattr(node, name) for name in ("comm_size", "comm_src", "comm_dst", "comm_tag")}
        collective = _FIRST_COLLECTIVES[node.comm_type]
        if collective is not None and TYPES[kind] == "COMM_COLL_NODE":
            attributes["comm_type"] = collective
        if node.communicator_id:
            attributes["pg_name"] = str(node.communicator_id)
    after = tuple(dict.fromkeys(node.parent))
    return Node(node.id, node.name, kind, after, (), 0, node.simulated_run_time, attributes)

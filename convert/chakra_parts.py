"""Communication nodes of a Chakra file as collectives, and the ranks of their groups."""

import json
from collections.abc import Mapping
from typing import Any

from ..schemas.errors import InputError
from ..schemas.tables import TRACE_TABLES
from .chakra_attributes import OWN, number_in, numbers_in, small_in, text_in
from .chakra_model import COLLECTIVES, POINT_TO_POINT, TYPES, Node
from .chakra_nodes import ChakraFile
from .chakra_spans import lane_of, on_host
from .parts import Group, Part

GROUPS = "comm_groups.json"
_OPERATIONS = TRACE_TABLES["collectives"].by_name["operation"].values
_QUOTES = "[]'\" "


def read_groups(file: ChakraFile) -> dict[str, tuple[int, ...]]:
    """Return the ranks of process groups: of the metadata node that PyTorch's converter writes, and of GROUPS."""
    found: dict[str, tuple[int, ...]] = {}
    for node in file.nodes.values():
        if TYPES[node.type] == "METADATA_NODE" and "pg_name" in node.inputs:
            for group in _loads(f"[{node.inputs.strip(_QUOTES)}]"):
                if isinstance(group, dict) and isinstance(group.get("ranks"), list) and group["ranks"]:
                    found[str(group.get("pg_name"))] = tuple(group["ranks"])
    beside = file.path.with_name(GROUPS)
    if beside.is_file():
        try:
            told = json.loads(beside.read_text())
            found |= {str(name): tuple(map(int, ranks)) for name, ranks in told.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{beside} is no list of ranks a group ({error}); correct or remove it"
            ) from error
    return found


def _loads(text: str) -> list[Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []


def part_of(node: Node, span: int, groups: Mapping[str, tuple[int, ...]]) -> Part | None:
    """Return a communication node as a collective; the host's own calls of one are none."""
    told = node.attributes
    operation = told.get(f"{OWN}operation")
    if operation not in _OPERATIONS:
        operation = POINT_TO_POINT.get(TYPES[node.type])
    if TYPES[node.type] == "COMM_COLL_NODE" and not operation and not on_host(node):
        kind = number_in(told, "comm_type")
        operation = COLLECTIVES[kind] if kind is not None and kind < len(COLLECTIVES) else "unknown"
    if not operation:
        return None
    peer = small_in(told, f"{OWN}peer", 0)
    if peer is None and operation in ("send", "recv"):
        peer = small_in(told, "comm_dst" if operation == "send" else "comm_src", 0)
    size = number_in(told, f"{OWN}size_bytes")
    end = node.start_ns + node.duration_ns
    return Part(
        span,
        -1,
        str(operation),
        "chakra",
        _group(node, str(operation), groups),
        node.start_ns,
        end,
        None,
        sequence=number_in(told, f"{OWN}sequence"),
        dtype=text_in(told, f"{OWN}dtype"),
        size_bytes=number_in(told, "comm_size") if size is None else size,
        in_split_bytes=numbers_in(told, f"{OWN}in_split_bytes"),
        out_split_bytes=numbers_in(told, f"{OWN}out_split_bytes"),
        peer=peer,
        algorithm=text_in(told, f"{OWN}algorithm"),
        protocol=text_in(told, f"{OWN}protocol"),
        channels=small_in(told, f"{OWN}channels"),
        on_gpu=not lane_of(node).startswith("thread"),
    )


def _group(node: Node, operation: str, groups: Mapping[str, tuple[int, ...]]) -> Group:
    number = text_in(node.attributes, "pg_name")
    ranks = groups.get(number or "")
    name = text_in(node.attributes, f"{OWN}communicator") or (f"group {number}" if number else None)
    if operation in ("send", "recv") and name is None:
        name = "all ranks"
    size = len(ranks) if ranks else small_in(node.attributes, f"{OWN}group_size")
    return Group(name, ranks, size, None, None if name else lane_of(node))

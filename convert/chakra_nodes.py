"""Chakra execution traces as files: nodes of any version, protobuf or JSON, one after another.

Messages and numbers are those of mlcommons/chakra: schema/protobuf/et_def.proto (commit 6dc63e14), whose field
numbers are those of et_def/et_def.proto before it (06237b0c, where GlobalMetadata had its attributes in field
1); files that begin with a node are older (`chakra_early`). A file is a sequence of messages, each behind its
length as a varint (src/third_party/utils/protolib.py); JSON is what src/jsonizer/jsonizer.py prints, one object
behind another.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice, tee
from pathlib import Path
from typing import Any, BinaryIO, cast

from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError

from ..schemas.errors import InputError
from .chakra_early import early_reader
from .chakra_model import TYPES, Node
from .files import allowed_bytes
from .messages import message_classes

LARGEST_MESSAGE = 1 << 26
LATEST_NS = 1 << 62
_PIECE_BYTES = 1 << 20

_VALUES = (
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64", "sfixed32",
    "sfixed64", "bool", "string", "bytes",
)  # fmt: skip
MESSAGES = message_classes(
    "eidola.chakra",
    "proto3",
    {
        "AttributeProto": (
            "1 name string",
            "2 doc_string string",
            *(f"{3 + 2 * i} {v}_val {v}/value" for i, v in enumerate(_VALUES)),
            *(f"{4 + 2 * i} {v}_list {v.title()}List/value" for i, v in enumerate(_VALUES)),
        ),
        **{f"{v.title()}List": (f"1 values *{v}",) for v in _VALUES},
        "GlobalMetadata": ("1 version string", "2 attr *AttributeProto"),
        "OldMetadata": ("1 attr *AttributeProto",),
        "IOInfo": ("1 values string", "2 shapes string", "3 types string"),
        "Node": (
            "1 id uint64",
            "2 name string",
            "3 type NodeType",
            "4 ctrl_deps *uint64",
            "5 data_deps *uint64",
            "6 start_time_micros uint64",
            "7 duration_micros uint64",
            "8 inputs IOInfo",
            "9 outputs IOInfo",
            "10 attr *AttributeProto",
        ),
    },
    {"NodeType": TYPES},
)

_AHEAD = 1000
"""Of the first nodes of an early file, one has an attribute, or there are none."""


@dataclass
class ChakraFile:
    """What a file holds; `truncated` where it ends inside a node."""

    path: Path
    metadata: dict[str, Any] = field(default_factory=dict)
    nodes: dict[int, Node] = field(default_factory=dict)
    truncated: bool = False


def read_nodes(path: Path) -> ChakraFile:
    """Read a file. Raises InputError where it is none of a known version, or repeats a node."""
    file = ChakraFile(path)
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb") as data:
            start = data.read(1)
            data.seek(0)
            nodes = (
                _json_nodes(file, data) if start in b"{[" and _is_json(data) else _binary_nodes(file, data)
            )
            for node in nodes:
                _check(file, node)
                file.nodes[node.id] = node
    except EOFError:
        file.truncated = True
    except (OSError, zlib.error) as error:
        raise InputError(f"{path} cannot be read ({error}); is it whole?") from error
    if not file.nodes:
        raise InputError(f"{path} holds no Chakra node; give an .et file, or the JSON of one")
    return file


def _check(file: ChakraFile, node: Node) -> None:
    if node.id in file.nodes:
        raise InputError(f"{file.path}: node {node.id} is there twice; write the trace again")
    if max(node.start_ns, node.duration_ns) > LATEST_NS:
        raise InputError(f"{file.path}: node {node.id} has a time beyond 146 years; write the trace again")


def _is_json(data: BinaryIO) -> bool:
    start = data.read(1 << 10)
    data.seek(0)
    return start[1:].lstrip()[:1] in (b'"', b"{", b"}")


def _binary_nodes(file: ChakraFile, data: BinaryIO) -> Iterator[Node]:
    """Yield the nodes of a protobuf file; its metadata go to `file`."""
    frames = _to_the_end(file, _frames(file, data))
    first = next(frames, b"")
    read: Callable[[bytes], Node] = _node
    if first[:1] == b"\x08":  # field 1 is a number: a node's id, where metadata have text
        ahead, frames = tee(chain([first], frames))
        read = early_reader(islice(ahead, _AHEAD))
        del ahead  # or it would keep what it has not read
    elif first:
        with _named(file, 0):
            file.metadata = parse_metadata(first)
    for number, message in enumerate(frames, start=1 - (read is not _node)):
        with _named(file, number):
            node = read(message)
        yield node


@contextmanager
def _named(file: ChakraFile, number: int) -> Iterator[None]:
    try:
        yield
    except (DecodeError, IndexError) as error:
        raise InputError(
            f"{file.path}: message {number} is no Chakra node ({error}); is it an .et file?"
        ) from error


def _to_the_end(file: ChakraFile, frames: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the frames up to where gzip breaks off."""
    try:
        yield from frames
    except EOFError:
        file.truncated = True


def _frames(file: ChakraFile, data: BinaryIO) -> Iterator[bytes]:
    while head := data.read(1):
        size = shift = 0
        while True:
            size |= (head[0] & 0x7F) << shift
            if head[0] < 0x80:
                break
            shift += 7
            head = data.read(1)
            if not head or shift > 35:
                file.truncated = True
                return
        if size > LARGEST_MESSAGE:
            raise InputError(
                f"{file.path}: a message of {size} bytes, and Chakra's are small ({LARGEST_MESSAGE}): no .et file?"
            )
        message = data.read(size)
        if len(message) < size:
            file.truncated = True
            return
        yield message


def parse_metadata(message: bytes) -> dict[str, Any]:
    """Return the attributes of a GlobalMetadata of either version. Raises DecodeError where it is none."""
    try:
        parsed = MESSAGES["GlobalMetadata"].FromString(message)
        version = {"version": parsed.version} if parsed.version else {}
    except DecodeError:
        parsed, version = MESSAGES["OldMetadata"].FromString(message), {}
    return version | attributes_of(parsed)


def attributes_of(message: Any) -> dict[str, Any]:
    """Return the attributes of a message by name, lists as lists."""
    found = {}
    for attribute in message.attr:
        kind = attribute.WhichOneof("value")
        if kind:
            value = getattr(attribute, kind)
            found[attribute.name] = list(value.values) if kind.endswith("_list") else value
    return found


def node_of(node: Any) -> Node:
    """Return a message of the current version as a node."""
    attributes = attributes_of(node)
    start, duration = node.start_time_micros * 1000, node.duration_micros * 1000
    kind = node.type if 0 <= node.type < len(TYPES) else 0  # a later version's: left out, as what is invalid
    after, callers = tuple(dict.fromkeys(node.data_deps)), tuple(node.ctrl_deps)
    return Node(node.id, node.name, kind, after, callers, start, duration, attributes, node.inputs.values)


def _node(message: bytes) -> Node:
    return node_of(MESSAGES["Node"].FromString(message))


def _json_nodes(file: ChakraFile, data: BinaryIO) -> Iterator[Node]:
    """Yield the nodes of a JSON file: objects one behind another, or lists of them."""
    content, allowed = bytearray(), allowed_bytes(file.path)
    while piece := data.read(_PIECE_BYTES):  # not all at once: Python takes the memory for what it asks
        content += piece
        if len(content) > allowed:
            raise InputError(
                f"{file.path} is JSON of more than {allowed >> 20} MiB; give the .et file that it was made of"
            )
    text = content.decode("utf-8", "replace")
    decoder, at = json.JSONDecoder(), 0
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        if at == len(text):
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except RecursionError as error:
            raise InputError(f"{file.path}: its JSON is nested too deeply; Chakra's is flat") from error
        except ValueError as error:
            if not file.nodes:
                raise InputError(f"{file.path} is no JSON of Chakra nodes ({error})") from error
            file.truncated = True
            return
        for item in value if isinstance(value, list) else [value]:
            yield from _json_node(file, item)


def _json_node(file: ChakraFile, item: Any) -> Iterator[Node]:
    if not isinstance(item, Mapping):
        raise InputError(f"{file.path}: {str(item)[:40]!r} is no Chakra node; nodes are objects")
    is_node = any(name in item for name in ("id", "name", "type"))
    try:
        if is_node:
            yield node_of(ParseDict(dict(item), MESSAGES["Node"](), ignore_unknown_fields=True))
        elif "nodes" in item:
            for inner in item["nodes"]:
                yield from _json_node(file, inner)
        else:
            file.metadata |= attributes_of(
                ParseDict(dict(item), MESSAGES["GlobalMetadata"](), ignore_unknown_fields=True)
            )
    except (ParseError, TypeError, ValueError, RecursionError, SystemError) as error:
        # SystemError: what protobuf's C code raises for a key with half a surrogate pair
        raise InputError(f"{file.path}: a node that is none of Chakra's ({str(error)[:200]})") from error

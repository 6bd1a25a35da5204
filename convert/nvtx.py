"""NVTX ranges of an Nsight Systems database: NCCL's calls with their payloads, and the user's annotations."""

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .database import Database
from .nccl_calls import DTYPES, Call, operation_of_call
from .scanner import BACKENDS, NULL, RECORD

Ints = npt.NDArray[np.int64]
RANGES = (59, 60, 70, 71)
"""NvtxPushPopRange, NvtxStartEndRange and the imported kinds of both (ENUM_NSYS_EVENT_TYPE of schema 3.25)."""
_HEADER = struct.Struct("<IIIIQQ")
"""domain, 0, schema, 0, payload bytes, bytes in all: as nsys-ai's nccl_payload_breakdown.py read files of 2026."""
_TYPES = {
    3: "<h", 4: "<H", 5: "<i", 6: "<I", 7: "<q", 8: "<Q", 9: "<q", 10: "<Q", 11: "<b", 12: "<B", 13: "<h", 14: "<H",
    15: "<i", 16: "<I", 17: "<q", 18: "<Q", 22: "<Q",
}  # fmt: skip
"""NVTX_PAYLOAD_ENTRY_TYPE_*: short to size_t (nvToolsExtPayload.h of NVTX 3; long is 8 bytes on Linux)."""
COMMUNICATOR, RANK, RANKS, DEVICE = "NCCL communicator ID", "Rank", "No. of ranks", "CUDA device"
_SIZES = ("Message size [bytes]", "Bytes")
_PEERS = ("Peer rank", "Peer", "Root")
_DTYPES = ("Data type", "Datatype")
_OPERATORS = (", op_id = ", ", seq = ")
"""What torch.autograd.profiler.emit_nvtx puts behind the names of operators."""

Fields = dict[int, list[tuple[str, str, int]]]
"""Of a schema's entries: name, format and offset."""


@dataclass
class Range:
    """A range that NCCL pushed: name, process and thread, times, and its payload by name."""

    name: str
    global_tid: int
    start_ns: int
    end_ns: int
    payload: dict[str, int]


def load_schemas(database: Database) -> Fields:
    """Return the layouts of payloads that the database declares."""
    table = database.find("NVTX_PAYLOAD_SCHEMA_ENTRIES")
    fields: Fields = {}
    if table is None:
        return fields
    columns = ("schemaId", "type", "offset", "idx")
    for numbers, texts in database.batches(table, columns, texts=("name",)):
        rows = zip(*(numbers[n].tolist() for n in columns), texts["name"], strict=True)
        for schema, kind, offset, place, name in rows:
            entry = (name, _TYPES.get(kind, ""), 0 if offset == NULL else offset)
            placed = offset < 1 << 16 and (
                offset != NULL or place == 0
            )  # only the first may leave its offset out
            if isinstance(name, str) and entry[1] and placed and entry not in fields.setdefault(schema, []):
                fields[schema].append(entry)
    return fields


def payload(data: Any, text: Any, schemas: Fields) -> dict[str, int]:
    """Return what a range's binary payload, or else its JSON text, says; empty where neither can be read."""
    if isinstance(data, str):
        try:
            data = bytes.fromhex(data)
        except ValueError:
            data = None
    if isinstance(data, bytes) and len(data) >= _HEADER.size:
        fields = schemas.get(_HEADER.unpack_from(data)[2], [])
        body = data[_HEADER.size :]
        return {
            name: struct.unpack_from(form, body, offset)[0]
            for name, form, offset in fields
            if offset >= 0 and offset + struct.calcsize(form) <= len(body)
        }
    if isinstance(text, str):
        try:
            given = json.loads(text)
        except (ValueError, RecursionError):
            return {}
        if isinstance(given, dict):
            return {k: v for k, v in given.items() if isinstance(v, int) and not isinstance(v, bool)}
    return {}


def nccl_ranges(database: Database, which: str, process: int | None = None) -> Iterator[Range]:
    """Yield the ranges whose names match the GLOB pattern `which`, of one process or of all."""
    table = database.find("NVTX_EVENTS")
    if table is None or not {"start", "end", "globalTid"} <= table.columns:
        return
    strings = database.find("StringIds")
    schemas = load_schemas(database)
    names: dict[int, str] = {}
    if strings is not None and {"id", "value"} <= strings.columns and "textId" in table.columns:
        query = f"SELECT id, value FROM \"{strings.name}\" WHERE value GLOB '{which}' LIMIT 1000"
        names = dict(database.rows(query))
    named = f"t.textId IN ({', '.join(str(i) for i in names if isinstance(i, int))})" if names else "0"
    where = f"{of_process(process)} AND ({named}" + (
        f" OR t.text GLOB '{which}')" if "text" in table.columns else ")"
    )
    columns = ("start", "end", "globalTid", "textId", "jsonTextId")
    for numbers, texts in database.batches(table, columns, where, texts=("text", "binaryData", "jsonText")):
        ids = np.setdiff1d(numbers["jsonTextId"], [NULL])
        registered = dict(zip(ids.tolist(), database.strings(strings, ids, "value"), strict=True))
        rows = zip(*(numbers[n].tolist() for n in columns), *(texts[n] for n in texts), strict=True)
        for start, end, tid, text_id, json_id, text, data, js in rows:
            if NULL not in (start, end, tid):
                name = text if isinstance(text, str) else names.get(text_id, "")
                yield Range(name, tid, start, end, payload(data, js or registered.get(json_id), schemas))


def nccl_calls(database: Database, process: int | None) -> list[Call]:
    """Return the calls of NCCL that one process made."""
    calls = []
    for found in nccl_ranges(database, "nccl[A-Z]*", process):
        operation = operation_of_call(found.name)
        if operation is None:
            continue
        told = found.payload
        communicator = told.get(COMMUNICATOR)
        dtype = _first(told, _DTYPES)
        calls.append(
            Call(
                operation,
                thread(found.global_tid),
                found.start_ns,
                found.end_ns,
                count_bytes=_size(told),
                dtype=DTYPES[dtype][0] if dtype is not None and 0 <= dtype < len(DTYPES) else None,
                peer=_first(told, _PEERS),
                communicator=None if not communicator else name_of(communicator),
            )
        )
    return calls


def _first(told: dict[str, int], names: Sequence[str]) -> int | None:
    return next((told[n] for n in names if n in told), None)


def _size(told: dict[str, int]) -> int | None:
    size = _first(told, _SIZES)
    return size if size is not None and 0 <= size < 1 << 62 else None


def name_of(communicator: int) -> str:
    """Return the name of a communicator, from the hash that all its ranks share."""
    return f"nccl {communicator & (1 << 64) - 1:#x}"


def of_process(process: int | None) -> str:
    """Return SQL for the ranges of one process, whose threads' global ids begin with its own."""
    return "1" if process is None else f"t.globalTid BETWEEN {process} AND {process + 0xFFFFFF}"


def thread(global_tid: int) -> int:
    """Return the thread of a serialised global id (its low 24 bits; Nsight's export documentation)."""
    return global_tid & 0xFFFFFF


def annotations(database: Database, process: int | None) -> Iterator[tuple[list[str], Ints, Ints, Ints]]:
    """Yield (names, starts, ends, threads) of a process's ranges: the user's, and PyTorch's records of collectives.

    PyTorch's other operators are left out: ranges that `emit_nvtx` marked by a number and whose names have no
    space and no #, which those of `record_function` mostly do. So are NCCL's own ranges.
    """
    table = database.find("NVTX_EVENTS")
    if table is None or not {"start", "end", "globalTid"} <= table.columns:
        return
    plain = " AND ".join(f"instr(t.text, '{mark}') = 0" for mark in _OPERATORS)
    globs = [*(f"{name}*" for name in (RECORD, *BACKENDS)), *(f"*[ #]*{mark}*" for mark in _OPERATORS)]
    kept = " OR ".join(f"t.text GLOB '{pattern}'" for pattern in globs)
    has_text = "text" in table.columns
    where = f"{of_process(process)} AND t.eventType IN ({', '.join(map(str, RANGES))})" + (
        f" AND (t.text IS NULL OR ({plain}) OR {kept})" if has_text else ""
    )
    if "eventType" not in table.columns:
        where = where.replace(f"t.eventType IN ({', '.join(map(str, RANGES))})", "t.end IS NOT NULL")
    strings = database.find("StringIds")
    names: dict[int, str] = {}
    columns = ("start", "end", "globalTid", "textId")
    for numbers, texts in database.batches(table, columns, where, texts=("text",)):
        new = np.setdiff1d(numbers["textId"], np.array([NULL, *names], np.int64))
        names |= dict(zip(new.tolist(), map(_cut, database.strings(strings, new, "value")), strict=True))
        pairs = zip(texts["text"], numbers["textId"].tolist(), strict=True)
        words = [_cut(text) if isinstance(text, str) else names.get(key, "") for text, key in pairs]
        rows = np.array(
            [bool(w) and (not w.startswith("nccl") or w.startswith(BACKENDS)) for w in words], bool
        )
        rows &= numbers["globalTid"] != NULL
        chosen = np.flatnonzero(rows)
        yield (
            [words[i] for i in chosen.tolist()],
            numbers["start"][chosen],
            numbers["end"][chosen],
            thread_of(numbers["globalTid"][chosen]),
        )


def thread_of(global_tids: Ints) -> Ints:
    """Return `thread` of an array."""
    return global_tids & 0xFFFFFF


def _cut(text: str) -> str:
    """Return a range's name without an operator's numbers; empty for an operator that is not wanted."""
    name = text
    for mark in _OPERATORS:
        name = name.partition(mark)[0]
    wanted = name == text or " " in name or "#" in name or name.startswith((RECORD, *BACKENDS))
    return name if wanted else ""

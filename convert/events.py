"""Kineto's events as Arrow: what replay needs of a trace file, with times in exact integer nanoseconds.

Pieces of the file (`json_stream`) are parsed by Arrow in threads; a piece that Arrow refuses is read event by
event. Timestamps go from digits to decimals to integers, never through a float.
"""

import io
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from .json_stream import EventFile, find_objects, open_bytes, recover

THREADS = 2

KERNEL, COPY, CALL, ANNOTATION, SYNC, _OPERATOR = range(6)
_CATEGORIES = {
    # Names by age of the profiler: capitalised before 2022.
    "kernel": KERNEL,
    "Kernel": KERNEL,
    "gpu_memcpy": COPY,
    "gpu_memset": COPY,
    "Memcpy": COPY,
    "Memset": COPY,
    "cuda_runtime": CALL,
    "cuda_driver": CALL,
    "hip_runtime": CALL,
    "hip_driver": CALL,
    "Runtime": CALL,
    "user_annotation": ANNOTATION,
    "cuda_sync": SYNC,
    "cpu_op": _OPERATOR,
    "Operator": _OPERATOR,
}
_CATEGORY_NAMES = pa.array(list(_CATEGORIES))
_CATEGORY_KINDS = pa.array(list(_CATEGORIES.values()), pa.int8())
_CALLS = "(?i)launch|memcpy|memset|eventrecord|streamwaitevent|synchronize"
COLLECTIVE_NAME = r"^(nccl|rccl|gloo|ucc|mpi|xccl):"
_HOST_RECORD = f"^record_param_comms$|{COLLECTIVE_NAME}"

_TIME = pa.decimal128(38, 9)  # microseconds; nine decimals hold any timestamp seen (one to three)
_LIMIT_US = Decimal(2**63 // 1000)
_INTEGERS = {
    "external": "External id",
    "correlation": "correlation",
    "device": "device",
    "stream": "stream",
    "function": "Record function id",
    "wait_stream": "wait_on_stream",
    "wait_record": "wait_on_cuda_event_record_corr_id",
}
_ARGS = pa.struct([*((key, pa.int64()) for key in _INTEGERS.values()), ("grid", pa.list_(pa.int64()))])
_EVENT = pa.struct(
    [
        *((key, pa.string()) for key in ("ph", "cat", "name", "pid_text", "tid_text")),
        *((key, pa.int64()) for key in ("pid", "tid")),
        *((key, _TIME) for key in ("ts", "dur")),
        ("args", _ARGS),
    ]
)
_SCHEMA = pa.schema([("e", pa.list_(pa.list_(_EVENT)))])
# A pid or tid is an integer or a string, which no Arrow column holds: strings get a key of their own. The
# bytes searched for can only be a key, since inside a string the quotes would be escaped.
_TEXT_KEYS = [
    (f'"{key}":{space}"'.encode(), f'"{key}_text":{space}"'.encode())
    for key in ("pid", "tid")
    for space in ("", " ")
]
_MARKS = re.compile(rb'"Collective name"|"record_param_comms"|"(?:nccl|rccl|gloo|ucc|mpi|xccl):')

SCHEMA = pa.schema(
    [
        ("kind", pa.int8()),
        ("name", pa.dictionary(pa.int32(), pa.string())),  # few distinct ones, of up to thousands of bytes
        ("start_ns", pa.int64()),
        ("duration_ns", pa.int64()),
        ("tid", pa.int64()),
        *((key, pa.int64()) for key in _INTEGERS),
        ("grid_x", pa.int64()),
    ]
)


@dataclass
class Detail:
    """A host record or kernel that describes a collective: all its arguments, as JSON gave them."""

    name: str
    start_ns: int
    tid: int | None
    args: dict[str, Any]


@dataclass
class Events:
    """What was kept of one file: `table` has the columns of SCHEMA, times relative to `base_ns`."""

    path: Path
    table: pa.Table
    details: list[Detail]
    metadata: dict[str, Any]
    dropped: Counter[str]
    truncated: bool
    base_ns: int = 0


@dataclass
class _Piece:
    tables: list[pa.Table] = field(default_factory=list)
    details: list[Detail] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def read_events(path: Path) -> Events:
    """Read what replay needs of the Kineto file `path`.

    Raises InputError where the file cannot be opened, is no JSON, is empty or has no traceEvents. Broken
    events and a missing end are survived and counted in `dropped`.
    """
    file = EventFile(path)
    kept = _Piece()
    with open_bytes(path) as source, ThreadPoolExecutor(THREADS) as pool:
        for piece in _parsed(file, file.pieces(source), pool):
            kept.tables += piece.tables
            kept.details += piece.details
            kept.dropped += piece.dropped
    table = pa.concat_tables(kept.tables) if kept.tables else SCHEMA.empty_table()
    table = table.unify_dictionaries().combine_chunks()
    base = file.metadata.get("baseTimeNanoseconds")
    base_ns = base if isinstance(base, int) else 0
    return Events(
        path, table, kept.details, file.metadata, file.dropped + kept.dropped, file.truncated, base_ns
    )


def _parsed(file: EventFile, pieces: Iterator[bytes], pool: ThreadPoolExecutor) -> Iterator[_Piece]:
    """Parse pieces ahead in threads, yield them in order; recover what does not parse."""
    ahead: deque[tuple[bytes, Future[_Piece | None]]] = deque()
    rest = b""
    more = True
    while more or ahead:
        while more and len(ahead) <= THREADS:
            raw = next(pieces, None)
            more = raw is not None
            if raw is not None:
                ahead.append((raw, pool.submit(_parse, raw)))
        if not ahead:
            break
        raw, future = ahead.popleft()
        piece = _parse(rest + raw) if rest else future.result()
        raw, rest = rest + raw, b""
        if piece is None:
            piece, rest, ended = _read_rest(file, raw)
            if ended:
                file.end(rest + b"".join(later for later, _ in ahead))
                ahead.clear()
                rest = b""
        yield piece
    file.finish(rest)


def _read_rest(file: EventFile, raw: bytes) -> tuple[_Piece, bytes, bool]:
    """Read a piece with the array's end or a broken event; return it, the rest, and whether it ended."""
    for end in file.end_of_array(raw):
        if (piece := _parse(raw[:end])) is not None:
            return piece, raw[end:], True
    events, rest, ended = recover(raw, file.dropped)
    return _from_objects(events), rest, ended


def _parse(raw: bytes) -> _Piece | None:
    """Parse whole events separated by commas; None where they are not that, or not of the expected types."""
    body = raw.strip(b" \r\n\t,")
    for found, replacement in _TEXT_KEYS:
        if found in body:
            body = body.replace(found, replacement)
    # The events sit in two lists: a piece that runs on behind the array's end then cannot parse by accident.
    text = b'{"e":[[' + body + b"]]}"
    try:
        table = pj.read_json(
            io.BytesIO(text),
            read_options=pj.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pj.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        return None
    events = table["e"].combine_chunks().flatten().flatten()
    piece = _select(events)
    piece.details = list(_details(raw))
    return piece


def _details(raw: bytes) -> Iterator[Detail]:
    """Find the events of `raw` that describe collectives, and read all that they say."""
    for event in find_objects(raw, _MARKS, "ph"):
        if event["ph"] == "X" and "name" in event:
            yield from _detail(event)


def _detail(event: dict[str, Any]) -> Iterator[Detail]:
    start = _decimal(event.get("ts"))
    if start is not None:
        tid = event.get("tid")
        args = event.get("args")
        number = tid if isinstance(tid, int) else None
        yield Detail(str(event["name"]), int(start * 1000), number, args if isinstance(args, dict) else {})


def _from_objects(events: Iterable[dict[str, Any]]) -> _Piece:
    """Do for parsed events what `_parse` does for bytes."""
    events = list(events)
    piece = _select(pa.array([_plain(event) for event in events], _EVENT))
    for event in events:
        args = event.get("args")
        named = isinstance(args, dict) and "Collective name" in args
        if event.get("ph") == "X" and (named or re.search(_HOST_RECORD, str(event.get("name", "")))):
            piece.details += _detail(event)
    return piece


def _plain(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event of any types as one of _EVENT's; what does not fit is null."""
    args = event.get("args")
    args = args if isinstance(args, dict) else {}
    plain: dict[str, Any] = {k: str(event[k]) if k in event else None for k in ("ph", "cat", "name")}
    for key in ("pid", "tid"):
        plain[key] = _integer(event.get(key))
        plain[f"{key}_text"] = event[key] if isinstance(event.get(key), str) else None
    plain |= {key: _decimal(event.get(key)) for key in ("ts", "dur")}
    grid = args.get("grid")
    whole = isinstance(grid, list) and all(isinstance(n, int) for n in grid)
    plain["args"] = {key: _integer(args.get(key)) for key in _INTEGERS.values()} | {
        "grid": grid if whole else None
    }
    return plain


def _integer(value: Any) -> int | None:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if -(2**63) <= number < 2**63 else None


def _decimal(value: Any) -> Decimal | None:
    """Return a time in microseconds, given as a number or a string of digits, cut to whole nanoseconds."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    if not number.is_finite() or abs(number) >= _LIMIT_US:
        return None
    return Decimal(int(number * 1000)).scaleb(-3)


def _select(events: pa.StructArray) -> _Piece:
    """Keep the events that replay needs, in SCHEMA's columns; count those that cannot be placed in time."""
    dropped: Counter[str] = Counter()
    events, kinds = _kept(events)
    start, duration = whole_ns(events.field("ts")), whole_ns(events.field("dur"))
    good = pa.array([True] * len(events), pa.bool_())
    for reason, bad in (
        ("no timestamp", pc.is_null(start)),
        ("no duration", pc.is_null(duration)),
        ("negative duration", pc.less(duration, 0)),
    ):
        bad = pc.and_(pc.fill_null(bad, False), good)
        dropped[reason] += pc.sum(bad).as_py() or 0
        good = pc.and_not(good, bad)
    args = events.field("args")
    numbers = {name: pc.struct_field(args, [key]) for name, key in _INTEGERS.items()}
    numbers["stream"] = pc.coalesce(numbers["stream"], _digits(events.field("tid_text")), events.field("tid"))
    numbers["device"] = pc.coalesce(numbers["device"], events.field("pid"))
    grid = pc.struct_field(args, ["grid"])
    columns = {
        "kind": kinds,
        "name": pc.fill_null(events.field("name"), "").dictionary_encode(),
        "start_ns": start,
        "duration_ns": duration,
        "tid": pc.coalesce(events.field("tid"), _digits(events.field("tid_text"))),
        **numbers,
        "grid_x": pc.list_element(pc.if_else(pc.greater(pc.list_value_length(grid), 0), grid, None), 0)
        if len(events)
        else pa.nulls(0, pa.int64()),
    }
    table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA).filter(good)
    return _Piece([table], [], +dropped)


def _kept(events: pa.StructArray) -> tuple[pa.StructArray, pa.Array]:
    """Return the events that replay needs, and what each is (KERNEL ... SYNC)."""
    kinds = pc.take(_CATEGORY_KINDS, pc.index_in(events.field("cat"), _CATEGORY_NAMES))
    keep = pc.and_(pc.equal(events.field("ph"), "X"), pc.is_valid(kinds))
    events, kinds = events.filter(keep), kinds.filter(keep)
    names = events.field("name").dictionary_encode()
    is_call, is_record = (_matches(names, pattern) for pattern in (_CALLS, _HOST_RECORD))
    operator = pc.equal(kinds, _OPERATOR)
    keep = pc.if_else(pc.equal(kinds, CALL), is_call, pc.if_else(operator, is_record, True))
    kinds = pc.if_else(operator, pa.scalar(ANNOTATION, pa.int8()), kinds)
    return events.filter(keep), kinds.filter(keep)


def _matches(names: pa.DictionaryArray, pattern: str) -> pa.Array:
    """Return which names match, looking at each distinct one once."""
    found = pc.match_substring_regex(names.dictionary, pattern)
    return pc.fill_null(pc.take(found, names.indices), False)


def _digits(text: pa.Array) -> pa.Array:
    """Return the number in `stream 7`, null where there is none."""
    found = pc.struct_field(pc.extract_regex(text, r"(?P<number>\d{1,18})"), ["number"])
    return found.cast(pa.int64())


def whole_ns(microseconds: pa.Array) -> pa.Array:
    """Return decimal microseconds as int64 nanoseconds: less than one is cut, more than int64 is null."""
    limit = pa.scalar(_LIMIT_US, _TIME)
    fits = pc.and_(pc.less(microseconds, limit), pc.greater(microseconds, pc.negate(limit)))
    fitting = pc.if_else(fits, microseconds, pa.scalar(None, _TIME))
    milli = pc.cast(fitting, pa.decimal128(25, 3), safe=False)
    return pc.cast(pc.multiply(milli, pa.scalar(1000, pa.decimal128(4, 0))), pa.int64(), safe=False)

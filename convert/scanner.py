"""Trace events straight from bytes to columns of integers: a compiled scanner over pieces of whole events.

It reads what replay needs of an event and steps over the rest. Where it meets anything that it does not expect (a
broken string, a number with an exponent, an argument of another type) it gives the whole piece back, to be read
event by event by a JSON parser: it is fast where files are as profilers write them, and never the judge of others.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.compiled import compiler

_compiler = compiler("scanner", [Path(__file__)])
jit = _compiler.jit(nogil=True, _nrt=False)
inline = _compiler.jit(nogil=True, _nrt=False, forceinline=True)

NULL = np.iinfo(np.int64).min
"""Stands for a value that an event does not have."""

KERNEL, COPY, CALL, ANNOTATION, SYNC, OPERATOR = range(6)
CATEGORIES = {
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
    "cpu_op": OPERATOR,
    "Operator": OPERATOR,
}
BACKENDS = ("nccl:", "rccl:", "gloo:", "ucc:", "mpi:", "xccl:")
RECORD = "record_param_comms"

INTEGERS = {
    "external": "External id",
    "correlation": "correlation",
    "device": "device",
    "stream": "stream",
    "function": "Record function id",
    "wait_stream": "wait_on_stream",
    "wait_record": "wait_on_cuda_event_record_corr_id",
}
"""Columns of integers, and the argument that each is."""

COLUMNS = (
    *("phase", "category", "kind", "name", "start_ns", "duration_ns", "pid", "tid", "tid_number"),
    *INTEGERS,
    *("grid_x", "described", "begin", "end"),
)
_PHASE, _CATEGORY, _KIND, _NAME, _START, _DURATION, _PID, _TID, _TID_NUMBER, _EXTERNAL = range(10)
_GRID, _DESCRIBED, _BEGIN, _END = range(_EXTERNAL + len(INTEGERS), len(COLUMNS))


def _packed(words: Any) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return words as one array of bytes, and where each begins (and the last ends)."""
    data = [word.encode() for word in words]
    return np.frombuffer(b"".join(data), np.uint8), np.cumsum([0, *map(len, data)])


_KEYS, _KEY_AT = _packed(("ph", "cat", "name", "ts", "dur", "pid", "tid", "args"))
_ARGUMENTS, _ARGUMENT_AT = _packed((*INTEGERS.values(), "grid", "Collective name"))
_CATEGORY_NAMES, _CATEGORY_AT = _packed(CATEGORIES)
_CATEGORY_KINDS = np.array(list(CATEGORIES.values()))
_RECORDS, _RECORD_AT = _packed((RECORD, *BACKENDS))
_GRID_KEY, _COLLECTIVE_KEY = len(INTEGERS), len(INTEGERS) + 1
_LIMIT_US = 2**63 // 1000


@dataclass
class Scanned:
    """The events of a piece: `columns` by name (COLUMNS), NULL for what an event does not have.

    `name` and `category` index `texts`, distinct strings; `phase` is a character's code (0: none); `kind` is KERNEL
    to OPERATOR, -1 for what replay does not need; `tid_number` is the first number in a tid that is a string;
    `described` is 1 where the event says more of a collective; `begin` and `end` are its bytes.
    """

    columns: dict[str, npt.NDArray[np.int64]]
    texts: list[str]


def scan(raw: bytes, everything: bool) -> Scanned | None:
    """Scan `raw`, whole events separated by commas; None where it holds anything unexpected.

    Without `everything`, only complete (`X`) events that have to do with GPU work or collectives are kept.
    """
    data = np.frombuffer(raw, np.uint8)
    rows, names = len(raw) // 160 + 1024, 4096
    while True:
        out = np.empty((len(COLUMNS), rows), np.int64)
        slots = np.full(4 * names, -1, np.int32)
        text = np.empty((3, names), np.int64)
        count, texts = _scan(data, everything, out, slots, text)
        if count == _MORE_ROWS:
            rows *= 2
        elif count == _MORE_NAMES:
            names *= 8
        elif count < 0:
            return None
        else:
            begins, ends = text[0, :texts].tolist(), text[1, :texts].tolist()
            try:
                found = [_decoded(raw[begin:end]) for begin, end in zip(begins, ends, strict=True)]
            except ValueError:
                return None
            return Scanned({name: out[i, :count] for i, name in enumerate(COLUMNS)}, found)


def _decoded(raw: bytes) -> str:
    """Return the string whose JSON, without its quotes, is `raw`; raises ValueError where that is none."""
    text = raw.decode("utf-8", "replace")
    if "\\" in text:
        # Half a surrogate pair is no text.
        text = str(json.loads(f'"{text}"', strict=False)).encode("utf-8", "replace").decode()
    return text


def first_number(text: str) -> int | None:
    """Return the first number, of at most 18 digits, in a string."""
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    number = _first_number(data, 0, len(data))
    return None if number == NULL else int(number)


_BROKEN, _MORE_ROWS, _MORE_NAMES = -1, -2, -3
_QUOTE, _BACKSLASH, _COMMA, _COLON = 34, 92, 44, 58
_OPEN, _CLOSE, _LIST, _LIST_END = 123, 125, 91, 93
_X, _MINUS, _POINT, _ZERO, _NULL_LETTER = 88, 45, 46, 48, 110


_IN_STRING = np.zeros(256, np.uint8)
_IN_STRING[:32], _IN_STRING[_QUOTE], _IN_STRING[_BACKSLASH] = 3, 1, 2
_IN_VALUE = np.zeros(256, np.uint8)
_IN_VALUE[_QUOTE], _IN_VALUE[_COMMA] = 1, 4
_IN_VALUE[[_OPEN, _LIST]], _IN_VALUE[[_CLOSE, _LIST_END]] = 2, 3


@inline
def _blank(data: Any, i: int) -> int:
    """Return the first index from `i` on that is no white space."""
    while i < len(data) and (data[i] == 32 or 9 <= data[i] <= 13):
        i += 1
    return i


@inline
def _string_end(data: Any, i: int) -> int:
    """Return the index of the quote that ends the string whose content begins at `i`, or -1."""
    while i < len(data):
        meaning = _IN_STRING[data[i]]
        if meaning == 0:
            i += 1
        elif meaning == 1:
            return i
        elif meaning == 2:
            i += 2
        else:
            return -1
    return -1


@jit
def _skip(data: Any, i: int, depth: int) -> int:
    """Return the index behind the value at `i`; with a `depth`, behind the end of what is open so deep. Or -1."""
    while i < len(data):
        meaning = _IN_VALUE[data[i]]
        if meaning == 0:
            i += 1
            continue
        if meaning == 1:
            i = _string_end(data, i + 1)
            if i < 0:
                return -1
        elif meaning == 2:
            depth += 1
        elif meaning == 3:
            depth -= 1
            if depth < 0:
                return i  # behind a plain value, at what closes the object around it
        elif depth == 0:
            return i
        i += 1
        if depth == 0 and meaning != 4:
            return i
    return -1


@jit
def _word(data: Any, begin: int, end: int, words: Any, at: Any) -> int:
    """Return which of `words` the bytes from `begin` to `end` are, or -1."""
    for k in range(len(at) - 1):
        if at[k + 1] - at[k] == end - begin:
            j = 0
            while j < end - begin and data[begin + j] == words[at[k] + j]:
                j += 1
            if j == end - begin:
                return k
    return -1


@jit
def _is_record(data: Any, begin: int, end: int) -> bool:
    """Whether a name is that of a host record: RECORD, or one that begins with a backend."""
    if _word(data, begin, end, _RECORDS[: _RECORD_AT[1]], _RECORD_AT[:2]) == 0:
        return True
    for k in range(1, len(_RECORD_AT) - 1):
        length = _RECORD_AT[k + 1] - _RECORD_AT[k]
        if length <= end - begin:
            j = 0
            while j < length and data[begin + j] == _RECORDS[_RECORD_AT[k] + j]:
                j += 1
            if j == length:
                return True
    return False


@jit
def _integer(data: Any, i: int) -> Any:
    """Return the integer at `i`, plain or in quotes, and the index behind it, or -1.

    NULL for null and for what does not fit 64 bits.
    """
    quoted = i < len(data) and data[i] == _QUOTE
    if quoted:
        i += 1
    if i + 4 <= len(data) and data[i] == _NULL_LETTER and not quoted:
        return NULL, i + 4
    negative = i < len(data) and data[i] == _MINUS
    if negative:
        i += 1
    value, digits = 0, 0
    fits = True
    while i < len(data) and _ZERO <= data[i] <= 57:
        digit = data[i] - _ZERO
        if value > (2**63 - 1 - digit) // 10:
            fits = False
        else:
            value = value * 10 + digit
        digits += 1
        i += 1
    if digits == 0 or i >= len(data):
        return 0, -1
    if quoted:
        if data[i] != _QUOTE:
            return 0, -1
        i += 1
    elif data[i] != _COMMA and data[i] != _CLOSE and data[i] != _LIST_END and data[i] > 32:
        return 0, -1
    if not fits:
        return NULL, i
    return (-value if negative else value), i


@jit
def _time(data: Any, i: int) -> Any:
    """Return the microseconds at `i`, plain or in quotes, as whole nanoseconds, and the index behind, or -1."""
    quoted = i < len(data) and data[i] == _QUOTE
    if quoted:
        i += 1
    negative = i < len(data) and data[i] == _MINUS
    if negative:
        i += 1
    whole, digits = 0, 0
    while i < len(data) and _ZERO <= data[i] <= 57:
        if whole < _LIMIT_US:
            whole = whole * 10 + (data[i] - _ZERO)
        digits += 1
        i += 1
    part, scale = 0, 100
    if i < len(data) and data[i] == _POINT:
        i += 1
        while i < len(data) and _ZERO <= data[i] <= 57:
            part += (data[i] - _ZERO) * scale
            scale //= 10
            digits += 1
            i += 1
    if digits == 0 or i >= len(data):
        return 0, -1
    if quoted:
        if data[i] != _QUOTE:
            return 0, -1
        i += 1
    elif data[i] != _COMMA and data[i] != _CLOSE and data[i] > 32:
        return 0, -1
    if whole >= _LIMIT_US:
        return NULL, i
    value = whole * 1000 + part
    return (-value if negative else value), i


@jit
def _is_escaped(data: Any, begin: int, end: int) -> Any:
    """Whether a string has escapes, whose digits are none of its text."""
    while begin < end and data[begin] != _BACKSLASH:
        begin += 1
    return begin < end


@jit
def _first_number(data: Any, begin: int, end: int) -> Any:
    """Return the first number, of at most 18 digits, in a string, or NULL."""
    while begin < end and not _ZERO <= data[begin] <= 57:
        begin += 1
    value, digits = 0, 0
    while begin < end and digits < 18 and _ZERO <= data[begin] <= 57:
        value = value * 10 + (data[begin] - _ZERO)
        begin += 1
        digits += 1
    return value if digits else NULL


@jit
def _grid(data: Any, i: int) -> Any:
    """Return the first number of the list of integers at `i` (NULL where there is none), and the index behind."""
    if i < len(data) and data[i] != _LIST:
        return NULL, _integer(data, i)[1]
    first: Any = NULL
    i, many = _blank(data, i + 1), 0
    while i < len(data) and data[i] != _LIST_END:
        value, i = _integer(data, i)
        if i < 0 or value == NULL:
            return 0, -1
        if many == 0:
            first = value
        many += 1
        i = _blank(data, i)
        if i < len(data) and data[i] == _COMMA:
            i = _blank(data, i + 1)
    return first, (i + 1 if i < len(data) else -1)


@jit
def _intern(data: Any, begin: int, end: int, slots: Any, text: Any, count: int) -> Any:
    """Return the number of a string among the distinct ones, and how many there now are."""
    hashed = np.uint64(14695981039346656037)  # FNV-1a
    for at in range(begin, end):
        hashed = (hashed ^ np.uint64(data[at])) * np.uint64(1099511628211)
    key: Any = np.int64(hashed & np.uint64(0x7FFFFFFFFFFFFFFF))
    slot: Any = key % len(slots)
    while slots[slot] >= 0:
        known = slots[slot]
        if text[2, known] == key and text[1, known] - text[0, known] == end - begin:
            j = 0
            while j < end - begin and data[text[0, known] + j] == data[begin + j]:
                j += 1
            if j == end - begin:
                return known, count
        slot = slot + 1 if slot + 1 < len(slots) else 0
    if count == text.shape[1]:
        return -1, count
    slots[slot] = count
    text[0, count], text[1, count], text[2, count] = begin, end, key
    return count, count + 1


@jit
def _arguments(data: Any, i: int, out: Any, row: int) -> Any:
    """Read the object of arguments at `i` into `row`; return the index behind it, or -1."""
    if i < len(data) and data[i] != _OPEN:
        return _skip(data, i, 0)
    i = _blank(data, i + 1)
    while i < len(data) and data[i] != _CLOSE:
        if data[i] != _QUOTE:
            return -1
        begin = i + 1
        end = _string_end(data, begin)
        if end < 0:
            return -1
        i = _blank(data, end + 1)
        if i >= len(data) or data[i] != _COLON:
            return -1
        i = _blank(data, i + 1)
        key = _word(data, begin, end, _ARGUMENTS, _ARGUMENT_AT)
        if key < 0:
            i = _skip(data, i, 0)
        elif key == _COLLECTIVE_KEY:
            out[_DESCRIBED, row] = 1
            i = _skip(data, i, 0)
        elif key == _GRID_KEY:
            out[_GRID, row], i = _grid(data, i)
        else:
            out[_EXTERNAL + key, row], i = _integer(data, i)
        if i < 0:
            return -1
        i = _blank(data, i)
        if i < len(data) and data[i] == _COMMA:
            i = _blank(data, i + 1)
        elif i < len(data) and data[i] != _CLOSE:
            return -1
    return i + 1 if i < len(data) else -1


@jit
def _unwanted(out: Any, row: int, recorded: int) -> bool:
    """Whether what is known so far of an event says that replay does not need it."""
    phase, kind = out[_PHASE, row], out[_KIND, row]
    if phase != NULL and phase != _X:
        return True
    return kind == -1 or (kind == OPERATOR and recorded == 0)


@jit
def _event(data: Any, i: int, everything: bool, out: Any, row: int, slots: Any, text: Any, texts: int) -> Any:
    """Read the event whose `{` is at `i` into `row`; return (the index behind or -1, kept, texts)."""
    for column in range(out.shape[0]):
        out[column, row] = NULL
    out[_DESCRIBED, row], out[_BEGIN, row] = 0, i
    recorded = -1
    i = _blank(data, i + 1)
    while i < len(data) and data[i] != _CLOSE:
        if data[i] != _QUOTE:
            return -1, False, texts
        begin = i + 1
        end = _string_end(data, begin)
        if end < 0:
            return -1, False, texts
        i = _blank(data, end + 1)
        if i >= len(data) or data[i] != _COLON:
            return -1, False, texts
        i = _blank(data, i + 1)
        key = _word(data, begin, end, _KEYS, _KEY_AT)
        if key < 0:
            i = _skip(data, i, 0)
        elif key <= 2:  # ph, cat, name
            if i >= len(data) or data[i] != _QUOTE:
                return -1, False, texts
            begin = i + 1
            end = _string_end(data, begin)
            if end < 0 or (key < 2 and _is_escaped(data, begin, end)):
                return -1, False, texts
            i = end + 1
            if key == 0:
                out[_PHASE, row] = data[begin] if end - begin == 1 else 0
            elif key == 1:
                which = _word(data, begin, end, _CATEGORY_NAMES, _CATEGORY_AT)
                out[_KIND, row] = _CATEGORY_KINDS[which] if which >= 0 else -1
                if everything:
                    out[_CATEGORY, row], texts = _intern(data, begin, end, slots, text, texts)
            else:
                recorded = 1 if _is_record(data, begin, end) else 0
                out[_BEGIN, row], out[_END, row] = begin, end  # interned once the event is known to be kept
                if recorded == 1:
                    out[_DESCRIBED, row] = 1
            if not everything and _unwanted(out, row, recorded):
                return _skip(data, i, 1), False, texts
        elif key == 3:
            out[_START, row], i = _time(data, i)
        elif key == 4:
            out[_DURATION, row], i = _time(data, i)
        elif key <= 6:
            if i < len(data) and data[i] == _QUOTE:
                end = _string_end(data, i + 1)
                if end < 0 or (key == 6 and _is_escaped(data, i + 1, end)):
                    return -1, False, texts
                out[_PID if key == 5 else _TID, row] = NULL
                if key == 6:
                    out[_TID_NUMBER, row] = _first_number(data, i + 1, end)
                i = end + 1
            else:
                out[_PID if key == 5 else _TID, row], i = _integer(data, i)
        else:
            i = _arguments(data, i, out, row)
        if i < 0:
            return -1, False, texts
        i = _blank(data, i)
        if i < len(data) and data[i] == _COMMA:
            i = _blank(data, i + 1)
        elif i < len(data) and data[i] != _CLOSE:
            return -1, False, texts
    if i >= len(data):
        return -1, False, texts
    kept = everything or (
        out[_PHASE, row] == _X and out[_KIND, row] >= 0 and not _unwanted(out, row, max(recorded, 0))
    )
    if kept and recorded >= 0:
        out[_NAME, row], texts = _intern(data, out[_BEGIN, row], out[_END, row], slots, text, texts)
    return i + 1, kept, texts


@jit
def _scan(data: Any, everything: bool, out: Any, slots: Any, text: Any) -> tuple[int, int]:
    """Read all events; return how many rows of `out` and strings of `text` were filled, or why not."""
    i, row, texts = 0, 0, 0
    while True:
        i = _blank(data, i)
        while i < len(data) and data[i] == _COMMA:
            i = _blank(data, i + 1)
        if i >= len(data):
            return row, texts
        if data[i] != _OPEN:
            return _BROKEN, 0
        if row == out.shape[1]:
            return _MORE_ROWS, 0
        begin = i
        i, kept, texts = _event(data, i, everything, out, row, slots, text, texts)
        if i < 0:
            return _BROKEN, 0
        if kept:
            if out[_NAME, row] == -1 or out[_CATEGORY, row] == -1:
                return _MORE_NAMES, 0
            out[_BEGIN, row], out[_END, row] = begin, i
            row += 1

"""One file of rocprofv3's JSON as columns of integers, with what their numbers mean.

The layout is that of rocprofiler-sdk's generateJSON.cpp and of a file of ROCm 7: one object in the list
`rocprofiler-sdk-tool`, with metadata, agents, kernel_symbols, strings (names of operations by kind) and
buffer_records. What operations are called may stand behind records of them, which are then read again.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..schemas.errors import InputError
from .json_walk import CutError, Walker
from .narrow import Column
from .nccl_calls import Call
from .rocm import is_hip_call, rccl_call
from .scanner import NULL
from .scratch import Scratch

TOP = "rocprofiler-sdk-tool"
_RANGES, _OLD_RANGES = "MARKER_CORE_RANGE_API", "MARKER_CORE_API"
_OLD_NAMES = ("roctxRangePushA", "roctxRangeStartA")
"""The kind of roctx ranges since ROCm 7, and before, when marks and other calls of roctx were of it too: as
callback_tracing_callback wrote them (rocprofiler-sdk-tool/tool.cpp of ROCm 6.4)."""
Ints = npt.NDArray[np.int64]
_LISTS = {
    "strings": ("buffer_records", "marker_api"),
    "buffer_records": ("kernel_dispatch", "memory_copy", "hip_api", "rccl_api", "marker_api"),
}
_NAMES = "strings/buffer_records"


@dataclass
class ProfileFile:
    """What was read of a file.

    `columns` are of kind/name of records, `agents` and `symbols` (names of kernels) by handle, `operations` the
    name of each kind of call and the names of its calls, `messages` the texts of roctx ranges by correlation id,
    `calls` those of RCCL.
    """

    scratch: Scratch = field(default_factory=Scratch)
    columns: dict[str, Column] = field(default_factory=dict)
    agents: dict[int, dict[str, Any]] = field(default_factory=dict)
    symbols: dict[int, str] = field(default_factory=dict)
    operations: list[tuple[str, list[Any]]] = field(default_factory=list)
    messages: dict[int, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    truncated: bool = False

    def add(self, kind: str, row: dict[str, int]) -> None:
        """Append a record of a kind; NULL is no value."""
        for name, value in row.items():
            column = self.columns.get(f"{kind}/{name}")
            if column is None:
                column = self.columns[f"{kind}/{name}"] = Column(self.scratch)
            column.append(value)

    def rows(self, kind: str, *names: str) -> Iterator[tuple[Ints, ...]]:
        """Yield columns of the records of a kind, some rows at a time."""
        return zip(
            *(self.columns.get(f"{kind}/{n}", Column(self.scratch)).parts() for n in names), strict=True
        )

    def operation(self, kind: int, number_: int) -> str:
        """Return what a call is called; "" where the file does not tell."""
        names = self.operations[kind][1] if 0 <= kind < len(self.operations) else []
        name = names[number_] if 0 <= number_ < len(names) else ""
        return name if isinstance(name, str) else ""


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a file says of its process, its first member. Raises InputError where it ends before that."""
    with Walker(path) as walker:
        try:
            return next((value for key, value in _records(walker) if key == "metadata"), {})
        except CutError:
            raise InputError(f"{path} ends before it says whose it is; record it again") from None


def read_file(path: Path) -> ProfileFile:
    """Read a file; a second time where what operations are called stands behind records of them."""
    file = ProfileFile()
    if _take(path, file):
        file = ProfileFile(operations=file.operations)
        _take(path, file)
    return file


def _take(path: Path, file: ProfileFile) -> bool:
    """Add what `path` holds to `file`, which may have the operations' names; return whether these came late."""
    named, begun, late = bool(file.operations), False, False
    with Walker(path) as walker:
        try:
            for what, value in _records(walker):
                begun |= what.startswith("buffer_records/")
                if what == "metadata" or (named and what == _NAMES):
                    continue
                late |= begun and what == _NAMES
                if isinstance(value, dict):
                    _TAKERS[what](file, value)
                else:
                    file.dropped["not an object"] += 1
        except CutError:
            file.truncated = True
    return late


def _records(walker: Walker) -> Iterator[tuple[str, Any]]:
    """Yield (what, value): metadata, then agents, kernel symbols, names and records one by one, as they come."""
    for top in walker.members():
        if top != TOP:
            walker.skip()
            continue
        for process, _ in enumerate(walker.items()):
            if process:
                raise InputError(f"{walker.path} holds several processes; give a file a process")
            for key in walker.members():
                if key in ("agents", "kernel_symbols"):
                    yield from ((key, walker.value()) for _ in walker.items())
                elif key in ("strings", "buffer_records"):
                    yield from _lists(walker, key)
                elif key == "metadata":
                    yield key, object_in(walker.value())
                else:
                    walker.skip()


def _lists(walker: Walker, within: str) -> Iterator[tuple[str, Any]]:
    for name in walker.members():
        if name in _LISTS[within] and walker.peek() == "[":
            yield from ((f"{within}/{name}", walker.value()) for _ in walker.items())
        else:
            walker.skip()


def object_in(value: Any) -> dict[str, Any]:
    """Return an object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def integer_in(value: Any) -> int:
    """Return an integer of at most 62 bits, NULL for anything else; {"handle": n} counts as n."""
    if isinstance(value, dict):
        value = value.get("handle", value.get("internal", value.get("x")))
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and abs(value) < 1 << 62 else NULL


def _take_agent(file: ProfileFile, agent: dict[str, Any]) -> None:
    file.agents[integer_in(agent.get("id"))] = {
        k: v for k, v in agent.items() if not isinstance(v, (dict, list))
    }


def _take_symbol(file: ProfileFile, symbol: dict[str, Any]) -> None:
    names = (symbol.get(key) for key in ("formatted_kernel_name", "demangled_kernel_name", "kernel_name"))
    file.symbols[integer_in(symbol.get("kernel_id"))] = next(
        (n for n in names if isinstance(n, str) and n), ""
    )


def _take_operations(file: ProfileFile, names: dict[str, Any]) -> None:
    operations = names.get("operations")
    file.operations.append((str(names.get("kind")), operations if isinstance(operations, list) else []))


def _take_message(file: ProfileFile, pair: dict[str, Any]) -> None:
    file.messages[integer_in(pair.get("key"))] = str(pair.get("value"))


def _common(record: dict[str, Any]) -> dict[str, int]:
    return {
        "start": integer_in(record.get("start_timestamp")),
        "end": integer_in(record.get("end_timestamp")),
        "tid": integer_in(record.get("thread_id")),
        "correlation": integer_in(record.get("correlation_id")),
    }


def _take_dispatch(file: ProfileFile, record: dict[str, Any]) -> None:
    told = object_in(record.get("dispatch_info"))
    file.add("kernel_dispatch", {
        **_common(record), "agent": integer_in(told.get("agent_id")), "kernel": integer_in(told.get("kernel_id")),
        "stream": integer_in(record.get("stream_id")), "queue": integer_in(told.get("queue_id")),
        "grid": integer_in(told.get("grid_size")), "group": integer_in(told.get("workgroup_size")),
    })  # fmt: skip


def _take_copy(file: ProfileFile, record: dict[str, Any]) -> None:
    file.add("memory_copy", {
        **_common(record), "source": integer_in(record.get("src_agent_id")),
        "target": integer_in(record.get("dst_agent_id")), "bytes": integer_in(record.get("bytes")),
        "lane": integer_in(record.get("stream_id")), **_operation(record),
    })  # fmt: skip


def _operation(record: dict[str, Any]) -> dict[str, int]:
    return {"kind": integer_in(record.get("kind")), "operation": integer_in(record.get("operation"))}


def _take_hip_call(file: ProfileFile, record: dict[str, Any]) -> None:
    told = _operation(record)
    name = file.operation(told["kind"], told["operation"])
    if not name:
        file.dropped["call whose name the file does not have"] += 1
    elif is_hip_call(name):
        file.add("hip_api", {**_common(record), **told})


def _take_rccl_call(file: ProfileFile, record: dict[str, Any]) -> None:
    row, told = _common(record), _operation(record)
    if NULL in (row["start"], row["end"], row["tid"]):
        return
    args = record.get("args")
    listed = [a for a in args if isinstance(a, dict)] if isinstance(args, list) else []
    found = object_in(args) | {str(a.get("name")): a.get("value") for a in listed}
    call = rccl_call(
        file.operation(told["kind"], told["operation"]), row["tid"], row["start"], row["end"],
        max(row["correlation"], -1), {str(k): str(v) for k, v in found.items()},
    )  # fmt: skip
    if call is not None:
        file.calls.append(call)


def _take_marker(file: ProfileFile, record: dict[str, Any]) -> None:
    row, told = _common(record), _operation(record)
    name = file.operation(told["kind"], told["operation"])
    kind = file.operations[told["kind"]][0] if name else ""
    old = kind == _OLD_RANGES and name in _OLD_NAMES and _RANGES not in dict(file.operations)
    if (kind == _RANGES or old) and row["end"] > row["start"]:
        file.add("marker_api", {**row, **told})


_TAKERS: dict[str, Callable[[ProfileFile, dict[str, Any]], None]] = {
    "agents": _take_agent,
    "kernel_symbols": _take_symbol,
    _NAMES: _take_operations,
    "strings/marker_api": _take_message,
    "buffer_records/kernel_dispatch": _take_dispatch,
    "buffer_records/memory_copy": _take_copy,
    "buffer_records/hip_api": _take_hip_call,
    "buffer_records/rccl_api": _take_rccl_call,
    "buffer_records/marker_api": _take_marker,
}

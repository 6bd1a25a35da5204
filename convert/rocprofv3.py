"""rocprofv3's JSON -> a trace: a file is a process, which is a rank.

The layout is that of rocprofiler-sdk's generateJSON.cpp and of a file of ROCm 7: one object in the list
`rocprofiler-sdk-tool`, with metadata, agents, kernel_symbols, strings (names of operations by kind) and
buffer_records. Times are nanoseconds since the host's boot; a kernel shares its correlation id with the call that
launched it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas.errors import InputError, UsageError
from .formats import Format, Head
from .json_walk import CutError, Walker
from .narrow import Column
from .nccl_calls import Call
from .profile import Place, Profile, Rows, Task, build_record, dictionary, number, peer_copies
from .rank import RankRecord
from .rocm import (
    blocks,
    clock_of,
    copy_name,
    finished,
    is_hip_call,
    lanes_are_queues,
    rccl_call,
    unnamed_note,
)
from .scanner import ANNOTATION, CALL, COPY, KERNEL, NULL
from .scratch import Scratch

_TOP = "rocprofiler-sdk-tool"
_SUFFIXES = ("results.json", "results.json.gz")
_GPU = 2  # rocprofiler_agent_type_t
_RANGES, _OLD_RANGES = "MARKER_CORE_RANGE_API", "MARKER_CORE_API"
_OLD_NAMES = ("roctxRangePushA", "roctxRangeStartA")
"""The kind of roctx ranges since ROCm 7, and before, when marks and other calls of roctx were of it too: as
callback_tracing_callback wrote them (rocprofiler-sdk-tool/tool.cpp of ROCm 6.4)."""
Ints = npt.NDArray[np.int64]


def recognise(head: Head) -> bool:
    """Whether a file starts as rocprofv3's JSON does."""
    return head.start.lstrip()[:1] == b"{" and f'"{_TOP}"'.encode() in head.start[:1024]


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Task]:
    """Return a task a file given, or in folders (*results.json). Raises InputError where there is none."""
    del companions
    files = [f for path in paths for f in (_inside(path) if path.is_dir() else [path])]
    if len({f.resolve() for f in files}) < len(files):
        raise UsageError("a file is given twice; give every file once")
    if not files:
        raise InputError(
            f"no *results.json in {', '.join(map(str, paths))}; record with `rocprofv3 --output-format json`"
        )
    return finished(number(sorted(map(_place, files), key=lambda p: (p.host or "", p.pid))))


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(_SUFFIXES))


def _place(path: Path) -> Place:
    """Return which process a file is of, from its first member."""
    with Walker(path) as walker:
        try:
            told: dict[str, Any] = next((value for key, value in _records(walker) if key == "metadata"), {})
        except CutError:
            raise InputError(f"{path} ends before it says whose it is; record it again") from None
    host = _object(told.get("node")).get("hostname")
    pid, init = _integer(told.get("pid")), _integer(told.get("init_time"))
    return Place(
        path, "", max(pid, 0), -1, max(pid, 0), host if isinstance(host, str) else None,
        init_ns=init if init > 0 else None,
    )  # fmt: skip


def _records(walker: Walker) -> Iterator[tuple[str, Any]]:
    """Yield (what, value): metadata, then agents, kernel symbols, names and records one by one, as they come."""
    for top in walker.members():
        if top != _TOP:
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
                    yield key, _object(walker.value())
                else:
                    walker.skip()


_LISTS = {
    "strings": ("buffer_records", "marker_api"),
    "buffer_records": ("kernel_dispatch", "memory_copy", "hip_api", "rccl_api", "marker_api"),
}


def _lists(walker: Walker, within: str) -> Iterator[tuple[str, Any]]:
    for name in walker.members():
        if name in _LISTS[within] and walker.peek() == "[":
            yield from ((f"{within}/{name}", walker.value()) for _ in walker.items())
        else:
            walker.skip()


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _integer(value: Any) -> int:
    """Return an integer of at most 62 bits, NULL for anything else; {"handle": n} counts as n."""
    if isinstance(value, dict):
        value = value.get("handle", value.get("internal", value.get("x")))
    plain = isinstance(value, int) and not isinstance(value, bool)
    return value if plain and abs(value) < 1 << 62 else NULL


@dataclass
class _File:
    """What was read of a file: records as columns of integers, and what their numbers mean."""

    scratch: Scratch = field(default_factory=Scratch)
    columns: dict[str, Column] = field(default_factory=dict)
    agents: dict[int, dict[str, Any]] = field(default_factory=dict)
    symbols: dict[int, str] = field(default_factory=dict)
    operations: list[tuple[str, list[Any]]] = field(default_factory=list)
    messages: dict[int, str] = field(default_factory=dict)
    arguments: dict[int, dict[str, str]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    truncated: bool = False
    host: str | None = None
    named_late: bool = False

    def add(self, kind: str, row: dict[str, int]) -> None:
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
        names = self.operations[kind][1] if 0 <= kind < len(self.operations) else []
        name = names[number_] if 0 <= number_ < len(names) else ""
        return name if isinstance(name, str) else ""


def read(task: Task, alone: bool) -> list[RankRecord]:
    """Read the rank of a file; where it is the only one, each GPU that its process used is a rank."""
    file = _read_file(task.place.path)
    used: Counter[int] = Counter()
    for (agent,) in file.rows("kernel_dispatch", "agent"):
        used.update(agent[agent != NULL].tolist())
    if not used:
        raise InputError(
            f"{task.place.path} holds no kernel dispatch; was `rocprofv3` run with --kernel-trace or --sys-trace?"
        )
    gpus = sorted(used, key=lambda a: (_integer(file.agents.get(a, {}).get("node_id")), a))
    if not alone or len(gpus) == 1:
        main = used.most_common(1)[0][0]
        profile = _profile(file, task, main, frozenset(gpus))
        del file
        return [build_record(profile)]
    ranks = {gpu: rank for rank, gpu in enumerate(gpus)}
    note = (
        f"{task.place.path.name} is of one process on {len(gpus)} GPUs; each is a rank, in the host's order"
    )
    records = []
    for gpu, rank in ranks.items():
        own = replace(task, rank=rank, peers=tuple(ranks.items()), notes=(*task.notes, note))
        records.append(build_record(_profile(file, own, gpu, frozenset({gpu}))))
    return records


FORMAT = Format(name="rocprofv3", recognise=recognise, plan=plan, read=read)


def _read_file(path: Path) -> _File:
    """Read a file; a second time where what operations are called stands behind records of them."""
    file = _taken(path, _File())
    return _taken(path, _File(operations=file.operations)) if file.named_late else file


def _taken(path: Path, file: _File) -> _File:
    """Add what `path` holds to `file`, but for the operations' names where it has them."""
    named = bool(file.operations)
    takers: dict[str, Callable[[_File, dict[str, Any]], None]] = {
        "metadata": _take_metadata,
        "agents": _take_agent,
        "kernel_symbols": _take_symbol,
        "strings/buffer_records": _take_operations,
        "strings/marker_api": _take_message,
        "buffer_records/kernel_dispatch": _take_dispatch,
        "buffer_records/memory_copy": _take_copy,
        "buffer_records/hip_api": _take_hip_call,
        "buffer_records/rccl_api": _take_rccl_call,
        "buffer_records/marker_api": _take_marker,
    }
    with Walker(path) as walker:
        try:
            for what, value in _records(walker):
                if what == "strings/buffer_records":
                    if named:
                        continue
                    file.named_late |= bool(file.columns)
                if isinstance(value, dict):
                    takers[what](file, value)
                else:
                    file.dropped["not an object"] += 1
        except CutError:
            file.truncated = True
    return file


def _take_metadata(file: _File, told: dict[str, Any]) -> None:
    host = _object(told.get("node")).get("hostname")
    file.host = host if isinstance(host, str) else None


def _take_agent(file: _File, agent: dict[str, Any]) -> None:
    file.agents[_integer(agent.get("id"))] = {
        k: v for k, v in agent.items() if not isinstance(v, (dict, list))
    }


def _take_symbol(file: _File, symbol: dict[str, Any]) -> None:
    names = (symbol.get(key) for key in ("formatted_kernel_name", "demangled_kernel_name", "kernel_name"))
    file.symbols[_integer(symbol.get("kernel_id"))] = next((n for n in names if isinstance(n, str) and n), "")


def _take_operations(file: _File, names: dict[str, Any]) -> None:
    operations = names.get("operations")
    file.operations.append((str(names.get("kind")), operations if isinstance(operations, list) else []))


def _take_message(file: _File, pair: dict[str, Any]) -> None:
    file.messages[_integer(pair.get("key"))] = str(pair.get("value"))


def _common(record: dict[str, Any]) -> dict[str, int]:
    return {
        "start": _integer(record.get("start_timestamp")),
        "end": _integer(record.get("end_timestamp")),
        "tid": _integer(record.get("thread_id")),
        "correlation": _integer(record.get("correlation_id")),
    }


def _take_dispatch(file: _File, record: dict[str, Any]) -> None:
    told = _object(record.get("dispatch_info"))
    file.add("kernel_dispatch", {
        **_common(record), "agent": _integer(told.get("agent_id")), "kernel": _integer(told.get("kernel_id")),
        "stream": _integer(record.get("stream_id")), "queue": _integer(told.get("queue_id")),
        "grid": _integer(told.get("grid_size")), "group": _integer(told.get("workgroup_size")),
    })  # fmt: skip


def _take_copy(file: _File, record: dict[str, Any]) -> None:
    file.add("memory_copy", {
        **_common(record), "source": _integer(record.get("src_agent_id")),
        "target": _integer(record.get("dst_agent_id")), "bytes": _integer(record.get("bytes")),
        "lane": _integer(record.get("stream_id")), **_operation(record),
    })  # fmt: skip


def _operation(record: dict[str, Any]) -> dict[str, int]:
    return {"kind": _integer(record.get("kind")), "operation": _integer(record.get("operation"))}


def _take_hip_call(file: _File, record: dict[str, Any]) -> None:
    told = _operation(record)
    name = file.operation(told["kind"], told["operation"])
    if not name:
        file.dropped["call whose name the file does not have"] += 1
    elif is_hip_call(name):
        file.add("hip_api", {**_common(record), **told})


def _take_rccl_call(file: _File, record: dict[str, Any]) -> None:
    row = _common(record)
    args = record.get("args")
    listed = [a for a in args if isinstance(a, dict)] if isinstance(args, list) else []
    found = _object(args) | {str(a.get("name")): a.get("value") for a in listed}
    file.arguments[len(file.columns.get("rccl_api/start", ()))] = {str(k): str(v) for k, v in found.items()}
    file.add("rccl_api", {**row, **_operation(record)})


def _take_marker(file: _File, record: dict[str, Any]) -> None:
    row, told = _common(record), _operation(record)
    name = file.operation(told["kind"], told["operation"])
    kind = file.operations[told["kind"]][0] if name else ""
    old = kind == _OLD_RANGES and name in _OLD_NAMES and _RANGES not in dict(file.operations)
    if (kind == _RANGES or old) and row["end"] > row["start"]:
        file.add("marker_api", {**row, **told})


def _profile(file: _File, task: Task, main: int, gpus: frozenset[int]) -> Profile:
    """Return one rank: work of `gpus`, on whose first, `main`, it counts as running."""
    ordinal = {handle: _integer(agent.get("logical_node_type_id")) for handle, agent in file.agents.items()}
    ordinals = {handle: max(n, 0) for handle, n in ordinal.items()}
    place = replace(task.place, device=ordinals.get(main, 0), host=file.host)
    profile = Profile(replace(task, place=place), Rows(), _metadata(file, main, place), base_ns=task.base_ns)
    profile.rows.dropped += file.dropped
    profile.truncated = file.truncated
    profile.clock = clock_of(place)
    if len(gpus) > 1:
        profile.notes.append(
            f"{place.path.name}: the process used {len(gpus)} GPUs, which are lanes of one rank"
        )
    _add_kernels(file, profile, gpus, ordinals)
    _add_copies(file, profile, main, gpus, ordinals)
    _add_calls(file, profile)
    return profile


def _metadata(file: _File, main: int, place: Place) -> dict[str, Any]:
    agent = file.agents.get(main, {})
    model = agent.get("product_name") or agent.get("name")
    told = {"id": place.device, "name": model, "numSms": agent.get("cu_count")}
    return {"host_name": place.host, "deviceProperties": [told]}


def _ordinals(handles: Ints, ordinals: dict[int, int]) -> Ints:
    unique, places = np.unique(handles, return_inverse=True)
    return np.array([ordinals.get(h, NULL) for h in unique.tolist()], np.int64)[places]


def _lane(file: _File) -> str:
    """Return what tells lanes: streams where HIP's were recorded, else hardware queues."""
    parts = file.rows("kernel_dispatch", "stream", "queue")
    pairs = {(s, q) for part in parts for s, q in np.unique(np.stack(part, axis=1), axis=0).tolist()}
    return "queue" if lanes_are_queues(pairs) else "stream"


def _add_kernels(file: _File, profile: Profile, gpus: frozenset[int], ordinals: dict[int, int]) -> None:
    names = ("start", "end", "agent", "kernel", _lane(file), "correlation", "grid", "group")
    unnamed = 0
    for columns in file.rows("kernel_dispatch", *names):
        rows = np.isin(columns[2], list(gpus))
        start, end, agent, kernel, lane, correlation, grid, group = (c[rows] for c in columns)
        ids, places = np.unique(kernel, return_inverse=True)
        known = [file.symbols.get(i, "") for i in ids.tolist()]
        unnamed += int(np.array([not word for word in known], bool)[places].sum())
        words = dictionary([word or "unnamed kernel" for word in known], places)
        profile.rows.add(
            KERNEL, words, start, end, device=_ordinals(agent, ordinals), stream=lane, correlation=correlation,
            grid_x=blocks(grid, group),
        )  # fmt: skip
    profile.notes += unnamed_note(profile.task.place, unnamed)


def _add_copies(
    file: _File, profile: Profile, main: int, gpus: frozenset[int], ordinals: dict[int, int]
) -> None:
    """Add the copies of a rank: of its source's, or where that is no GPU of a rank, of its destination's."""
    names = ("start", "end", "source", "target", "lane", "correlation", "bytes", "kind", "operation")
    ranks = dict(profile.task.peers)
    others = [gpu for gpu in ranks if gpu not in gpus]
    agents = {handle for handle, agent in file.agents.items() if agent.get("type") == _GPU}
    strangers = list(agents - gpus - set(ranks))
    abroad = 0
    for columns in file.rows("memory_copy", *names):
        rows = np.isin(columns[2], list(gpus)) | (
            np.isin(columns[3], list(gpus)) & ~np.isin(columns[2], others)
        )
        start, end, source, target, lane, correlation, size, kind, operation = (c[rows] for c in columns)
        words = _operations(file, kind, operation, copy_name)
        device = _ordinals(np.where(np.isin(source, list(gpus)), source, target), ordinals)
        away = (source == main) & np.isin(target, others)
        profile.rows.add(
            COPY, words, start, end, device=device, stream=lane, correlation=correlation,
            **peer_copies(away, target, size, ranks),
        )  # fmt: skip
        abroad += int((np.isin(source, list(gpus)) & np.isin(target, strangers)).sum())
    if abroad:
        profile.notes.append(
            f"{profile.task.place.path.name}: {abroad} copies go to GPUs of other processes; which ranks these are "
            "is not told, so they are no writes"
        )


def _operations(
    file: _File, kind: Ints, operation: Ints, name: Callable[[str], str] = str
) -> pa.DictionaryArray:
    """Return the names of operations, each of its kind."""
    ids, places = np.unique(np.stack([kind, operation], axis=1), axis=0, return_inverse=True)
    return dictionary([name(file.operation(*pair)) for pair in ids.tolist()], places.reshape(-1))


def _add_calls(file: _File, profile: Profile) -> None:
    names = ("start", "end", "tid", "correlation", "kind", "operation")
    for start, end, tid, correlation, kind, operation in file.rows("hip_api", *names):
        words = _operations(file, kind, operation)
        profile.rows.add(CALL, words, start, end, tid=tid, correlation=correlation)
    for start, end, tid, correlation, _, _ in file.rows("marker_api", *names):
        texts = [file.messages.get(i) or "roctx range" for i in correlation.tolist()]
        words = pa.array(texts, pa.string()).dictionary_encode()
        profile.rows.add(ANNOTATION, words, start, end, tid=tid, correlation=correlation)
    rccl = (
        row for part in file.rows("rccl_api", *names) for row in zip(*(c.tolist() for c in part), strict=True)
    )
    made = (_rccl_call(file, i, *call) for i, call in enumerate(rccl))
    profile.calls = [call for call in made if call is not None]
    if "hip_api/start" not in file.columns:
        profile.notes.append(
            f"{profile.task.place.path.name} has no HIP calls: nothing says what launched kernels; record with "
            "--sys-trace"
        )


def _rccl_call(
    file: _File, index: int, start: int, end: int, tid: int, correlation: int, kind: int, operation: int
) -> Call | None:
    if NULL in (start, end, tid):
        return None
    name = file.operation(kind, operation)
    return rccl_call(name, tid, start, end, max(correlation, -1), file.arguments.get(index, {}))

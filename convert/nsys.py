"""Nsight Systems' SQLite exports (schemas 3.13 to 3.25) -> a trace: a process on a GPU is a rank.

Tables are made only where something was recorded, so that each may be absent. Table and column names, and ids
that are serialised (globalTid is globalPid and the thread's low 24 bits), are those of NVIDIA's export
documentation and of exports of schema 3.25.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas.errors import InputError, UsageError
from .database import MAGIC, Database, open_database
from .events import is_call
from .formats import Format, Head
from .narrow import Column
from .nvtx import COMMUNICATOR, DEVICE, RANK, RANKS, annotations, name_of, nccl_calls, nccl_ranges, thread_of
from .parts import Group
from .profile import Place, Profile, Rows, Task, build_record, dictionary, number, peer_copies
from .rank import RankRecord
from .rocm import rank_in_environment
from .scanner import ANNOTATION, CALL, COPY, KERNEL, NULL, SYNC
from .sorting import Lookup, every

_MARKS = ("CUPTI_ACTIVITY_KIND_KERNEL", "NVTX_EVENTS", "TARGET_INFO_SESSION_START_TIME", "META_DATA_EXPORT")
_SUFFIXES = (".sqlite", ".sqlite.gz", ".db")
_ABSOLUTE_NS = 10**18
_HOST_WORLD = 2
_COPY_KINDS = {
    1: "HtoD", 2: "DtoH", 3: "HtoA", 4: "AtoH", 5: "AtoA", 6: "AtoD", 7: "DtoA", 8: "DtoD", 9: "HtoH", 10: "PtoP",
    11: "HtoD", 12: "DtoH", 13: "DtoD",
}  # fmt: skip
_BETWEEN_GPUS = (8, 10, 13)
"""ENUM_CUDA_MEMCPY_OPER; those from 11 on are migrations of unified memory."""
_MEMORY_KINDS = (
    "Pageable",
    "Pinned",
    "Device",
    "Array",
    "Managed",
    "Device Static",
    "Managed Static",
    "Unknown",
)
"""ENUM_CUDA_MEM_KIND."""
_OF_EVENTS = ("eventSyncId", "streamId", "correlationId")
_STREAM_WAIT, _EVENT_SYNC = 2, 1  # ENUM_CUPTI_SYNC_TYPE
_KERNEL, _MEMCPY, _MEMSET, _GRAPH, _RUNTIME, _SYNC, _EVENT = (
    f"CUPTI_ACTIVITY_KIND_{name}"
    for name in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE", "RUNTIME", "SYNCHRONIZATION", "CUDA_EVENT")
)
Ints = npt.NDArray[np.int64]


def recognise(head: Head) -> bool:
    """Whether a file is a database with Nsight's tables; one that is gzip is told by its first pages."""
    if not head.start.startswith(MAGIC):
        return False
    if any(f"CREATE TABLE {name}".encode() in head.start for name in _MARKS):
        return True
    with head.path.open("rb") as file:
        if file.read(2) == b"\x1f\x8b":
            return b"CREATE TABLE ENUM_NSYS" in head.start
    try:
        with open_database(head.path) as database:
            return any(database.find(name) for name in _MARKS)
    except InputError:
        return False


def plan(paths: Sequence[Path], companions: Sequence[Path]) -> list[Task]:
    """Return a task a rank of the databases given, or in folders. Raises InputError where there is none."""
    del companions
    files = [f for path in paths for f in (_inside(path) if path.is_dir() else [path])]
    if len({f.resolve() for f in files}) < len(files):
        raise UsageError("a database is given twice; give every file once")
    if not files:
        raise InputError(
            f"no *.sqlite in {', '.join(map(str, paths))}; export reports with `nsys export -t sqlite`"
        )
    if reports := [f for f in files if f.suffix in (".nsys-rep", ".qdrep")]:
        raise InputError(
            f"{reports[0]} is a report before its export; give what `nsys export -t sqlite --include-blobs=true` "
            "writes of it"
        )
    places: list[Place] = []
    members: dict[int, dict[int, Place]] = {}
    sizes: dict[int, int] = {}
    for file in files:
        with open_database(file) as database:
            own = _places(database)
            own = _told(database, own, members, sizes)
        places += own
    tasks = number(places)
    groups = _groups(tasks, members, sizes)
    first, *rest = tasks
    note = "what kernels store into peers' memory is no event for Nsight Systems: such writes are not in the trace"
    return [replace(t, groups=groups) for t in (replace(first, notes=(*first.notes, note)), *rest)]


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(_SUFFIXES))


def _places(database: Database) -> list[Place]:
    """Return the processes that ran kernels, and where; where none did, those that copied."""
    system = _environment(database)
    host = system.get("Hostname")
    physical = _physical(database)
    for tables in ((_KERNEL, _GRAPH), (_MEMCPY, _MEMSET)):
        found: set[tuple[int, int]] = set()
        for name in tables:
            table = database.find(name)
            if table is None or "deviceId" not in table.columns:
                continue
            process = "globalPid" if "globalPid" in table.columns else "NULL"
            rows = database.rows(f'SELECT DISTINCT {process}, deviceId FROM "{table.name}"')
            found |= {(p if isinstance(p, int) else -1, d) for p, d in rows if isinstance(d, int)}
        if found:
            break
    else:
        raise InputError(
            f"{database.path} holds no CUDA kernel or copy; was `nsys profile` run with `--trace=cuda,nvtx`?"
        )
    places = [
        Place(
            database.path, "", process, device, pid := process >> 24 & 0xFFFFFF if process >= 0 else 0, host,
            physical.get((pid, device)),
        )
        for process, device in sorted(found, key=lambda pair: (pair[1], pair[0]))
    ]  # fmt: skip
    return [_launched(system, places[0])] if len(places) == 1 else places


def _launched(system: dict[str, str], place: Place) -> Place:
    """Return the only place of a file with the rank that a launcher told nsys, where it started one a rank."""
    pairs = (word.partition("=") for word in system.get("DeviceEnvironment", "").split(";"))
    rank, size = rank_in_environment({name: value for name, _, value in pairs})
    return place if size is None or size < _HOST_WORLD else replace(place, rank=rank, world_size=size)


def _environment(database: Database) -> dict[str, str]:
    table = database.find("TARGET_INFO_SYSTEM_ENV")
    if table is None or not {"name", "value"} <= table.columns:
        return {}
    wanted = ("Hostname", "CudaDriverVersion", "NvDriverVersion", "DeviceEnvironment")
    marks = ", ".join("?" * len(wanted))
    rows = database.rows(f'SELECT name, value FROM "{table.name}" WHERE name IN ({marks})', wanted)
    return {name: str(value) for name, value in rows if value is not None}


def _physical(database: Database) -> dict[tuple[int, int], int]:
    """Return the host's number of each GPU, by process and the process's own number for it."""
    table = database.find("TARGET_INFO_CUDA_DEVICE")
    if table is None or not {"gpuId", "cudaId", "pid"} <= table.columns:
        return {}
    rows = database.rows(f'SELECT pid, cudaId, gpuId FROM "{table.name}"')
    return {(p, c): g for p, c, g in rows if all(isinstance(n, int) for n in (p, c, g))}


def _told(
    database: Database, places: list[Place], members: dict[int, dict[int, Place]], sizes: dict[int, int]
) -> list[Place]:
    """Return places with the rank that NCCL's payloads say: that in the process's largest communicator.

    `members` and `sizes` get the places and ranks of every communicator.
    """
    best: dict[Place, tuple[int, int]] = {}
    for found in nccl_ranges(database, "ncclComm*"):
        told = found.payload
        communicator, rank, size = (told.get(name) for name in (COMMUNICATOR, RANK, RANKS))
        if communicator is None or rank is None or size is None or not 0 <= rank < size < 1 << 24:
            continue
        near = [p for p in places if p.process == found.global_tid & ~0xFFFFFF or p.process < 0]
        near = [p for p in near if p.device == told.get(DEVICE)] or near
        if len(near) == 1:
            members.setdefault(communicator, {})[rank] = near[0]
            sizes[communicator] = size
            best[near[0]] = max(best.get(near[0], (0, 0)), (size, rank))
    return [
        replace(p, rank=best[p][1], world_size=best[p][0]) if p in best and best[p][0] >= _HOST_WORLD else p
        for p in places
    ]


def _groups(
    tasks: Sequence[Task], members: dict[int, dict[int, Place]], sizes: dict[int, int]
) -> tuple[Group, ...]:
    """Return the communicators whose members' ranks are known."""
    key = {(t.place.path, t.place.process, t.place.device): t.rank for t in tasks}
    groups = []
    for communicator, by_rank in members.items():
        own = {rank: key[(p.path, p.process, p.device)] for rank, p in by_rank.items()}
        whole = len(own) == sizes[communicator]
        ranks = tuple(own[r] for r in sorted(own)) if whole else None
        groups.append(Group(name_of(communicator), ranks, sizes[communicator], None))
    return tuple(groups)


def read(task: Task, alone: bool) -> list[RankRecord]:
    """Read the rank of `task`."""
    del alone
    with open_database(task.place.path) as database:
        process = task.place.process if task.place.process >= 0 else None
        profile = Profile(task, Rows(), _metadata(database, task.place), nccl_calls(database, process))
        _add_work(database, profile)
        _add_calls(database, profile)
        _add_syncs(database, profile)
        for names, start, end, tid in annotations(database, process):
            words = pa.array(names, pa.string()).dictionary_encode()
            profile.rows.add(ANNOTATION, words, start, end, tid=tid)
        profile.base_ns = _base_ns(database, profile)
        profile.clock = f"{task.place.path}, from {profile.base_ns}"
        if profile.calls and all(c.count_bytes is None for c in profile.calls):
            profile.notes.append(
                f"{task.place.path.name}: NCCL's ranges came without their payloads, which hold sizes, peers and "
                "communicators; export again with `nsys export --include-blobs=true`"
            )
        if database.find("NVTX_EVENTS") is None:
            profile.notes.append(
                f"{task.place.path.name} has no NVTX ranges, which tell what NCCL was called for; profile with "
                "`--trace=cuda,nvtx`"
            )
        if database.find("StringIds") is None:
            profile.notes.append(
                f"{task.place.path.name} has no table StringIds, which holds all names: its kernels have none, and "
                "none is known for a collective; export it again"
            )
    return [build_record(profile)]


FORMAT = Format(name="nsys", recognise=recognise, plan=plan, read=read)


def _of_place(place: Place, columns: frozenset[str]) -> str:
    """Return SQL for the rows of a process on a GPU."""
    own = f"t.globalPid = {place.process}" if place.process >= 0 and "globalPid" in columns else "1"
    return f"{own} AND t.deviceId = {place.device}" if "deviceId" in columns else own


def _add_work(database: Database, profile: Profile) -> None:
    """Add kernels, copies and sets of memory, and graphs that were recorded as a whole."""
    place, rows = profile.task.place, profile.rows
    strings = database.find("StringIds")
    common = ("start", "end", "deviceId", "streamId", "correlationId")
    if table := database.find(_KERNEL):
        name = next(
            (n for n in ("demangledName", "shortName", "mangledName") if n in table.columns), "shortName"
        )
        for batch, _ in database.batches(table, (*common, name, "gridX"), _of_place(place, table.columns)):
            ids, places = np.unique(batch[name], return_inverse=True)
            words = database.strings(strings, ids, "value")
            rows.add(KERNEL, dictionary([w or "unnamed kernel" for w in words], places), *_times(batch),
                     **_where(batch), grid_x=batch["gridX"])  # fmt: skip
    if table := database.find(_GRAPH):
        for batch, _ in database.batches(table, (*common, "graphId"), _of_place(place, table.columns)):
            ids, places = np.unique(batch["graphId"], return_inverse=True)
            words = [f"CUDA graph {'unknown' if i == NULL else i}" for i in ids.tolist()]
            rows.add(KERNEL, dictionary(words, places), *_times(batch), **_where(batch))
            profile.notes.append(
                f"{place.path.name}: CUDA graphs were recorded as a whole; for their kernels profile with "
                "`--cuda-graph-trace=node`"
            )
    abroad = 0
    for name, label in ((_MEMCPY, _copy_name), (_MEMSET, _set_name)):
        if table := database.find(name):
            columns = (
                *common,
                "bytes",
                "copyKind",
                "srcKind",
                "dstKind",
                "memKind",
                "srcDeviceId",
                "dstDeviceId",
            )
            for batch, _ in database.batches(table, columns, _of_place(place, table.columns)):
                keys = np.stack([batch[n] for n in ("copyKind", "srcKind", "dstKind", "memKind")], axis=1)
                kinds, places = np.unique(keys, axis=0, return_inverse=True)
                words = [label(*kind) for kind in kinds.tolist()]
                own, unknown = _peer_copies(profile, batch)
                abroad += unknown
                rows.add(COPY, dictionary(words, places.reshape(-1)), batch["start"], batch["end"],
                         **_where(batch), **own)  # fmt: skip
    if abroad:
        profile.notes.append(
            f"{place.path.name}: {abroad} copies of process {place.pid} go to GPUs of which no rank is known; they "
            "are no writes"
        )


def _times(batch: dict[str, Ints]) -> tuple[Ints, Ints]:
    return batch["start"], batch["end"]


def _where(batch: dict[str, Ints]) -> dict[str, Ints]:
    return {"device": batch["deviceId"], "stream": batch["streamId"], "correlation": batch["correlationId"]}


def _copy_name(kind: int, source: int, target: int, _: int) -> str:
    return f"Memcpy {_COPY_KINDS.get(kind, 'unknown')} ({_memory(source)} -> {_memory(target)})"


def _set_name(_: int, __: int, ___: int, memory: int) -> str:
    return f"Memset ({_memory(memory)})"


def _memory(kind: int) -> str:
    return _MEMORY_KINDS[kind] if 0 <= kind < len(_MEMORY_KINDS) else "Unknown"


def _peer_copies(profile: Profile, batch: dict[str, Ints]) -> tuple[dict[str, Ints], int]:
    """Return which copies go from the rank's own GPU into that of another rank, and how many to unknown ones."""
    place = profile.task.place
    ranks = dict(profile.task.peers)
    own = place.device if place.gpu is None else place.gpu
    source, target = batch["srcDeviceId"], batch["dstDeviceId"]
    away = (source == own) & (target != own) & np.isin(batch["copyKind"], _BETWEEN_GPUS)
    known = away & np.isin(target, list(ranks))
    unknown = int((away & ~known & (target != NULL)).sum())
    return peer_copies(known, target, batch["bytes"], ranks), unknown


def _add_calls(database: Database, profile: Profile) -> None:
    """Add the runtime's and driver's calls that launch or wait."""
    table = database.find(_RUNTIME)
    if table is None or not {"globalTid", "nameId"} <= table.columns:
        profile.notes.append(
            f"{profile.task.place.path.name} has no CUDA API calls: nothing says what launched kernels"
        )
        return
    strings = database.find("StringIds")
    process = profile.task.place.process
    where = f"t.globalTid BETWEEN {process} AND {process + 0xFFFFFF}" if process >= 0 else "1"
    names: dict[int, str] = {}
    columns = ("start", "end", "globalTid", "correlationId", "nameId")
    for batch, _ in database.batches(table, columns, where):
        ids, places = np.unique(batch["nameId"], return_inverse=True)
        new = np.setdiff1d(ids, np.array(list(names), np.int64))
        words = (w.partition("_v")[0] for w in database.strings(strings, new, "value"))
        names |= dict(zip(new.tolist(), words, strict=True))
        kept = np.array([is_call(names[i]) for i in ids.tolist()], bool)[places] & (
            batch["globalTid"] != NULL
        )
        rows = np.flatnonzero(kept)
        words_here = dictionary([names[i] for i in ids.tolist()], places[rows])
        batch = {n: c[rows] for n, c in batch.items()}
        tid = thread_of(batch["globalTid"])
        profile.rows.add(CALL, words_here, *_times(batch), tid=tid, correlation=batch["correlationId"])


def _add_syncs(database: Database, profile: Profile) -> None:
    """Add what waits waited for, where the records of events were traced (`--cuda-event-trace=true`)."""
    syncs, events = database.find(_SYNC), database.find(_EVENT)
    if syncs is None or events is None or not {*_OF_EVENTS} <= syncs.columns & events.columns:
        return
    place = profile.task.place
    scratch = profile.rows.table.scratch
    recorded = [Column(scratch) for _ in range(3)]
    for batch, _ in database.batches(events, _OF_EVENTS, _of_place(place, events.columns)):
        known = batch["eventSyncId"] != NULL
        for column, name in zip(recorded, _OF_EVENTS, strict=True):
            column.add(batch[name][known])
    ids, streams, calls = (column.values() for column in recorded)
    records = Lookup(scratch, ids, every(scratch, len(ids)))
    kinds = {_STREAM_WAIT: "Stream Wait Event", _EVENT_SYNC: "Event Sync"}
    columns = ("start", "end", "deviceId", "streamId", "correlationId", "syncType", "eventSyncId")
    where = f"{_of_place(place, syncs.columns)} AND t.syncType IN ({_EVENT_SYNC}, {_STREAM_WAIT})"
    for batch, _ in database.batches(syncs, columns, where) if len(ids) else ():
        record = records.find(batch["eventSyncId"])
        batch = {n: c[record >= 0] for n, c in batch.items()}
        record = record[record >= 0]
        places = (batch["syncType"] == _EVENT_SYNC).astype(np.int64)
        told = {
            "wait_stream": streams[record].astype(np.int64),
            "wait_record": calls[record].astype(np.int64),
        }
        words = dictionary(list(kinds.values()), places)
        profile.rows.add(SYNC, words, batch["start"], batch["end"], **_where(batch), **told)


def _base_ns(database: Database, profile: Profile) -> int:
    """Return what times are to be added to, to count from 1970.

    They are nanoseconds of the host's clock, or of the session, or already moved to 1970 (`--ts-normalize`).
    ANALYSIS_DETAILS says which: its startTime is the clock's at the session's start, or 0.
    """
    session = database.find("TARGET_INFO_SESSION_START_TIME")
    first = profile.rows.first_ns()
    if session is None or "utcEpochNs" not in session.columns or first is None or first >= _ABSOLUTE_NS:
        return 0
    clock = "systemClockNs" if "systemClockNs" in session.columns else "NULL"
    row = next(iter(database.rows(f'SELECT utcEpochNs, {clock} FROM "{session.name}" LIMIT 1')), (None, None))
    utc, system = (n if isinstance(n, int) and 0 <= n < 1 << 62 else None for n in row)
    if utc is None:
        return 0
    details = database.find("ANALYSIS_DETAILS")
    start: Any = None
    if details is not None and "startTime" in details.columns:
        start = next(iter(database.rows(f'SELECT startTime FROM "{details.name}" LIMIT 1')), (None,))[0]
    if not isinstance(start, int):
        start = system if system is not None and first >= system else 0
    return utc - start if 0 <= start <= utc else utc


def _metadata(database: Database, place: Place) -> dict[str, Any]:
    """Return what the database says of the host and the GPU, as Kineto would."""
    environment = _environment(database)
    told: dict[str, Any] = {"host_name": place.host}
    for key, name in (("cuda_driver_version", "CudaDriverVersion"), ("driver_version", "NvDriverVersion")):
        if name in environment:
            told[key] = environment[name]
    gpus = database.find("TARGET_INFO_GPU")
    number_ = place.device if place.gpu is None else place.gpu
    if gpus is not None and {"id", "name"} <= gpus.columns:
        columns = [c if c in gpus.columns else "NULL" for c in ("name", "smCount", "totalMemory", "uuid")]
        rows = database.rows(f'SELECT {", ".join(columns)} FROM "{gpus.name}" WHERE id = {number_} LIMIT 1')
        for name, units, memory, uuid in rows:
            told["deviceProperties"] = [
                {"id": place.device, "name": name, "numSms": units, "totalGlobalMem": memory}
            ]
            told["uuid"] = uuid
    return told

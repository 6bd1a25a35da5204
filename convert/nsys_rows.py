"""What a process did on a GPU, row by row of an Nsight Systems database: work, calls, waits and annotations."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .database import Database
from .events import is_call
from .narrow import Column
from .nvtx import annotations, thread_of
from .profile import Place, Profile, dictionary, peer_copies
from .scanner import ANNOTATION, CALL, COPY, KERNEL, NULL, SYNC
from .sorting import Lookup, every

Ints = npt.NDArray[np.int64]
KERNELS, COPIES, SETS, GRAPHS, _CALLS, _SYNCS, _EVENTS = (
    f"CUPTI_ACTIVITY_KIND_{name}"
    for name in ("KERNEL", "MEMCPY", "MEMSET", "GRAPH_TRACE", "RUNTIME", "SYNCHRONIZATION", "CUDA_EVENT")
)
_COMMON = ("start", "end", "deviceId", "streamId", "correlationId")
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


def add_rows(database: Database, profile: Profile) -> None:
    """Add all that the database holds of the profile's process on its GPU."""
    _add_kernels(database, profile)
    _add_graphs(database, profile)
    _add_copies(database, profile)
    _add_calls(database, profile)
    _add_syncs(database, profile)
    process = profile.task.place.process
    for names, start, end, tid in annotations(database, process if process >= 0 else None):
        profile.rows.add(ANNOTATION, pa.array(names, pa.string()).dictionary_encode(), start, end, tid=tid)


def _add_kernels(database: Database, profile: Profile) -> None:
    table, strings = database.find(KERNELS), database.find("StringIds")
    if table is None:
        return
    name = next((n for n in ("demangledName", "shortName", "mangledName") if n in table.columns), "shortName")
    where = _of_place(profile.task.place, table.columns)
    for batch, _ in database.batches(table, (*_COMMON, name, "gridX"), where):
        ids, places = np.unique(batch[name], return_inverse=True)
        words = dictionary([w or "unnamed kernel" for w in database.strings(strings, ids, "value")], places)
        profile.rows.add(KERNEL, words, batch["start"], batch["end"], **_where(batch), grid_x=batch["gridX"])


def _add_graphs(database: Database, profile: Profile) -> None:
    """Add graphs that were recorded as a whole."""
    table, place = database.find(GRAPHS), profile.task.place
    if table is None:
        return
    found = False
    for batch, _ in database.batches(table, (*_COMMON, "graphId"), _of_place(place, table.columns)):
        ids, places = np.unique(batch["graphId"], return_inverse=True)
        words = [f"CUDA graph {'unknown' if i == NULL else i}" for i in ids.tolist()]
        profile.rows.add(KERNEL, dictionary(words, places), batch["start"], batch["end"], **_where(batch))
        found = True
    if found:
        profile.notes.append(
            f"{place.path.name}: CUDA graphs were recorded as a whole; for their kernels profile with "
            "`--cuda-graph-trace=node`"
        )


def _add_copies(database: Database, profile: Profile) -> None:
    """Add copies and sets of memory."""
    place = profile.task.place
    kinds_of = ("copyKind", "srcKind", "dstKind", "memKind")
    columns = (*_COMMON, *kinds_of, "bytes", "srcDeviceId", "dstDeviceId")
    abroad = 0
    for name, label in ((COPIES, _copy_name), (SETS, _set_name)):
        table = database.find(name)
        if table is None:
            continue
        for batch, _ in database.batches(table, columns, _of_place(place, table.columns)):
            keys = np.stack([batch[n] for n in kinds_of], axis=1)
            kinds, places = np.unique(keys, axis=0, return_inverse=True)
            words = dictionary([label(*kind) for kind in kinds.tolist()], places.reshape(-1))
            own, unknown = _peer_copies(profile, batch)
            abroad += unknown
            profile.rows.add(COPY, words, batch["start"], batch["end"], **_where(batch), **own)
    if abroad:
        profile.notes.append(
            f"{place.path.name}: {abroad} copies of process {place.pid} go to GPUs of which no rank is known; they "
            "are no writes"
        )


def _of_place(place: Place, columns: frozenset[str]) -> str:
    """Return SQL for the rows of a process on a GPU."""
    own = f"t.globalPid = {place.process}" if place.process >= 0 and "globalPid" in columns else "1"
    return f"{own} AND t.deviceId = {place.device}" if "deviceId" in columns else own


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
    table = database.find(_CALLS)
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
        profile.rows.add(
            CALL, words_here, batch["start"], batch["end"], tid=tid, correlation=batch["correlationId"]
        )


def _add_syncs(database: Database, profile: Profile) -> None:
    """Add what waits waited for, where the records of events were traced (`--cuda-event-trace=true`)."""
    syncs, events = database.find(_SYNCS), database.find(_EVENTS)
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

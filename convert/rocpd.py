"""rocprofv3's databases (rocpd, schema 3) -> a trace: a process on a GPU is a rank.

Tables carry the run's uuid in their names; one file may hold several runs' (rocpd merges them). Layouts are those
of rocprofiler-sdk's rocpd_tables.sql 3.0.0 to 3.0.5, and what fills them of its generateRocpd.cpp: an event's
stack_id is the correlation id that a dispatch shares with the call that made it, and an agent's id is its node on
the host.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..schemas.errors import InputError, UsageError
from .database import MAGIC, Database, Table, open_database
from .formats import Format, Head
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
    number_in,
    rank_in_environment,
    rccl_call,
    unnamed_note,
)
from .scanner import ANNOTATION, CALL, COPY, KERNEL, NULL

_NAME = re.compile(r"rocpd_kernel_dispatch(_[0-9A-Za-z_]+)?")
_MAKE_TABLE = re.compile(
    rb"CREATE TABLE (?:IF NOT EXISTS )?\s*[\"`\[']?rocpd_(?:kernel_dispatch|metadata|string|info_node)"
)
_SUFFIXES = (".db", ".sqlite", ".db.gz", ".rocpd")
_MARKER = "MARKER_CORE"
Ints = npt.NDArray[np.int64]


def recognise(head: Head) -> bool:
    """Whether a file is a database with rocpd's tables; one that is gzip is told by its first pages."""
    if not head.start.startswith(MAGIC):
        return False
    if _MAKE_TABLE.search(head.start):
        return True
    try:
        with head.path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if packed:
            return False
        with open_database(head.path) as database:
            return any(_NAME.fullmatch(name) for name in database.tables)
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
            f"no *.db in {', '.join(map(str, paths))}; record with `rocprofv3 --output-format rocpd --sys-trace`"
        )
    places: list[Place] = []
    for file in files:
        with open_database(file) as database:
            places += _places(database)
    return finished(number(places))


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name.endswith(_SUFFIXES))


def _places(database: Database) -> list[Place]:
    """Return the processes that dispatched kernels, and on which GPUs."""
    found = []
    for name, table in sorted(database.tables.items()):
        if not (match := _NAME.fullmatch(name)):
            continue
        if not {"pid", "agent_id", "start", "end"} <= table.columns:
            raise InputError(
                f"{database.path}: {name} has no columns pid and agent_id, as in schema 3; this one is of schema "
                f"{_version(database, match[1] or '')}: record again with `rocprofv3 --output-format json`"
            )
        suffix = match[1] or ""
        hosts = _named(database, f"rocpd_info_node{suffix}", "id", "hostname")
        host = next(iter(hosts.values()), None)
        columns = ("absolute_index", "type_index")
        agents, order = (_named(database, f"rocpd_info_agent{suffix}", "id", c) for c in columns)
        for process, agent in database.rows(
            f'SELECT DISTINCT pid, agent_id FROM "{name}" ORDER BY pid, agent_id'
        ):
            if not isinstance(process, int) or not isinstance(agent, int):
                continue
            gpu = agents.get(agent)
            gpu = gpu if isinstance(gpu, int) else agent
            ordinal = number_in(order.get(agent))
            told = _process(database, suffix, process)
            pid = told.pop("pid") or process
            found.append(
                Place(database.path, suffix, process, agent, pid, _text(host), gpu, ordinal=ordinal, **told)
            )
    if not found:
        raise InputError(
            f"{database.path} holds no kernel dispatch; was `rocprofv3` run with --kernel-trace or --sys-trace?"
        )
    # What the environment says is of a process: on several GPUs it cannot tell them apart.
    gpus = Counter((p.source, p.process) for p in found)
    found = [p if gpus[p.source, p.process] == 1 else replace(p, rank=None) for p in found]
    return sorted(found, key=lambda p: (p.gpu or 0, p.pid))


def _version(database: Database, suffix: str) -> str:
    values = _named(database, f"rocpd_metadata{suffix}", "tag", "value")
    return str(values.get("schema_version", "4 or newer"))


def _named(database: Database, name: str, key: str, value: str) -> dict[Any, Any]:
    """Return a small table of information as a mapping; empty where it is absent."""
    table = database.tables.get(name)
    if table is None or not {key, value} <= table.columns:
        return {}
    return dict(database.rows(f'SELECT "{key}", "{value}" FROM "{name}" LIMIT 100000'))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _process(database: Database, suffix: str, process: int) -> dict[str, int | None]:
    """Return a process's pid and start, and rank and world size as its environment tells them."""
    name = f"rocpd_info_process{suffix}"
    pids, begun = (_named(database, name, "id", column) for column in ("pid", "init"))
    environments = _named(database, name, "id", "environment")
    try:
        environment = json.loads(environments.get(process) or "{}")
    except (TypeError, ValueError, RecursionError):
        environment = {}
    rank, size = rank_in_environment(environment if isinstance(environment, dict) else {})
    pid, init = pids.get(process), number_in(begun.get(process))
    return {
        "pid": pid if isinstance(pid, int) else process,
        "rank": rank,
        "world_size": size,
        "init_ns": init,
    }


def read(task: Task, alone: bool) -> list[RankRecord]:
    """Read the rank of `task`."""
    del alone
    with open_database(task.place.path) as database:
        profile = Profile(task, Rows(), _metadata(database, task.place), base_ns=task.base_ns)
        profile.clock = clock_of(task.place)
        tables = _Tables(database, task.place.source)
        _add_kernels(tables, profile)
        _add_copies(tables, profile)
        _add_regions(tables, profile)
    return [build_record(profile)]


FORMAT = Format(name="rocpd", recognise=recognise, plan=plan, read=read)


class _Tables:
    """The tables of one run of a database, by their names without its uuid."""

    def __init__(self, database: Database, suffix: str) -> None:
        self.database = database
        self._suffix = suffix

    def find(self, name: str) -> Table | None:
        return self.database.tables.get(f"rocpd_{name}{self._suffix}")

    def event(self) -> tuple[str, list[str]]:
        """Return SQL that joins rows with their events, and their correlation ids and categories as columns."""
        events = self.find("event")
        if events is None or not {"id", "stack_id", "category_id"} <= events.columns:
            return "", []
        join = f'LEFT JOIN "{events.name}" AS e ON e.id = t.event_id'
        return join, ["e.stack_id AS correlation", "e.category_id AS category"]

    def strings(self, ids: Ints) -> list[str]:
        return self.database.strings(self.find("string"), ids, "string")


def _joined(tables: _Tables, table: Table) -> tuple[str, list[str]]:
    return tables.event() if "event_id" in table.columns else ("", [])


def _column(batch: dict[str, Ints], name: str) -> Ints:
    return batch[name] if name in batch else np.full(len(batch["start"]), NULL)


def _add_kernels(tables: _Tables, profile: Profile) -> None:
    place = profile.task.place
    table = tables.find("kernel_dispatch")
    if table is None:
        return
    symbols = tables.find("info_kernel_symbol")
    name = "display_name" if symbols and "display_name" in symbols.columns else "kernel_name"
    join, others = _joined(tables, table)
    lane = _lane(tables, table, place)
    columns = ("start", "end", "kernel_id", lane, "grid_size_x", "workgroup_size_x")
    where = f"t.pid = {place.process} AND t.agent_id = {place.device}"
    unnamed = 0
    for batch, _ in tables.database.batches(table, columns, where, joined=join, others=others):
        ids, places = np.unique(batch["kernel_id"], return_inverse=True)
        words = tables.database.strings(symbols, ids, name)
        unnamed += int(np.array([not word for word in words], bool)[places].sum())
        words = [word or "unnamed kernel" for word in words]
        own = {"device": np.full(len(places), place.number), "stream": batch[lane]}
        grid = blocks(batch["grid_size_x"], batch["workgroup_size_x"])
        calls = _column(batch, "correlation")
        words_here = dictionary(words, places)
        profile.rows.add(
            KERNEL, words_here, batch["start"], batch["end"], **own, correlation=calls, grid_x=grid
        )
    profile.notes += unnamed_note(place, unnamed)


def _lane(tables: _Tables, table: Table, place: Place) -> str:
    """Return which column tells lanes: streams where HIP's were recorded, else hardware queues."""
    names = [name if name in table.columns else "NULL" for name in ("stream_id", "queue_id")]
    where = f"pid = {place.process} AND agent_id = {place.device}"
    query = f'SELECT DISTINCT {", ".join(names)} FROM "{table.name}" WHERE {where} LIMIT 1000'
    return "queue_id" if lanes_are_queues(tables.database.rows(query)) else "stream_id"


def _add_copies(tables: _Tables, profile: Profile) -> None:
    place, ranks = profile.task.place, dict(profile.task.peers)
    table = tables.find("memory_copy")
    if table is None or not {"pid", "src_agent_id", "dst_agent_id"} <= table.columns:
        return
    join, others = _joined(tables, table)
    # A copy is of its source's rank; where that is the host or a stranger's GPU, of its destination's.
    where = (
        f"t.pid = {place.process} AND (t.src_agent_id = {place.device} OR t.dst_agent_id = {place.device})"
    )
    columns = ("start", "end", "name_id", "src_agent_id", "dst_agent_id", "size", "stream_id", "queue_id")
    for batch, _ in tables.database.batches(table, columns, where, joined=join, others=others):
        gpus = np.array([gpu for gpu in ranks if gpu != place.device], np.int64)
        batch = {n: c[~np.isin(batch["src_agent_id"], gpus)] for n, c in batch.items()}
        ids, places = np.unique(batch["name_id"], return_inverse=True)
        words = [copy_name(w) for w in tables.strings(ids)]
        stream = np.where(batch["stream_id"] != NULL, batch["stream_id"], batch["queue_id"])
        correlation = _column(batch, "correlation")
        away = (batch["src_agent_id"] == place.device) & np.isin(batch["dst_agent_id"], gpus)
        profile.rows.add(
            COPY, dictionary(words, places), batch["start"], batch["end"],
            device=np.full(len(places), place.number), stream=stream, correlation=correlation,
            **peer_copies(away, batch["dst_agent_id"], batch["size"], ranks),
        )  # fmt: skip


def _add_regions(tables: _Tables, profile: Profile) -> None:
    """Add HIP's calls that launch or wait, the user's ranges (roctx), and RCCL's calls with their arguments."""
    place = profile.task.place
    table = tables.find("region")
    if table is None or not {"pid", "tid", "name_id"} <= table.columns:
        profile.notes.append(f"{place.path.name} has no calls: nothing says what launched kernels")
        return
    join, others = _joined(tables, table)
    columns = ("start", "end", "tid", "name_id", "event_id")
    rccl: list[tuple[Any, ...]] = []
    hip = 0
    for batch, _ in tables.database.batches(
        table, columns, f"t.pid = {place.process}", joined=join, others=others
    ):
        batch = {n: c[batch["tid"] != NULL] for n, c in batch.items()}
        ids, places = np.unique(batch["name_id"], return_inverse=True)
        words = tables.strings(ids)
        kinds, of_kind = np.unique(_column(batch, "category"), return_inverse=True)
        marker = np.array([k.startswith(_MARKER) for k in tables.strings(kinds)], bool)[of_kind]
        calls = np.flatnonzero(np.array([is_hip_call(w) for w in words], bool)[places] & ~marker)
        _add_ranges(profile, CALL, {n: c[calls] for n, c in batch.items()}, dictionary(words, places[calls]))
        marks = np.flatnonzero(marker)
        own = {n: c[marks] for n, c in batch.items()}
        _add_ranges(profile, ANNOTATION, own, _messages(tables, own["event_id"], words, places[marks]))
        chosen = np.array([w.startswith("nccl") for w in words], bool)[places] & ~marker
        for row in np.flatnonzero(chosen).tolist():
            told = (int(_column(batch, n)[row]) for n in ("tid", "start", "end", "correlation", "event_id"))
            rccl.append((words[places[row]], *told))
        hip += len(calls)
    profile.calls = _rccl_calls(tables, rccl)
    if not hip:
        profile.notes.append(
            f"{place.path.name} has no HIP calls: nothing says what launched kernels; record with --sys-trace"
        )


def _add_ranges(profile: Profile, kind: int, rows: dict[str, Ints], names: pa.DictionaryArray) -> None:
    call = _column(rows, "correlation")
    profile.rows.add(kind, names, rows["start"], rows["end"], tid=rows["tid"], correlation=call)


def _messages(tables: _Tables, events: Ints, words: list[str], places: Ints) -> pa.DictionaryArray:
    """Return the texts of roctx ranges, which their events hold as JSON; without one it is the call's name."""
    found = tables.database.strings(tables.find("event"), events, "extdata")
    texts = []
    for text, place in zip(found, places.tolist(), strict=True):
        try:
            message = json.loads(text or "{}").get("message")
        except (ValueError, RecursionError, AttributeError):
            message = None
        texts.append(message if isinstance(message, str) and message else words[place])
    return pa.array(texts, pa.string()).dictionary_encode()


def _rccl_calls(tables: _Tables, rows: list[tuple[Any, ...]]) -> list[Call]:
    arguments: dict[int, dict[str, str]] = {}
    table = tables.find("arg")
    if rows and table is not None and {"event_id", "name", "value"} <= table.columns:
        events = sorted(row[5] for row in rows if row[5] != NULL)
        wanted = set(events)
        where = f"t.event_id BETWEEN {events[0]} AND {events[-1]}" if events else "0"
        for numbers, texts in tables.database.batches(table, ("event_id",), where, texts=("name", "value")):
            for event, name, value in zip(
                numbers["event_id"].tolist(), texts["name"], texts["value"], strict=True
            ):
                if event in wanted and isinstance(name, str) and isinstance(value, str):
                    arguments.setdefault(event, {})[name] = value
    calls = (
        rccl_call(name, tid, start, end, max(correlation, -1), arguments.get(event, {}))
        for name, tid, start, end, correlation, event in rows
        if NULL not in (start, end)
    )
    return [call for call in calls if call is not None]


def _metadata(database: Database, place: Place) -> dict[str, Any]:
    """Return what the database says of the host and the GPU, as Kineto would."""
    told: dict[str, Any] = {"host_name": place.host}
    table = database.tables.get(f"rocpd_info_agent{place.source}")
    if table is not None and {"id", "name"} <= table.columns:
        columns = [f'"{c}"' if c in table.columns else "NULL" for c in ("product_name", "name", "extdata")]
        query = f'SELECT {", ".join(columns)} FROM "{table.name}" WHERE id = {place.device} LIMIT 1'
        for product, name, more in database.rows(query):
            try:
                extra = json.loads(more or "{}")
            except (TypeError, ValueError, RecursionError):
                extra = {}
            units = extra.get("cu_count") if isinstance(extra, dict) else None
            model = product if isinstance(product, str) and product else name
            told["deviceProperties"] = [{"id": place.number, "name": model, "numSms": units}]
    return told

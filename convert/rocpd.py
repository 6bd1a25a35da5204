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

from ..schemas.errors import InputError, UsageError
from .database import MAGIC, Database, open_database
from .formats import Format, Head
from .profile import Place, Profile, Rows, Task, build_record, number
from .rank import RankRecord
from .rocm import clock_of, finished, number_in, rank_in_environment
from .rocpd_calls import add_regions
from .rocpd_tables import Tables
from .rocpd_work import add_copies, add_kernels

_NAME = re.compile(r"rocpd_kernel_dispatch(_[0-9A-Za-z_]+)?")
_MAKE_TABLE = re.compile(
    rb"CREATE TABLE (?:IF NOT EXISTS )?\s*[\"`\[']?rocpd_(?:kernel_dispatch|metadata|string|info_node)"
)
_SUFFIXES = (".db", ".sqlite", ".db.gz", ".rocpd")


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
        suffix = match[1] or ""
        tables = Tables(database, suffix)
        if not {"pid", "agent_id", "start", "end"} <= table.columns:
            raise InputError(
                f"{database.path}: {name} has no columns pid and agent_id, as in schema 3; this one is of schema "
                f"{_version(tables)}: record again with `rocprofv3 --output-format json`"
            )
        hosts = tables.named("info_node", "id", "hostname")
        host = next(iter(hosts.values()), None)
        columns = ("absolute_index", "type_index")
        agents, order = (tables.named("info_agent", "id", c) for c in columns)
        for process, agent in database.rows(
            f'SELECT DISTINCT pid, agent_id FROM "{name}" ORDER BY pid, agent_id'
        ):
            if not isinstance(process, int) or not isinstance(agent, int):
                continue
            gpu = agents.get(agent)
            gpu = gpu if isinstance(gpu, int) else agent
            ordinal = number_in(order.get(agent))
            told = _process(tables, process)
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


def _version(tables: Tables) -> str:
    values = tables.named("metadata", "tag", "value")
    return str(values.get("schema_version", "4 or newer"))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _process(tables: Tables, process: int) -> dict[str, int | None]:
    """Return a process's pid and start, and rank and world size as its environment tells them."""
    pids, begun = (tables.named("info_process", "id", column) for column in ("pid", "init"))
    environments = tables.named("info_process", "id", "environment")
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
        tables = Tables(database, task.place.source)
        profile = Profile(task, Rows(), _metadata(tables, task.place), base_ns=task.base_ns)
        profile.clock = clock_of(task.place)
        add_kernels(tables, profile)
        add_copies(tables, profile)
        add_regions(tables, profile)
    return [build_record(profile)]


FORMAT = Format(name="rocpd", recognise=recognise, plan=plan, read=read)


def _metadata(tables: Tables, place: Place) -> dict[str, Any]:
    """Return what the database says of the host and the GPU, as Kineto would."""
    told: dict[str, Any] = {"host_name": place.host}
    table = tables.find("info_agent")
    if table is not None and {"id", "name"} <= table.columns:
        columns = [f'"{c}"' if c in table.columns else "NULL" for c in ("product_name", "name", "extdata")]
        query = f'SELECT {", ".join(columns)} FROM "{table.name}" WHERE id = {place.device} LIMIT 1'
        for product, name, more in tables.database.rows(query):
            try:
                extra = json.loads(more or "{}")
            except (TypeError, ValueError, RecursionError):
                extra = {}
            units = extra.get("cu_count") if isinstance(extra, dict) else None
            model = product if isinstance(product, str) and product else name
            told["deviceProperties"] = [{"id": place.number, "name": model, "numSms": units}]
    return told

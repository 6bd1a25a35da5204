"""Nsight Systems' SQLite exports (schemas 3.13 to 3.25) -> a trace: a process on a GPU is a rank.

Tables are made only where something was recorded, so that each may be absent. Table and column names, and ids
that are serialised (globalTid is globalPid and the thread's low 24 bits), are those of NVIDIA's export
documentation and of exports of schema 3.25.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..schemas.errors import InputError, UsageError
from .database import MAGIC, Database, open_database
from .formats import Format, Head
from .nsys_places import Member, find_members, find_places, groups_of, ranked
from .nsys_rows import add_rows
from .nsys_session import base_ns, metadata
from .nvtx import nccl_calls
from .profile import Place, Profile, Rows, Task, build_record, number
from .rank import RankRecord

_MARKS = ("CUPTI_ACTIVITY_KIND_KERNEL", "NVTX_EVENTS", "TARGET_INFO_SESSION_START_TIME", "META_DATA_EXPORT")
_SUFFIXES = (".sqlite", ".sqlite.gz", ".db")


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
    members: list[Member] = []
    for file in files:
        with open_database(file) as database:
            own = find_places(database)
            told = find_members(database, own)
        places += ranked(own, told)
        members += told
    tasks = number(places)
    groups = groups_of(tasks, members)
    first, *rest = tasks
    note = "what kernels store into peers' memory is no event for Nsight Systems: such writes are not in the trace"
    return [replace(t, groups=groups) for t in (replace(first, notes=(*first.notes, note)), *rest)]


def _inside(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name.endswith(_SUFFIXES))


def read(task: Task, alone: bool) -> list[RankRecord]:
    """Read the rank of `task`."""
    del alone
    place = task.place
    with open_database(place.path) as database:
        calls = nccl_calls(database, place.process if place.process >= 0 else None)
        profile = Profile(task, Rows(), metadata(database, place), calls)
        add_rows(database, profile)
        profile.base_ns = base_ns(database, profile.rows.first_ns())
        profile.clock = f"{place.path}, from {profile.base_ns}"
        profile.notes += _missing(database, profile)
    return [build_record(profile)]


def _missing(database: Database, profile: Profile) -> list[str]:
    """Return what the database lacks, and how to record or export it."""
    name = profile.task.place.path.name
    notes = []
    if profile.calls and all(c.count_bytes is None for c in profile.calls):
        notes.append(
            f"{name}: NCCL's ranges came without their payloads, which hold sizes, peers and "
            "communicators; export again with `nsys export --include-blobs=true`"
        )
    if database.find("NVTX_EVENTS") is None:
        notes.append(
            f"{name} has no NVTX ranges, which tell what NCCL was called for; profile with "
            "`--trace=cuda,nvtx`"
        )
    if database.find("StringIds") is None:
        notes.append(
            f"{name} has no table StringIds, which holds all names: its kernels have none, and "
            "none is known for a collective; export it again"
        )
    return notes


FORMAT = Format(name="nsys", recognise=recognise, plan=plan, read=read)

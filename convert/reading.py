"""The tasks of a conversion -> ranks: several at once where that pays, and none of them twice.

What a task gave lies in a folder beside the trace, under a hash of all that it depends on, until the trace is
there: a run that was killed is gone on with by the next one.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from inspect import getsourcefile
from pathlib import Path
from typing import Any

from ..schemas.errors import InputError, UsageError
from ..schemas.executors import dask_cluster, process_pool
from ..schemas.store import generator
from ..schemas.submit import run_points
from .damage import told_of
from .formats import Format
from .rank import RankRecord
from .rank_file import load_ranks, save_ranks
from .scratch import scratch_in

Progress = Callable[[str, int, int], None]
PAYS_BYTES = 512 << 20
"""JSON from which processes are worth their start: each imports the package and loads compiled code anew, which
took 2.5 s of processor time on a 2-core AMD EPYC VM, as long as one process there reads about 280 MB."""
_PACKED = 12  # times that a gzip file of JSON unpacks to, about
_CLUSTER_ROOM = 4096  # tasks that a cluster holds at once: more than workers, and little to keep


@dataclass(frozen=True)
class Reading:
    """One task of a format, and the hash of all that its result depends on."""

    id: str
    kind: Format
    task: Any


@contextmanager
def reading_folder(output: Path) -> Iterator[Path]:
    """Yield the folder beside `output` for what tasks give. It stays only where the run is killed or interrupted.

    Raises UsageError where another run converts into `output`.
    """
    folder = output.with_name(f".{output.name}.ranks")
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UsageError(
                f"another conversion writes {output} ({error}); wait for it, or choose another -o"
            ) from error
        try:
            yield folder
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def read_tasks(
    kind: Format,
    tasks: Sequence[Any],
    folder: Path,
    progress: Progress,
    *,
    jobs: int | None = None,
    cluster: str | None = None,
) -> list[RankRecord]:
    """Return the ranks of several `tasks`, whose results `folder` holds or gets.

    They are read in this process where they are too small for more, else in `jobs` processes (default: one a
    core), or on the Dask cluster whose scheduler is at `cluster`. Raises what reading the first bad task raises.
    """
    readings = [Reading(fingerprint(kind, task), kind, task) for task in tasks]
    done = _kept(folder, {reading.id for reading in readings})
    what = f"reading {kind.name}"
    progress(what, len(done), len(tasks))

    def ended(reading: Reading, error: BaseException | None) -> None:
        if error is not None:
            raise error
        done.add(reading.id)
        progress(what, len(done), len(tasks))

    missing = [reading for reading in readings if reading.id not in done]
    work = partial(_read_into, folder=folder.resolve())
    executors, room = _executors(missing, jobs, cluster)
    if executors is None:
        for reading in missing:
            work(reading)
            ended(reading, None)
    else:
        run_points(missing, work, executors, room, ended)
    return [record for reading in readings for record in _load(folder / reading.id)]


def _read_into(reading: Reading, folder: Path) -> None:
    """Read one task in a worker, and leave its ranks in `folder`, which all workers share."""
    with scratch_in(folder):
        save_ranks(read_task(reading.kind, reading.task), folder / reading.id)


def read_task(kind: Format, task: Any, *, alone: bool = False) -> list[RankRecord]:
    """Return the ranks of one task. Raises InputError for whatever its files hold that the format does not."""
    with told_of(inputs(task)):
        return list(kind.read(task, alone))


def _kept(folder: Path, wanted: set[str]) -> set[str]:
    """Return what is there of `wanted`; remove everything else, such as results of files that changed since."""
    kept = set()
    for entry in folder.iterdir():
        try:
            if entry.name in wanted:
                load_ranks(entry)
                kept.add(entry.name)
                continue
        except InputError:
            pass  # the machine went down while it was written: it is read again
        shutil.rmtree(entry, ignore_errors=True)
    return kept


def _load(folder: Path) -> list[RankRecord]:
    if not folder.is_dir():
        raise InputError(f"a worker finished it, but {folder} is not there: give -o on a disk that all share")
    return load_ranks(folder)


def _executors(
    missing: Sequence[Reading], jobs: int | None, cluster: str | None
) -> tuple[Callable[[], AbstractContextManager[Executor]] | None, int]:
    """Return what opens an executor, and how many tasks it takes at once; None for this very process."""
    if cluster is not None:
        return partial(dask_cluster, cluster), _CLUSTER_ROOM
    room = min(jobs or len(os.sched_getaffinity(0)), len(missing))
    files = [file for reading in missing for file in inputs(reading.task)]
    size = sum(file.stat().st_size * (_PACKED if file.suffix == ".gz" else 1) for file in files)
    if room < 2 or (jobs is None and size < PAYS_BYTES):
        return None, 1
    return partial(process_pool, room), room


def fingerprint(kind: Format, task: Any) -> str:
    """Return a hash of what reading `task` depends on: the task, its files (path, size, time), and the code."""
    files = [(str(file.resolve()), (s := file.stat()).st_size, s.st_mtime_ns) for file in inputs(task)]
    told = [generator(), _code(getsourcefile(kind.read)), kind.name, repr(task), files]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


@cache
def _code(source: str | None) -> str:
    """Return a hash of this package's code, and of the file that defines a format elsewhere."""
    files = sorted({*Path(__file__).parent.glob("*.py"), *([Path(source)] if source else [])})
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def inputs(task: Any) -> list[Path]:
    """Return the files that `task` names, those in folders included, wherever its fields hold them."""
    if isinstance(task, Path):
        return sorted(p for p in task.rglob("*") if p.is_file()) if task.is_dir() else [task]
    if is_dataclass(task) and not isinstance(task, type):
        return [file for f in fields(task) for file in inputs(getattr(task, f.name))]
    if isinstance(task, dict):
        return [file for value in task.values() for file in inputs(value)]
    if isinstance(task, Sequence) and not isinstance(task, str | bytes):
        return [file for value in task for file in inputs(value)]
    return []

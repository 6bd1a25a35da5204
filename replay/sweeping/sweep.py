"""`sweep`: a study in, a table of all its points out; what was finished before is not run again."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...schemas import UsageError
from ...schemas.executors import dask_cluster, process_pool
from ...schemas.folder import write_json
from ...schemas.store import generator
from ...schemas.submit import run_points, told
from .point import Point, is_done, run_point
from .study import Study, read_study
from .table import replace_file, results_table, write_table

Progress = Callable[[str, int, int], None]
STUDY_VERSION = 1
_CLUSTER_ROOM = 4096  # points that a cluster holds at once: more than workers, and little to keep
_OUTPUTS = ("study.json", "results.parquet", "results.csv", "report.html")


@dataclass(frozen=True)
class Sweep:
    """What a sweep left in the folder `path`: its `table`, a row a point in grid order.

    `axes` are the columns that the grid varies; `kept` points were there before.
    """

    path: Path
    table: pa.Table
    axes: tuple[str, ...]
    kept: int

    def name(self, row: Mapping[str, Any]) -> str:
        """Return a row's point in words: its place in the grid."""
        return ", ".join(f"{axis} {row[axis]}" for axis in self.axes)


def sweep(
    study: Study | str | Path,
    output: str | Path,
    *,
    jobs: int | None = None,
    cluster: str | None = None,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Run every point of `study` (see `read_study`) into the folder `output`, and put the results into one table.

    Points run on `jobs` processes (default: one a core), or on the Dask cluster whose scheduler is at `cluster`;
    its workers must see `output` and the traces under the same paths. Each point is a run folder `output`/runs/id.
    Points that are there are kept, unless `overwrite`: so a sweep that was interrupted goes on, and a study that
    grew runs what is new. A point that fails has a row that says why, and the others go on.
    `progress` is called with ("points", done, total).

    Raises InputError for a study that makes no sense, before anything runs; UsageError where `output` is something
    else or another sweep writes there; MissingError and UsageError without Dask or its scheduler.
    """
    started = time.monotonic()
    found = study if isinstance(study, Study) else read_study(study)
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs {jobs}: give at least 1")
    room = jobs or len(os.sched_getaffinity(0))
    if cluster is None:
        executors: Callable[[], AbstractContextManager[Executor]] = partial(process_pool, room)
    else:
        executors, room = partial(dask_cluster, cluster), _CLUSTER_ROOM
    with _claimed(Path(output).resolve(), overwrite) as folder:
        kept, errors = _run(found, folder / "runs", executors, room, command, progress or _silent)
        table = results_table(found.points, errors, folder / "runs", found.path.resolve().parent)
        write_table(table, folder)
        record = _record(found, table, errors) | {
            "command": command,
            "elapsed_s": round(time.monotonic() - started, 3),
        }
        replace_file(folder / "study.json", lambda file: write_json(file, record))
    return Sweep(Path(output), table, _columns(table, found), kept)


def _run(
    study: Study,
    runs: Path,
    executors: Callable[[], AbstractContextManager[Executor]],
    room: int,
    command: str | None,
    progress: Progress,
) -> tuple[int, dict[str, str]]:
    """Run what is not in `runs`; return how many points were, and why others still are not."""
    done = {point.id for point in study.points if is_done(point, runs)}
    kept, total, errors = len(done), len(study.points), {}
    progress("points", kept, total)

    def ended(point: Point, error: BaseException | None) -> None:
        done.add(point.id)
        if error is not None:
            errors[point.id] = told(error)
        progress("points", len(done), total)

    missing = [point for point in study.points if point.id not in done]
    run_points(missing, partial(run_point, runs=runs, command=command), executors, room, ended)
    held = {run.name for run in runs.iterdir()}  # to open the folder makes a network file system look again
    for point in study.points:
        if point.id in held:
            errors.pop(point.id, None)  # another attempt made it
        elif point.id not in errors:
            errors[point.id] = f"a worker finished it, but {runs / point.id} is not there: share the folder"
    return kept, errors


@contextmanager
def _claimed(folder: Path, overwrite: bool) -> Iterator[Path]:
    """Make the study's folder ready, and keep other sweeps out of it; the lock goes with the process."""
    runs = folder / "runs"
    if folder.exists() and not runs.is_dir() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is no study; it is left alone, choose another -o")
    runs.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"another sweep writes to {folder}; wait for it, or choose another -o"
            ) from error
        for name in _OUTPUTS:
            (folder / name).unlink(missing_ok=True)
        for left in runs.iterdir():
            if overwrite or left.name.startswith("."):
                shutil.rmtree(left)
        try:
            yield folder
        finally:
            for left in runs.glob(".*"):
                shutil.rmtree(left, ignore_errors=True)


def _columns(table: pa.Table, study: Study) -> tuple[str, ...]:
    """Return the columns of the study's axes; an axis over whole tables has one for each entry."""
    return tuple(
        n for axis in study.axes for n in table.column_names if n == axis or n.startswith(f"{axis}.")
    )


def _record(study: Study, table: pa.Table, errors: Mapping[str, str]) -> dict[str, Any]:
    """Return the manifest of the study."""
    return {
        "kind": "study",
        "version": STUDY_VERSION,
        "generator": generator(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "study": str(study.path.resolve()),
        "axes": list(_columns(table, study)),
        "points": table.num_rows,
        "failed": len(errors),
        "traces": {str(point.trace): point.trace_sha256 for point in study.points},
    }


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""

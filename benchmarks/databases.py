"""Databases of profilers of 1 GB: how fast, and in how much memory, they become a trace.

Nsight Systems: a real export, or a synthetic one where there is none. rocprofv3: made from its tables' definitions,
as there is no public file. Both grow by repeating their rows with later times and fresh ids.
"""

import json
import resource
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figure import HERE, REPEATS, Figure, measure, median

MB = 1_000_000
SIZE = 1000 * MB
REAL = HERE.parent.parent / "shared/traces/nsys/sm90_2gpu_training.sqlite"
KERNELS = 20_000
TABLES = {
    "string": "id INTEGER PRIMARY KEY, guid, string",
    "info_node": "id INTEGER PRIMARY KEY, guid, hostname",
    "info_process": "id INTEGER PRIMARY KEY, guid, pid, init, environment",
    "info_agent": "id INTEGER PRIMARY KEY, guid, type, absolute_index, type_index, name, product_name",
    "info_kernel_symbol": "id INTEGER PRIMARY KEY, guid, kernel_name, display_name",
    "event": "id INTEGER PRIMARY KEY, guid, category_id, stack_id, call_stack, line_info, extdata",
    "region": "guid, nid, pid, tid, start, end, name_id, event_id, extdata",
    "kernel_dispatch": "guid, nid, pid, tid, agent_id, kernel_id, dispatch_id, queue_id, stream_id, start, end, "
    "workgroup_size_x, grid_size_x, region_name_id, event_id, extdata",
}  # fmt: skip
GUID = "0199f0a1-2b3c-7d4e-8f50-61728394a5b6"


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("nsys", nsys), ("rocpd", rocpd)):
            file = Path(folder) / f"{name}.db"
            make(file, SIZE)
            size = file.stat().st_size
            settings = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # as the command line has it
            runs, scans = [], []
            for _ in range(REPEATS):
                runs.append(measure("databases.py", name, file, size, env=settings))
                scans.append(measure("databases.py", "sqlite3", file, size))
            rate, memory, scan = (
                median(runs, "mb_per_s"),
                median(runs, "peak_mib"),
                median(scans, "mb_per_s"),
            )
            title = f"{name} database, {size / MB:,.0f} MB, to a trace"
            yield Figure(title, rate, "MB/s", scan, "the rows by sqlite3")
            yield Figure(f"{title}, peak memory", memory, "MiB")
            file.unlink()


def nsys(file: Path, size: int) -> None:
    """Write an export of about `size` bytes; one rank's GPU, where it is synthetic."""
    if REAL.is_file():
        shutil.copyfile(REAL, file)
        file.chmod(0o600)
    else:
        _synthetic_nsys(file)
    with sqlite3.connect(file) as db:
        names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        timed = [n for n in names if {"start", "end"} <= set(_columns(db, n))]
        limits = [db.execute(f'SELECT min(start), max("end") FROM "{n}"').fetchone() for n in timed]
        step = max((last or 0) - (first or 0) for first, last in limits) + 1000
        identified = [n for n in timed if "correlationId" in _columns(db, n)]
        ids = (
            max(db.execute(f'SELECT max(correlationId) FROM "{n}"').fetchone()[0] or 0 for n in identified)
            + 1
        )
    grow(file, size, {n: {"start": step, "end": step, "correlationId": ids} for n in timed})


def rocpd(file: Path, size: int) -> None:
    """Write a database of about `size` bytes: a process's launches, other calls, and kernels on two streams."""
    with sqlite3.connect(file) as db:
        for name, columns in TABLES.items():
            db.execute(f"CREATE TABLE rocpd_{name} ({columns})")
        words = ("KERNEL_DISPATCH", "HIP_RUNTIME_API_EXT", "hipLaunchKernel", "hipGetDevice")
        _insert(db, "string", [(n, GUID, word) for n, word in enumerate(words)])
        _insert(db, "info_node", [(1, GUID, "node1")])
        _insert(db, "info_process", [(10, GUID, 10, 1000, "{}")])
        _insert(db, "info_agent", [(2, GUID, "GPU", 2, 0, "gfx942", "AMD Instinct MI300X")])
        _insert(db, "info_kernel_symbol", [(n, GUID, f"k{n}", f"kernel_{n}(int)") for n in range(97)])
        for n in range(KERNELS):
            at, event = n * 20_000, n * 4
            _insert(
                db,
                "event",
                [(event + i, GUID, i > 0, n + 1 if i < 2 else 0, "{}", "{}", "{}") for i in range(4)],
            )
            calls = [
                (at + i * 4000, at + i * 4000 + 3000, 3 if i else 2, event + i + 1, "{}") for i in range(3)
            ]
            _insert(db, "region", [(GUID, 1, 10, 10, *call) for call in calls])
            dispatch = (n % 97, n, 1, n % 5 // 4, at + 5000, at + 17_000, 256, 65536, 0, event, "{}")
            _insert(db, "kernel_dispatch", [(GUID, 1, 10, 10, 2, *dispatch)])
    later = dict.fromkeys(("start", "end"), KERNELS * 20_000) | {"event_id": KERNELS * 4}
    events = {"id": KERNELS * 4, "stack_id": KERNELS}
    grow(file, size, {"rocpd_event": events, "rocpd_region": later, "rocpd_kernel_dispatch": later})


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [c for (c,) in db.execute("SELECT name FROM pragma_table_info(?)", (table,))]


def _insert(db: sqlite3.Connection, name: str, rows: list[tuple]) -> None:
    db.executemany(f"INSERT INTO rocpd_{name} VALUES ({', '.join('?' * len(rows[0]))})", rows)


def grow(file: Path, size: int, moved: dict[str, dict[str, int]]) -> None:
    """Repeat the rows of some tables, each time moved on by a step a column, until there are about `size` bytes."""
    with sqlite3.connect(file, isolation_level=None) as db:
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        last = {n: db.execute(f'SELECT max(rowid) FROM "{n}"').fetchone()[0] or 0 for n in moved}
        columns = {n: _columns(db, n) for n in moved}
        db.execute("BEGIN")
        for copy in range(1, size // file.stat().st_size):
            for n, steps in moved.items():
                own = ", ".join(f'"{c}"' for c in columns[n])
                new = ", ".join(f'"{c}" + {steps[c] * copy}' if c in steps else f'"{c}"' for c in columns[n])
                db.execute(f'INSERT INTO "{n}" ({own}) SELECT {new} FROM "{n}" WHERE rowid <= {last[n]}')
        db.execute("COMMIT")


def _synthetic_nsys(file: Path) -> None:
    process = 1 << 48 | 10 << 24
    kernel, call = "CUPTI_ACTIVITY_KIND_KERNEL", "CUPTI_ACTIVITY_KIND_RUNTIME"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT)")
        db.execute("INSERT INTO StringIds VALUES (0, 'gemm'), (1, 'cudaLaunchKernel_v7000')")
        db.execute(
            f"CREATE TABLE {kernel} (start, end, deviceId, streamId, correlationId, globalPid, demangledName)"
        )
        db.execute(f"CREATE TABLE {call} (start, end, globalTid, correlationId, nameId)")
        for n in range(KERNELS):
            at = n * 10_000
            db.execute(
                f"INSERT INTO {kernel} VALUES (?, ?, 0, 7, ?, ?, 0)", (at + 5000, at + 12_000, n + 1, process)
            )
            db.execute(f"INSERT INTO {call} VALUES (?, ?, ?, ?, 1)", (at, at + 3000, process + 10, n + 1))


def main(what: str, file: Path, size: int) -> None:
    begin = time.perf_counter()
    if what == "sqlite3":
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as db:
            names = [n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows = sum(1 for name in names for _ in db.execute(f'SELECT * FROM "{name}"'))
    else:
        from eidola.convert import convert, find_format

        rows = convert(find_format(what), [file], file.with_suffix(".eidola"), overwrite=True, jobs=1).spans
    seconds = time.perf_counter() - begin
    figures = {
        "mb_per_s": size / MB / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "rows": rows,
        "processor_s": time.process_time(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

"""One row a point: what was asked, what came out. `results.parquet` and `results.csv`."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from ...schemas import Results
from ..wait_text import wait_words
from .point import Point
from .values import NAMES, TABLES

OUTCOME = pa.schema(
    [
        ("status", pa.string()),
        ("makespan_ps", pa.int64()),
        ("collectives_ps", pa.int64()),
        ("flag_reads", pa.int64()),
        ("results_hash", pa.string()),
        ("elapsed_s", pa.float64()),
        ("error", pa.string()),
    ]
)
"""What came out. `status` is done or failed; `collectives_ps` sums the operations' own times, each from its last
rank's start to its latest end; `elapsed_s` is the worker's own time; `error` says why a point failed."""


def results_table(points: Sequence[Point], errors: Mapping[str, str], runs: Path, base: Path) -> pa.Table:
    """Return the study's table, a row a point in their order.

    `errors` by point's id says why one has no run in `runs`; paths are given relative to `base`.
    """
    asked = [_asked(point, base) for point in points]
    outcomes = [_failed(errors[p.id]) if p.id in errors else _outcome(Results(runs / p.id)) for p in points]
    names = sorted(
        {name for row in asked for name in row}, key=lambda n: (NAMES.index(n.partition(".")[0]), n)
    )
    columns = {"point": pa.array([point.id for point in points])}
    columns |= {name: _array([row.get(name) for row in asked]) for name in names}
    columns |= {
        field.name: pa.array([row.get(field.name) for row in outcomes], field.type) for field in OUTCOME
    }
    return pa.table(columns)


def write_table(table: pa.Table, folder: Path) -> None:
    """Write `results.parquet` and `results.csv`, each at once."""
    replace_file(folder / "results.parquet", lambda file: pq.write_table(table, file, compression="zstd"))
    replace_file(folder / "results.csv", lambda file: pyarrow.csv.write_csv(table, file))


def replace_file(file: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside the final place, then rename it: `file` is never half there."""
    partial = file.with_name(f".{file.name}.partial")
    write(partial)
    partial.replace(file)


def _asked(point: Point, base: Path) -> dict[str, Any]:
    """Return the arguments of a point; entries of tables by `table.entry`."""
    row: dict[str, Any] = {"trace": os.path.relpath(point.trace, base)}
    for name, value in vars(point.arguments).items():
        if name in TABLES:
            row |= {f"{name}.{entry}": inner for entry, inner in value.items()}
        else:
            row[name] = value
    row["wait"] = wait_words(point.arguments.wait)
    if point.fabric_sha256:
        row["fabric"] = os.path.relpath(point.arguments.fabric, base)
    return row


def _array(values: list[Any]) -> pa.Array:
    """Return a column of numbers, of truths, or else of texts."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float} or (len(kinds) == 1 and kinds <= {bool, str}):
        return pa.array(values, pa.float64() if float in kinds else None)
    texts = (" ".join(map(str, v)) if isinstance(v, tuple) else v for v in values)
    return pa.array([None if text is None else str(text) for text in texts], pa.string())


def _failed(error: str) -> dict[str, Any]:
    return {"status": "failed", "error": error}


def _outcome(run: Results) -> dict[str, Any]:
    summary, manifest = run.summary, run.manifest
    return {
        "status": "done",
        "makespan_ps": summary["makespan_ps"],
        "collectives_ps": _own_time_ps(run),
        "flag_reads": summary["flag_reads"],
        "results_hash": manifest["results_hash"],
        "elapsed_s": manifest["elapsed_s"],
    }


def _own_time_ps(run: Results) -> int:
    """Sum over operations: from the last rank's start to the latest end."""
    parts = run.read("collectives", ["collective", "start_ps", "end_ps"])
    each = parts.group_by("collective").aggregate([("start_ps", "max"), ("end_ps", "max")])
    return int(pc.sum(pc.subtract(each["end_ps_max"], each["start_ps_max"])).as_py() or 0)

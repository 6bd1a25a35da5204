"""Fused GEMV + AllReduce on CPU threads: run the C kernel, check its result, keep its probe records.

The protocol is described in gemv_allreduce.c. Matrix and vectors hold small integers, so that every order of
float32 addition gives the same sums and the check against a plain product is exact.
"""

import ctypes
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...schemas.errors import CaptureError, UsageError
from .. import raw, records
from .build import compiler, library

PHASES = ("remote_tiles", "local_tiles", "wait_partials", "reduce", "wait_results")
REGIONS = ("partials", "results")
LARGEST_INPUT = 4
LARGEST_SUM = 2**24  # float32 counts integers exactly up to here
_SOURCE = Path(__file__).with_name("gemv_allreduce.c")


@dataclass(frozen=True)
class GemvAllReduce:
    """What to run: `rows` x `columns` over `gpus` ranks, columns split over ranks, rows reduced by slices.

    `workgroups` are physical workgroups a rank, each looping over tiles of `tile_rows` rows; the first of
    `iterations` is a warm-up. `buffer_records` is each workgroup's probe buffer. A wait longer than
    `deadline_s` ends the run. `mute_rank` never raises a flag: it shows what a broken protocol looks like.
    """

    gpus: int = 4
    rows: int = 8192
    columns: int = 1024
    workgroups: int = 8
    tile_rows: int = 64
    iterations: int = 3
    seed: int = 0
    deadline_s: float = 10.0
    buffer_records: int = 16384
    mute_rank: int | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "workgroups", "tile_rows", "iterations", "buffer_records"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 2 <= self.gpus < 0xFFFF:
            raise UsageError(f"gpus is {self.gpus}; an all-reduce needs at least 2 (and at most 65534)")
        if self.rows % self.gpus:
            raise UsageError(f"rows is {self.rows}, no multiple of gpus {self.gpus}: slices must be equal")
        if not self.gpus <= self.columns <= LARGEST_SUM // LARGEST_INPUT**2:
            limit = LARGEST_SUM // LARGEST_INPUT**2
            raise UsageError(
                f"columns is {self.columns}; it must be {self.gpus} (gpus) to {limit} (exact sums)"
            )
        if self.deadline_s <= 0:
            raise UsageError(f"deadline_s is {self.deadline_s}; it must be positive")


@dataclass(frozen=True)
class Run:
    """What came out. `outputs`: float32, ranks x iterations x rows; `records[rank][workgroup]`: kept records.

    `emitted`: records a workgroup made, kept or not; `reports`: times and idle rounds a rank.
    """

    outputs: npt.NDArray[np.float32]
    records: list[list[npt.NDArray[np.void]]]
    emitted: npt.NDArray[np.uint64]
    reports: list[dict[str, int]]
    record_cost_ns: float


_REPORT = ("start_ns", "end_ns", "cpu_ns", "idle_rounds", "idle_ns")


class _Report(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _REPORT]


class _Failure(ctypes.Structure):
    _fields_ = [(n, ctypes.c_uint64) for n in ("aborted", "rank", "workgroup", "flag", "expected", "seen")]


_NUMBERS = (
    *("ranks", "workgroups", "iterations", "tile_rows", "rows", "columns", "record_capacity"),
    *("deadline_ns", "mute_rank"),
)
_POINTERS = (
    "matrix",
    "vectors",
    "partials",
    "results",
    "outputs",
    "records",
    "emitted",
    "reports",
    "failure",
)


class _Job(ctypes.Structure):
    """Mirror of gemv_job in gemv_allreduce.c."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _NUMBERS),
        *((name, ctypes.c_void_p) for name in (*_POINTERS, "flags")),
    ]


def run(spec: GemvAllReduce) -> Run:
    """Run the kernel and check each iteration's result on every rank against a plain product.

    Raises CaptureError naming rank, flag, expected and seen where a wait passes its deadline, or the first
    wrong element; MissingError without a C compiler.
    """
    kernel = library(_SOURCE)
    matrix, vectors = _inputs(spec)
    outputs = np.zeros((spec.gpus, spec.iterations, spec.rows), np.float32)
    buffers = np.zeros((spec.gpus, spec.workgroups, spec.buffer_records), records.RECORD)
    emitted = np.zeros((spec.gpus, spec.workgroups), np.uint64)
    arrays: dict[str, npt.NDArray[Any]] = {
        "matrix": matrix,
        "vectors": vectors,
        "partials": np.zeros((spec.gpus, spec.rows), np.float32),
        "results": np.zeros((spec.gpus, spec.rows), np.float32),
        "outputs": outputs,
        "records": buffers,
        "emitted": emitted,
    }
    reports, failure = (_Report * spec.gpus)(), _Failure()
    job = _job(spec, arrays, reports, failure)
    if refused := kernel.eidola_gemv_allreduce(ctypes.byref(job)):
        raise CaptureError(f"the host backend could not start {spec.gpus} threads (errno {refused})")
    if failure.aborted:
        raise _stalled(spec, failure)
    _check(matrix, vectors, outputs)
    return Run(
        outputs,
        [[buffers[r, w, : int(emitted[r, w])] for w in range(spec.workgroups)] for r in range(spec.gpus)],
        emitted,
        [{name: int(getattr(report, name)) for name in _REPORT} for report in reports],
        _record_cost_ns(kernel),
    )


def _inputs(spec: GemvAllReduce) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return matrix (rows x columns) and one vector an iteration, so that a stale result cannot pass."""
    random = np.random.default_rng(spec.seed)

    def draw(*shape: int) -> npt.NDArray[np.float32]:
        return random.integers(-LARGEST_INPUT, LARGEST_INPUT + 1, shape, np.int8).astype(np.float32)

    return draw(spec.rows, spec.columns), draw(spec.iterations, spec.columns)


def _job(spec: GemvAllReduce, arrays: dict[str, npt.NDArray[Any]], reports: Any, failure: _Failure) -> _Job:
    return _Job(
        ranks=spec.gpus,
        workgroups=spec.workgroups,
        iterations=spec.iterations,
        tile_rows=spec.tile_rows,
        rows=spec.rows,
        columns=spec.columns,
        record_capacity=spec.buffer_records,
        deadline_ns=int(spec.deadline_s * 1e9),
        mute_rank=-1 if spec.mute_rank is None else spec.mute_rank,
        reports=ctypes.addressof(reports),
        failure=ctypes.addressof(failure),
        **{name: array.ctypes.data for name, array in arrays.items()},
    )


def _stalled(spec: GemvAllReduce, failure: _Failure) -> CaptureError:
    region, rest = divmod(failure.flag, spec.gpus * spec.workgroups)
    source = f"{REGIONS[region]} from rank {rest // spec.workgroups}"
    return CaptureError(
        f"rank {failure.rank}, workgroup {failure.workgroup} waited longer than {spec.deadline_s} s for "
        f"flag {failure.flag} ({source}): expected {failure.expected}, "
        f"seen {failure.seen}. On a busy machine allow more with --deadline"
    )


def _check(
    matrix: npt.NDArray[np.float32], vectors: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]
) -> None:
    wrong = np.argwhere(outputs != vectors @ matrix.T)
    if wrong.size:
        rank, iteration, row = wrong[0]
        raise CaptureError(
            f"rank {rank} has a wrong result in iteration {iteration}, row {row} ({len(wrong)} elements in "
            "all): the protocol is broken on this machine; please report it with the CPU's model"
        )


def _record_cost_ns(kernel: ctypes.CDLL) -> float:
    scratch = np.zeros(4096, records.RECORD)
    kernel.eidola_record_cost_ns.restype = ctypes.c_double
    cost = kernel.eidola_record_cost_ns(
        ctypes.c_void_p(scratch.ctypes.data), ctypes.c_uint64(scratch.size), ctypes.c_uint64(100_000)
    )
    return float(cost)


def capture_kernel(
    spec: GemvAllReduce, path: Path, *, overwrite: bool = False, anonymous: bool = False
) -> Run:
    """Run `spec` and write the raw capture at `path`; see the `eidola.capture` docstring for its layout.

    `anonymous` leaves the host's name out. Raises what `run` raises, and UsageError where `path` is taken.
    """
    raw.refuse_existing(path, overwrite=overwrite)
    result = run(spec)
    with raw.raw_folder(path, overwrite=overwrite) as folder:
        for rank, buffers in enumerate(result.records):
            (folder / f"rank{rank:05d}.probes.bin").write_bytes(b"".join(b.tobytes() for b in buffers))
        raw.write_manifest(folder, _manifest(spec, result, anonymous=anonymous))
    return result


def _manifest(spec: GemvAllReduce, result: Run, *, anonymous: bool) -> dict[str, Any]:
    return {
        "kind": "kernel",
        "kernel": "gemv-allreduce",
        "backend": "host",
        "command": _command(spec),
        "parameters": asdict(spec),
        "machine": raw.machine(anonymous=anonymous),
        "versions": {**raw.versions("numpy"), "compiler": compiler()[1]},
        "oversubscribed": spec.gpus > raw.usable_cores(),
        "warm_up_iterations": 1 if spec.iterations > 1 else 0,
        "clock": "CLOCK_MONOTONIC, one for all ranks",
        "record": records.description(),
        "record_cost_ns": round(result.record_cost_ns, 1),
        "phases": list(PHASES),
        "regions": list(REGIONS),
        "flags": {
            "numbering": "(region * ranks + source rank) * workgroups + workgroup, at the waiting rank",
            "value": "epoch: the iteration, counted from 1; a flag is never reset",
            "size_bytes": 8,
            "count": 2 * spec.gpus * spec.workgroups,
        },
        "ranks": [_rank(result, rank) for rank in range(spec.gpus)],
    }


def _rank(result: Run, rank: int) -> dict[str, Any]:
    report = result.reports[rank]
    rounds = report["idle_rounds"]
    return {
        "rank": rank,
        "file": f"rank{rank:05d}.probes.bin",
        **report,
        "poll_round_ns": round(report["idle_ns"] / rounds, 1) if rounds else None,
        "workgroups": [
            {"workgroup": i, "kept": len(kept), "emitted": int(result.emitted[rank][i])}
            for i, kept in enumerate(result.records[rank])
        ],
    }


def _command(spec: GemvAllReduce) -> str:
    return (
        f"eidola capture kernel gemv-allreduce --backend host --gpus {spec.gpus} -m {spec.rows} "
        f"-k {spec.columns} --workgroups {spec.workgroups} --tile-rows {spec.tile_rows} "
        f"--iterations {spec.iterations} --seed {spec.seed}"
    )

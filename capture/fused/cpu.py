"""The backend `host`: a fused kernel's C source, built at first use, a thread a rank."""

import ctypes
from typing import Any

import numpy as np

from ...schemas.errors import CaptureError
from .. import raw, records
from ..host.build import compiler, library
from .job import Run, check_result, job_words, pointer_tables, raise_if_stalled, rank_arrays
from .spec import FusedKernel

_REPORT = ("start_ns", "end_ns", "cpu_ns", "idle_rounds", "idle_ns")


def run(spec: FusedKernel, *options: str) -> Run:
    """Run `spec` on CPU threads and check every iteration's result on every rank against a plain product.

    `options` go to the compiler. Raises CaptureError naming rank, flag, expected and seen where a wait passes
    its deadline, or the first wrong element; MissingError without a C compiler.
    """
    kernel = library(spec.source, *options)
    inputs = spec.inputs()
    outputs = np.zeros((spec.gpus, spec.iterations, spec.result_words), np.float32)
    scratch = [{n: np.zeros(words, np.float32) for n, words in spec.scratch().items()} for _ in inputs]
    ranks = [
        {**rank_arrays(spec), "outputs": outputs[rank], **inputs[rank], **scratch[rank]}
        for rank in range(spec.gpus)
    ]
    for rank in ranks:
        rank["records"].view(np.uint8)[...] = 0  # a first touch inside the kernel would be its page fault
    tables = pointer_tables(ranks, lambda array: int(array.ctypes.data))
    reports = np.zeros((spec.gpus, len(_REPORT)), np.uint64)
    job = job_words(
        spec,
        {name: table.ctypes.data for name, table in tables.items()},
        list(inputs[0]),
        deadline_ticks=int(spec.deadline_s * 1e9),
        reports=reports.ctypes.data,
    )
    if refused := kernel.eidola_fused(ctypes.c_void_p(job.ctypes.data)):
        raise CaptureError(f"the host backend could not start {spec.gpus} threads (errno {refused})")
    raise_if_stalled(spec, [rank["failures"] for rank in ranks])
    check_result(spec, inputs, outputs)
    return Run(
        outputs,
        [rank["records"] for rank in ranks],
        [rank["counts"] for rank in ranks],
        [_rank(dict(zip(_REPORT, map(int, report), strict=True))) for report in reports],
        {
            "versions": {"compiler": compiler()[1]},
            "oversubscribed": spec.gpus > raw.usable_cores(),
            "clock": "CLOCK_MONOTONIC, one for all ranks",
            "record_cost_ns": round(_record_cost_ns(kernel), 1),
        },
    )


def _rank(report: dict[str, int]) -> dict[str, Any]:
    rounds = report["idle_rounds"]
    return {**report, "poll_round_ns": round(report["idle_ns"] / rounds, 1) if rounds else None}


def _record_cost_ns(kernel: ctypes.CDLL) -> float:
    scratch = np.zeros(4096, records.RECORD)
    kernel.eidola_record_cost_ns.restype = ctypes.c_double
    cost = kernel.eidola_record_cost_ns(
        ctypes.c_void_p(scratch.ctypes.data), ctypes.c_uint64(scratch.size), ctypes.c_uint64(100_000)
    )
    return float(cost)

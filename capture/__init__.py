"""Runs beside real work and writes raw records. GPU libraries are imported only where they are used.

A raw capture is a folder, written beside its final place and renamed when complete, so that what bears the
name is whole. `eidola convert captured` turns it into a trace.

    capture.json             what was captured, how, on what machine (see below)
    rank00000.probes.bin     kind `kernel`: a rank's probe records, its workgroups one after the other
    rank00000.0.json         kind `torch`: a rank (restart 0): world size, process groups, windows, gaps, cost
    rank00000.0.calls.ring   its collectives and user-scope events, as they happened (recorder/ring.py)
    rank00000.0.marks.ring   its steps and phases
    rank00000.0.0000.kineto.json.gz, rank00000.0.0000.et.json.gz
                             a profiler window as PyTorch exports it, and an ExecutionTrace
    nccl.rank00000.123.ring  what NCCL told its plugin in process 123 (nccl/ring.h)
    telemetry.jsonl          samples of the launching machine's GPUs (telemetry.py), where asked for
    rank00000.0.flight.json  without a ring: PyTorch's flight recorder, its last 2,000 collectives

`capture.json` always has `format`, `date`, `kind` (kernel, torch), `backend`, `command`, `machine` (host name
or null, CPU, cores, memory, system), `versions`, `oversubscribed` (more ranks than cores) and `ranks`.

A kernel's also has `parameters`, `record` (fields and kinds of a probe record, so that a reader needs nothing
else), `phases`, `regions`, `flags` (numbering, size, meaning of values), `warm_up_iterations`,
`record_cost_ns`, and for each rank how many records each workgroup kept and made; on CPU threads also its CPU
and wall time and the mean time of one round of polls; on a GPU also `device` and `anchor_hz`, the rate of the
clock in the anchor records. Without `anchor_hz` times are nanoseconds of one clock; with it they are cycles,
which a workgroup's anchors tie to that clock.

A PyTorch job's also has the script's `exit_code`, the `failures` of our hooks (which the script never sees), the
sources that were `absent` though the machine has them, what the windows of the dearest rank cost, and for each rank
what closed its record, its gaps and how many records were lost. Times are Unix nanoseconds.
"""

from typing import TYPE_CHECKING

from ..schemas import lazy

if TYPE_CHECKING:
    from .fused.capture import Backend, capture_kernel, run_kernel
    from .fused.embedding_alltoall import EmbeddingAllToAll
    from .fused.gemm_alltoall import GemmAllToAll
    from .fused.gemv_allreduce import GemvAllReduce
    from .probes import RankProbes, include_folder, write_probes
    from .torch_run import run
    from .torch_session import recover, session

__all__ = [
    "Backend",
    "EmbeddingAllToAll",
    "GemmAllToAll",
    "GemvAllReduce",
    "RankProbes",
    "capture_kernel",
    "include_folder",
    "recover",
    "run",
    "run_kernel",
    "session",
    "write_probes",
]

__getattr__ = lazy.attach(
    __name__,
    **{
        "fused.capture": "Backend capture_kernel run_kernel",
        "fused.embedding_alltoall": "EmbeddingAllToAll",
        "fused.gemm_alltoall": "GemmAllToAll",
        "fused.gemv_allreduce": "GemvAllReduce",
        "probes": "RankProbes include_folder write_probes",
        "torch_run": "run",
        "torch_session": "recover session",
    },
)

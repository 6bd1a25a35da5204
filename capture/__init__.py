"""Runs beside real work and writes raw records. GPU libraries are imported only where they are used.

A raw capture is a folder, written beside its final place and renamed when complete, so that what bears the
name is whole. `eidola convert captured` turns it into a trace.

    capture.json             what was captured, how, on what machine (see below)
    rank00000.probes.bin     kind `kernel`: a rank's probe records, its workgroups one after the other
    rank00000.kineto.json    kind `torch`: a rank's profiler trace, as torch.profiler exports it
    rank00000.json           kind `torch`: a rank's process groups, collectives, steps and phases

`capture.json` always has `format`, `date`, `kind` (kernel, torch), `backend`, `command`, `machine` (host name
or null, CPU, cores, memory, system), `versions` and `ranks`. A kernel's also has `parameters`, `record`
(fields and kinds of a probe record, so that a reader needs nothing else), `phases`, `regions`, `flags`
(numbering, size and meaning of values), `oversubscribed` (more ranks than cores), `warm_up_iterations`,
`record_cost_ns`, and for each rank CPU and wall time, the mean time of one round of polls, and how many
records each workgroup kept and made. Times are CLOCK_MONOTONIC nanoseconds in a kernel's capture.
"""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .host.gemv_allreduce import GemvAllReduce

__all__ = ["GemvAllReduce"]

__getattr__ = attach(__name__, **{"host.gemv_allreduce": "GemvAllReduce"})

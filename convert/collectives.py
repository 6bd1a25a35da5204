"""Which spans of a rank are its collectives; each is described by the best source that there is."""

from dataclasses import replace
from typing import Any

import numpy as np

from .describing import described
from .execution_trace import ExecutionTrace
from .host_records import HostRecords
from .joining import join
from .operations import KERNEL_NAME, algorithm_of, kernel_operation, protocol_of
from .parts import Part
from .scanner import ANNOTATION, KERNEL
from .work import Work

_HOST_ONLY = r"^(gloo|mpi|ucc):"


def find_parts(work: Work, records: HostRecords, trace: ExecutionTrace | None) -> list[Part]:
    """Find the rank's collectives, in order of start, each described by the best source that there is."""
    joined = join(records, trace) if trace else {}
    kernels = _kernels(work, records)
    parts: list[Part] = []
    for some in work.scratch.few(len(kernels)):
        parts += [_kernel_part(work, records, joined, span) for span in kernels[some]]
    for span in work.each(ANNOTATION, named=_HOST_ONLY):
        by_id = trace.annotations.get(int(work.function[span]), {}) if trace else {}
        parts.append(_host_part(work, records, joined.get(span, by_id), span))
    return sorted(parts, key=lambda part: (part.start_ns, part.span))


def _kernels(work: Work, records: HostRecords) -> list[int]:
    spans = set(work.each(KERNEL, named=KERNEL_NAME))
    starts = records.labelled()
    for kernels in work.find(KERNEL) if len(starts) else ():
        at_start = kernels[np.isin(work.start_ns[kernels], starts)].tolist()
        spans |= {span for span in at_start if "Collective name" in records.of_kernel(span)}
    return sorted(spans)


def _kernel_part(work: Work, records: HostRecords, joined: dict[int, dict[str, Any]], span: int) -> Part:
    launch = int(work.launch[span])
    record = annotation = -1
    if launch >= 0:
        tid, time_ns = int(work.tid[launch]), int(work.start_ns[launch])
        record = records.around(tid, time_ns, plain=True)
        annotation = records.around(tid, time_ns, plain=False)
    name = work.text(span)
    kernel_args = records.of_kernel(span)
    record = records.linked(kernel_args) if record < 0 else record
    part = described(work, span, record, [
        ("kernel", kernel_args),
        ("host record", records.of(record)),
        ("execution trace", joined.get(record, {})),
        ("annotation", records.of_annotation(annotation)),
        ("kernel name", {"Collective name": kernel_operation(name)}),
    ])  # fmt: skip
    part.launch_ns = int(work.start_ns[launch]) if launch >= 0 else None
    part.algorithm, part.protocol = algorithm_of(name), protocol_of(name)
    part.channels = int(work.grid_x[span]) if work.grid_x[span] > 0 else None
    return part


def _host_part(work: Work, records: HostRecords, traced: dict[str, Any], span: int) -> Part:
    """Describe a collective that the host itself runs (Gloo): its annotation is its span."""
    record = records.around(int(work.tid[span]), int(work.start_ns[span]), plain=True)
    part = described(work, span, record, [
        ("host record", records.of(record)),
        ("execution trace", traced),
        ("annotation", records.of_annotation(span)),
    ])  # fmt: skip
    part.on_gpu = False
    part.group = replace(part.group, handle=None)  # threads take any group's work
    part.launch_ns = int(work.start_ns[record]) if record >= 0 else None
    return part

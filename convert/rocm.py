"""What rocprofv3's two formats share: names of copies and calls, RCCL's calls, and hosts whose clocks differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .events import is_call
from .nccl_calls import DTYPES, Call, operation_of_call
from .profile import Place, Task
from .scanner import NULL

Ints = npt.NDArray[np.int64]

RANK_VARIABLES = {
    "RANK": "WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK": "OMPI_COMM_WORLD_SIZE",
    "PMI_RANK": "PMI_SIZE",
    "SLURM_PROCID": "SLURM_NTASKS",
}
"""Environment variables in which torchrun, Open MPI, MPICH and Slurm tell a process its rank and the job's size."""
NOTE = "what kernels store into peers' memory is no event for rocprofv3: such writes are not in the trace"
_APART_NS = 600_000_000_000
"""No two processes of one job on one host begin so far apart; two hosts' boots nearly always are."""
_COPIES = {
    "MEMORY_COPY_HOST_TO_HOST": "Memcpy HtoH (Host -> Host)",
    "MEMORY_COPY_HOST_TO_DEVICE": "Memcpy HtoD (Host -> Device)",
    "MEMORY_COPY_DEVICE_TO_HOST": "Memcpy DtoH (Device -> Host)",
    "MEMORY_COPY_DEVICE_TO_DEVICE": "Memcpy DtoD (Device -> Device)",
}
"""rocprofiler_memory_copy_operation_t (fwd.h of rocprofiler-sdk), named as PyTorch's profiler names copies."""


_SAME_TYPES = {
    "char": "int8", "int": "int32", "half": "float16", "float": "float32", "double": "float64",
    "fp8e4m3": "float8e4m3", "fp8e5m2": "float8e5m2",
}  # fmt: skip
"""Other names of ncclDataType_t's values (nccl.h.in of RCCL 2.21 and 2.27)."""


def copy_name(operation: str) -> str:
    """Return a copy's name; older files leave out the first words of its kind."""
    return _COPIES.get(f"MEMORY_COPY_{operation.removeprefix('MEMORY_COPY_')}", "Memcpy unknown")


def is_hip_call(name: str) -> bool:
    """Whether a call of HIP launches or waits."""
    return name.startswith(("hip", "__hip")) and is_call(name)


def rccl_call(
    name: str, tid: int, start_ns: int, end_ns: int, correlation: int, arguments: Mapping[str, str]
) -> Call | None:
    """Return a call of RCCL that moves data or groups such; `arguments` are its own, by name, as text."""
    operation = operation_of_call(name)
    if operation is None:
        return None
    dtype, element_bytes = _dtype(arguments.get("datatype", arguments.get("sendtype", "")))
    count = next(
        (
            n
            for key in ("count", "sendcount", "recvcount")
            if (n := number_in(arguments.get(key))) is not None
        ),
        None,
    )
    peer = number_in(arguments.get("peer", arguments.get("root")))
    communicator = arguments.get("comm")
    return Call(
        operation, tid, start_ns, end_ns, correlation,
        count_bytes=count * element_bytes if count is not None and element_bytes else None,
        dtype=dtype,
        peer=peer,
        handle=f"communicator {communicator}" if communicator else None,
    )  # fmt: skip


def number_in(value: Any) -> int | None:
    """Return a number given as such or as text; None for anything else, negative or beyond 62 bits."""
    try:
        number = int(value, 0) if isinstance(value, str) else int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < 1 << 62 else None


def _dtype(text: str) -> tuple[str | None, int | None]:
    """Return name and bytes of ncclDataType_t, which is written as its number or its name."""
    value = number_in(text)
    if value is not None:
        return DTYPES[value] if value < len(DTYPES) else (None, None)
    word = text.removeprefix("nccl").lower()
    return next((found for found in DTYPES if found[0] == _SAME_TYPES.get(word, word)), (None, None))


def rank_in_environment(environment: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return rank and world size as the launcher told the process; None where it did not."""
    for rank_name, size_name in RANK_VARIABLES.items():
        rank, size = number_in(environment.get(rank_name)), number_in(environment.get(size_name))
        if rank is not None and size is not None and rank < size < 1 << 24:
            return rank, size
    return None, None


def finished(tasks: Sequence[Task]) -> list[Task]:
    """Return tasks with what holds for all of rocprofv3's files.

    Times count from each host's boot. Where there are several hosts they are made to count from the start of the
    host's first process, which brings them close enough for collectives to align them. ROCm 6 names no host:
    where their processes began far apart, by clocks that count from boots, they are taken to be of several.
    """
    first, *rest = tasks
    tasks = [replace(first, notes=(*first.notes, NOTE)), *rest]
    hosts = _hosts(tasks)
    begun = {
        h: [t.place.init_ns for t, own in zip(tasks, hosts, strict=True) if own == h] for h in set(hosts)
    }
    if len(begun) < 2 or not all(any(times) for times in begun.values()):
        return tasks
    note = (
        "the hosts' clocks count from their boots: each host's times are taken from its first process's start"
    )
    if all(task.place.host is None for task in tasks):
        note += f"; {len(begun)} hosts are told apart by their clocks alone, as the files do not name them"
    tasks[0] = replace(tasks[0], notes=(*tasks[0].notes, note))
    return [
        replace(task, base_ns=-min(n for n in begun[host] if n))
        for task, host in zip(tasks, hosts, strict=True)
    ]


def _hosts(tasks: Sequence[Task]) -> list[str | int | None]:
    """Return each task's host by name; where none is named, a number by when the process began on its clock."""
    if any(task.place.host is not None for task in tasks) or not all(task.place.init_ns for task in tasks):
        return [task.place.host for task in tasks]
    times = sorted({task.place.init_ns or 0 for task in tasks})
    number, numbers = 0, {}
    for before, time in zip([times[0], *times], times, strict=False):
        number += time - before > _APART_NS
        numbers[time] = number
    return [numbers[task.place.init_ns or 0] for task in tasks]


def lanes_are_queues(pairs: Iterable[tuple[int | None, int | None]]) -> bool:
    """Whether lanes are told by hardware queues rather than by streams, of the (stream, queue) of all dispatches.

    Stream 0 is HIP's default stream, and stands too for all streams where they were not recorded: of several queues
    it says nothing then.
    """
    streams, queues = (set(column) - {None, NULL} for column in zip(*pairs, strict=True))
    return not streams or (streams == {0} and len(queues) > 1)


def unnamed_note(place: Place, count: int) -> list[str]:
    """Return the note on kernels of which the file does not hold the name; none where there is none."""
    what = (
        f"{place.path.name} does not hold the names of {count} kernels: which of them are RCCL's is not known"
    )
    return [f"{what}; record it again"] if count else []


def clock_of(place: Place) -> str:
    """Return the clock that a process's times are of: its host's since boot, or else its file's."""
    return f"host {place.host}" if place.host else str(place.path)


def blocks(grid: Ints, workgroup: Ints) -> Ints:
    """Return workgroups along x; HSA counts a grid in work items."""
    known = (grid > 0) & (workgroup > 0)
    return np.where(known, -(-grid // np.maximum(workgroup, 1)), NULL)

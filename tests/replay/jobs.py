"""Small training jobs over a mesh of tensor and data parallel ranks."""

from pathlib import Path

from eidola.schemas import Trace

from .traces import collective, edge, span, write_trace

MESHES = {"named": ("mesh_tp", "mesh_dp"), "unnamed": (None, None)}
STEP_NS = 100_000


def groups(rank: int, tensor: int, data: int, names) -> list[dict]:
    """Ranks of tensor groups are contiguous, those of data groups `tensor` apart."""
    row, column = rank // tensor, rank % tensor
    return [
        {"communicator": f"t{row}", "group_rank": column, "group_size": tensor, "name": names[0]},
        {"communicator": f"d{column}", "group_rank": row, "group_size": data, "name": names[1]},
        {"communicator": "world", "group_rank": rank, "group_size": tensor * data, "name": None},
    ]


def job(path: Path, mesh: str = "named", tensor: int = 2, data: int = 2, steps: int = 1) -> Trace:
    """Each step: a GEMM, a tensor all-reduce, an elementwise kernel, a data all-reduce; slower by rank and step."""
    rows = {}
    for rank in range(tensor * data):
        mine = {"spans": [], "collectives": [], "dependencies": []}
        mine["communicators"] = groups(rank, tensor, data, MESHES[mesh])
        for step in range(steps):
            _add_step(mine, rank, step, tensor)
        mine["collectives"].append(
            collective(None, 0, steps * STEP_NS, steps * STEP_NS + 900, "barrier", None, "world")
        )
        rows[rank] = mine
    return write_trace(path, rows)


def _add_step(mine: dict, rank: int, step: int, tensor: int) -> None:
    at, first, slow = step * STEP_NS, 8 * step, 100 * rank + 10 * step
    mine["spans"] += [
        span(first, "steps", at, at + 90_000, "annotation", f"ProfilerStep#{step}"),
        span(first + 1, "thread 9", at, at + 300, "host_call", "cudaLaunchKernel"),
        span(first + 2, "stream 7", at + 200, at + 10_000 + slow, name="ampere_sgemm_64x64"),
        span(first + 3, "stream 9", at + 12_000, at + 30_000, name="ncclDevKernel_AllReduce"),
        span(first + 4, "stream 7", at + 31_000, at + 40_000 + slow, name="elementwise"),
        span(first + 5, "stream 9", at + 45_000, at + 80_000, name="ncclDevKernel_AllReduce"),
        span(first + 6, "thread 9", at + 500, at + 81_000, "host_call", "cudaStreamSynchronize"),
    ]
    mine["dependencies"] += [
        edge(first + 1, first + 2, "launch"),
        edge(first + 2, first + 3),
        edge(first + 3, first + 4),
        edge(first + 4, first + 5),
        edge(first + 5, first + 6, "sync"),
    ]
    row, column = rank // tensor, rank % tensor
    mine["collectives"] += [
        collective(first + 3, step, at + 12_000, at + 30_000, size=1 << 16, communicator=f"t{row}"),
        collective(first + 5, step, at + 45_000, at + 80_000, size=1 << 20, communicator=f"d{column}"),
    ]

"""Traffic to each GPU's memory by kind, and what its waits and workgroups shared: two result tables."""

from typing import TYPE_CHECKING, Any

import numpy as np

from .device import compute_bytes, computes
from .gpu_times import chunks
from .program import Ints
from .waiting import Policy

if TYPE_CHECKING:
    from .outcome import Outcome


def memory(outcome: "Outcome") -> dict[str, Any]:
    """Return the table of traffic to GPUs' memories; kinds without any are left out."""
    program, final, each = outcome.program, outcome.final, outcome.device.poll_bytes
    overflow = final.waiting["overflow_reads"] if len(final.waiting) else np.zeros(program.agents, np.int64)
    kinds = [
        ("overflow", *_reads(outcome, overflow, each)),
        ("received", *_received(outcome)),
        ("compute", computes(program), compute_bytes(program)),
    ]
    if outcome.wait.kind is not Policy.IDEAL:
        kinds.insert(
            0, (outcome.wait.kind.name.lower(), *_reads(outcome, final.agents["polls"] - overflow, each))
        )
    rank, which = np.nonzero(np.array([operations[: program.gpus] for _, operations, _ in kinds]).T)
    return {
        "row": np.arange(len(rank)),
        "rank": rank,
        "traffic": [kinds[i][0] for i in which],
        "operations": [int(kinds[i][1][gpu]) for gpu, i in zip(rank, which, strict=True)],
        "size_bytes": [int(kinds[i][2][gpu]) for gpu, i in zip(rank, which, strict=True)],
    }


def sharing(outcome: "Outcome") -> dict[str, Any]:
    """Return the table of what waits and workgroups shared."""
    names, gpus = ("false_wakes", "overflows", "slot_ps"), outcome.program.gpus
    summed = {name: _summed(outcome, outcome.final.waiting[name])[:gpus] for name in names}
    return {"rank": np.arange(gpus), **summed}


def _summed(outcome: "Outcome", of_agents: Ints) -> Ints:
    """(E,) sums over each endpoint's agents."""
    total = np.zeros(outcome.program.endpoints, np.int64)
    np.add.at(total, outcome.program.agent_endpoint, of_agents)
    return total


def _reads(outcome: "Outcome", of_agents: Ints, size_bytes: int) -> tuple[Ints, Ints]:
    """(E,) reads, and their bytes."""
    reads = _summed(outcome, of_agents)
    return reads, reads * size_bytes


def _received(outcome: "Outcome") -> tuple[Ints, Ints]:
    """(E,) writes from other endpoints, and their payload."""
    writes, size = np.zeros((2, outcome.program.endpoints), np.int64)
    for low, high in chunks(outcome.program.messages):
        known = outcome.columns.messages(low, high)
        away = known["source"] != known["destination"]
        np.add.at(writes, known["destination"][away], 1)
        np.add.at(size, known["destination"][away], known["size_bytes"][away])
    return writes, size

"""What the agents of one GPU share: slots for workgroups, and the bandwidth of its memory."""

from dataclasses import dataclass

import numpy as np

from ..schemas import UsageError
from .generate.draws import Purpose, words
from .program import Ints, Op, Program
from .waiting import Policy, WaitPolicy

ORDERS = ("ascending", "descending", "shuffled")
WORKGROUP = "workgroup"
_MOST_BYTES = 1 << 42  # of one GPU: its memory's clock counts millionths of a byte in 63 bits


@dataclass(frozen=True)
class Device:
    """Limits of every GPU; each at 0 is none.

    At most `slots` workgroups (agents whose name begins with `workgroup`) are on a GPU at once. They are put there
    in `order` (ascending, descending, shuffled by `seed`), a free slot goes to who was ready first, and getting
    it takes `switch_ps`. A workgroup keeps its slot until it ends, or waits under a policy that yields it.

    Memory serves `memory_mb_per_s`: max-min fair between the GPU's computes that carry bytes, its incoming
    writes, and its spinning waits, each of which reads `poll_bytes` a poll.
    """

    slots: int = 0
    order: str = "ascending"
    switch_ps: int = 0
    memory_mb_per_s: int = 0
    poll_bytes: int = 64
    seed: int = 0

    def __bool__(self) -> bool:
        return bool(self.slots or self.memory_mb_per_s)

    def check(self, program: Program, wait: WaitPolicy) -> None:
        """Raise UsageError for limits that make no sense, alone or with this policy."""
        if min(self.slots, self.switch_ps, self.memory_mb_per_s, self.seed) < 0 or self.poll_bytes < 1:
            raise UsageError("workgroup slots, memory rate and seed are 0 or more, bytes a poll at least 1")
        if self.order not in ORDERS:
            raise UsageError(f"no dispatch order {self.order!r}; choose {', '.join(ORDERS)}")
        if not self.memory_mb_per_s:
            return
        if wait.kind in (Policy.BACKOFF, Policy.TABLE):
            raise UsageError(
                f"under a memory rate the poll period follows the load, so it must be constant: "
                f"{wait.kind.name.lower()} has several; use spin or monitor"
            )
        total = compute_bytes(program)
        if total.max(initial=0) > _MOST_BYTES:
            raise UsageError(
                f"GPU {int(total.argmax())} computes on {total.max():.3g} bytes; a memory rate takes at most "
                f"{_MOST_BYTES}; leave it out, or replay fewer steps"
            )

    def limited(self, program: Program) -> Ints:
        """Return (A,) whether each agent needs a slot."""
        names = np.array([name.startswith(WORKGROUP) for name in program.names] or [False])
        gpu = program.agent_endpoint < program.gpus
        return (names[program.agent_name] & gpu & (self.slots > 0)).astype(np.int64)

    def queues(self, program: Program) -> list[list[int]]:
        """Return each endpoint's workgroups in the order in which they are put onto it."""
        found = np.flatnonzero(self.limited(program))
        owner = program.agent_endpoint[found]
        order = np.argsort(owner, kind="stable")
        first = np.searchsorted(owner[order], np.arange(program.endpoints + 1))
        return [self._dispatched(found[order[first[e] : first[e + 1]]], e) for e in range(program.endpoints)]

    def _dispatched(self, agents: Ints, endpoint: int) -> list[int]:
        if self.order == "descending":
            agents = agents[::-1]
        if self.order == "shuffled":
            drawn = words(len(agents), self.seed, Purpose.DISPATCH, endpoint)
            agents = agents[np.argsort(drawn, kind="stable")]
        return [int(agent) for agent in agents]


def compute_bytes(program: Program) -> Ints:
    """Return (E,) bytes that computes of each endpoint read and write in its memory."""
    return _by_endpoint(program, np.where(program.ops["kind"] == Op.COMPUTE, program.ops["size_bytes"], 0))


def computes(program: Program) -> Ints:
    """Return (E,) how many computes of each endpoint carry bytes."""
    return _by_endpoint(program, (program.ops["kind"] == Op.COMPUTE) & (program.ops["size_bytes"] > 0))


def _by_endpoint(program: Program, of_ops: Ints) -> Ints:
    block, before = program.calls["block"], np.concatenate(([0], np.cumsum(of_ops)))
    each = (before[program.block_first[block + 1]] - before[program.block_first[block]]) * program.calls[
        "repeat"
    ]
    total = np.zeros(program.endpoints, np.int64)
    np.add.at(total, program.agent_endpoint[program.calls["agent"]], each)
    return total


NO_LIMITS = Device()

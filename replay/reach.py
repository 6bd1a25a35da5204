"""Whether a program names only endpoints and flags that exist: what the compiled engine would not survive."""

from collections.abc import Iterator

import numpy as np

from ..schemas import UsageError
from .program import Ints, Mode, Op, Program

_CHUNK = 1 << 20  # operations looked at in one go


def check_reach(program: Program) -> None:
    """Raise UsageError, naming the agent, where an operation writes, waits or computes what cannot be."""
    ops = program.ops
    if (ops["duration_ps"] < 0).any() or (ops["size_bytes"] < 0).any():
        raise UsageError("the program computes for a negative time, or writes a negative size; it is wrong")
    group_slots = np.zeros(1, np.int64)
    if len(program.members):
        group_slots = np.minimum.reduceat(program.flags[program.members], program.group_first[:-1])
    for call, op in _calls_and_ops(program):
        _check(program, call, op, group_slots)


def _calls_and_ops(program: Program) -> Iterator[tuple[Ints, Ints]]:
    """Yield (call, operation) of every operation that is called at all, some calls at a time."""
    block = program.calls["block"]
    length = np.diff(program.block_first)[block] * (program.calls["repeat"] > 0)
    done = np.concatenate(([0], np.cumsum(length)))
    low = 0
    while low < len(length):
        high = max(low + 1, int(np.searchsorted(done, done[low] + _CHUNK, side="right")) - 1)
        call = np.repeat(np.arange(low, high), length[low:high])
        yield call, program.block_first[block[call]] + np.arange(done[low], done[high]) - done[call]
        low = high


def _check(program: Program, call: Ints, op: Ints, group_slots: Ints) -> None:
    """Check the first and the last turn of each operation: what lies between is between them."""
    ops, calls = program.ops, program.calls
    agent, group = calls["agent"][call], calls["group"][call]
    relative = ops["mode"][op] == Mode.RELATIVE
    waits = ops["kind"][op] == Op.WAIT
    flagged = (ops["kind"][op] == Op.WRITE) & (ops["flag"][op] >= 0)
    absolute = (ops["kind"][op] == Op.WRITE) & ~relative
    last = calls["repeat"][call] - 1
    _refuse(program, relative & (group < 0), agent, "writes to a group that it does not have")
    first = np.zeros_like(last)
    for turn in (first, last) if last.any() else (first,):
        peer = ops["peer"][op] + turn * ops["peer_step"][op]
        _refuse(program, absolute & ((peer < 0) | (peer >= program.endpoints)), agent,
                "writes to a GPU that does not exist")  # fmt: skip
        slot = ops["flag"][op] + calls["flag_offset"][call] + turn * ops["flag_step"][op]
        own = program.flags[program.agent_endpoint[agent]]
        there = np.where(
            relative, group_slots[np.maximum(group, 0)], program.flags[np.where(absolute, peer, 0)]
        )
        slots = np.where(waits, own, there)
        _refuse(program, (waits | flagged) & ((slot < 0) | (slot >= slots)), agent,
                "uses a flag that was never reserved")  # fmt: skip


def _refuse(program: Program, bad: Ints, agent: Ints, what: str) -> None:
    if bad.any():
        first = int(agent[np.flatnonzero(bad)[0]])
        name = program.names[program.agent_name[first]]
        raise UsageError(f"{name} of GPU {program.agent_endpoint[first]} {what}; the program is wrong")

"""Whether a program names only endpoints and flags that exist: what the compiled engine would not survive."""

import numpy as np

from ..schemas import UsageError
from .program import Program

_WRONG = (
    "",
    "writes to a group that it does not have",
    "writes to a GPU that does not exist",
    "uses a flag that was never reserved",
)
_OPS = ("kind", "mode", "peer", "peer_step", "flag", "flag_step")
_CALLS = ("agent", "block", "repeat", "group", "position", "flag_offset")


def check_reach(program: Program) -> None:
    """Raise UsageError, naming the agent, where an operation writes, waits or computes what cannot be."""
    from .engine.reaching import first_wrong

    ops, calls = program.ops, program.calls
    if (ops["duration_ps"] < 0).any() or (ops["size_bytes"] < 0).any():
        raise UsageError("the program computes for a negative time, or writes a negative size; it is wrong")
    group_slots = np.zeros(1, np.int64)
    if len(program.members):
        group_slots = np.minimum.reduceat(program.flags[program.members], program.group_first[:-1])
    call, wrong = first_wrong(
        tuple(ops[name] for name in _OPS), tuple(calls[name] for name in _CALLS), program.block_first,
        program.agent_endpoint, program.flags, program.group_first, program.members, group_slots,
    )  # fmt: skip
    if wrong:
        agent = calls["agent"][call]
        raise UsageError(
            f"{program.names[program.agent_name[agent]]} of GPU {program.agent_endpoint[agent]} {_WRONG[wrong]}; "
            "the program is wrong"
        )

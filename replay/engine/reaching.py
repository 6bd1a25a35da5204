"""The check of `reach`, compiled: the first call of a program with an operation that names what is not there."""

from ..program import Mode, Op
from .jit import entry

WELL, NO_GROUP, NO_GPU, NO_FLAG = range(4)
_COMPUTE, _WAIT, _RELATIVE = int(Op.COMPUTE), int(Op.WAIT), int(Mode.RELATIVE)


@entry
def first_wrong(ops, calls, block_first, endpoint, flags, group_first, members, group_slots):
    """Return (call, what is wrong); the first and the last turn of an operation bound what lies between.

    `ops`: kind, mode, peer, peer_step, flag and flag_step; `calls`: agent, block, repeat, group, position and
    flag_offset; `group_slots` the fewest slots of a group's members.
    """
    kind, mode, peer, peer_step, flag, flag_step = ops
    agent, block, repeat, group, position, offset = calls
    for call in range(len(agent)):
        last = repeat[call] - 1
        if last < 0:
            continue
        own = flags[endpoint[agent[call]]]
        for op in range(block_first[block[call]], block_first[block[call] + 1]):
            if kind[op] == _COMPUTE:
                continue
            waits, relative = kind[op] == _WAIT, mode[op] == _RELATIVE
            if relative and group[call] < 0:
                return call, NO_GROUP
            low = high = flag[op] + offset[call]
            high += last * flag_step[op]
            low, high = min(low, high), max(low, high)
            flagged = waits or flag[op] >= 0
            slots = own if waits else group_slots[group[call]] if relative else 0
            if not (waits or relative):
                first, final = peer[op], peer[op] + last * peer_step[op]
                if min(first, final) < 0 or max(first, final) >= len(flags):
                    return call, NO_GPU
                slots = min(flags[first], flags[final])
            if not flagged or (0 <= low <= high < slots):
                continue
            if waits or low < 0:
                return call, NO_FLAG
            for turn in range(last + 1):  # endpoints have unlike numbers of slots: each write's own is asked
                to = peer[op] + turn * peer_step[op]
                if relative:
                    begin, end = group_first[group[call]], group_first[group[call] + 1]
                    to = members[begin + (position[call] + to) % (end - begin)]
                if flag[op] + offset[call] + turn * flag_step[op] >= flags[to]:
                    return call, NO_FLAG
    return 0, WELL

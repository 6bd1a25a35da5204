"""Agents of the compiled engine: they run until they block, post messages, and are released by flags."""

from ..program import Mode, Op
from .jit import jit
from .layout import BLOCKED_NOT, DONE, FINISHED
from .posting import post
from .sharing import block, end, finish_wait, memory_compute, raise_line, serve, set_timer

_COMPUTE, _WRITE = int(Op.COMPUTE), int(Op.WRITE)
_UNTIL = int(Mode.UNTIL)
_POLL, _OBSERVE = int(Mode.POLL), int(Mode.OBSERVE)


@jit
def raise_flag(serving, sim, rows, index, message, now):
    """Add one to a flag, and release the agents that waited for the count that it has reached."""
    flag = sim.flags[index]
    flag.count += 1
    if len(sim.waiting):
        raise_line(serving, sim, rows, index, message, now)
        return
    previous = -1
    at = flag.waiter - 1
    while at >= 0:
        agent = sim.agents[at]
        following = agent.next
        if agent.expected <= flag.count:
            if previous < 0:
                flag.waiter = following + 1
            else:
                sim.agents[previous].next = following
            finish, polls = serve(serving, agent.mode, agent.since_ps, now)
            finish_wait(sim, rows, at, agent.since_ps, now, finish, polls, message)
            agent.flag = BLOCKED_NOT
            agent.released_by = message
            set_timer(sim, finish, at)
        else:
            previous = at
        at = following


@jit
def begin_wait(code, serving, sim, rows, at, call, op, turn, now):
    """Begin one wait of agent `at`; return whether the agent goes on at once."""
    slot = op.flag + call.flag_offset + turn * op.flag_step
    expected = op.expected + turn * op.expected_step
    if op.mode == _OBSERVE:
        finish_wait(sim, rows, at, now, -1, now, 0, -1)
        return True
    index = code.flag_first[code.agent_endpoint[at]] + slot
    flag = sim.flags[index]
    if flag.count >= expected:
        reads = 1 if op.mode == _POLL and serving.polled else 0
        finish_wait(sim, rows, at, now, now, now, reads, -1)
        return True
    agent = sim.agents[at]
    agent.flag = index
    agent.expected = expected
    agent.since_ps = now
    agent.mode = op.mode
    if len(serving.lines):
        index = serving.lines[index]
    agent.next = sim.flags[index].waiter - 1
    sim.flags[index].waiter = at + 1
    if len(sim.waiting):
        block(serving, sim, at, now)
    return False


@jit
def step(code, net, serving, sim, rows, at, call, op, turn, now):
    """Execute one operation of agent `at`; return (status, whether it blocks)."""
    if op.kind == _WRITE:
        return post(code, net, sim, rows, at, call, op, turn, now), False
    if op.kind != _COMPUTE:
        return DONE, not begin_wait(code, serving, sim, rows, at, call, op, turn, now)
    until = op.duration_ps
    if op.mode != _UNTIL:
        until += now
        sim.agents[at].compute_ps += op.duration_ps
        if serving.rate and op.size_bytes > 0:
            memory_compute(serving, sim, at, op.duration_ps, op.size_bytes, now)
            return DONE, True
    if until <= now:
        return DONE, False
    set_timer(sim, until, at)
    return DONE, True


@jit
def run_agent(code, net, serving, sim, rows, at, now):
    """Run agent `at` until it blocks or ends; return DONE, or why a write of it cannot be posted now."""
    agent = sim.agents[at]
    last = code.call_first[at + 1]
    while agent.call < last:
        call = code.calls[agent.call]
        begin = code.block_first[call.block]
        length = code.block_first[call.block + 1] - begin
        if agent.turn == 0 and agent.op == 0:
            rows.calls[agent.call].start_ps = now
            rows.calls[agent.call].released_by = agent.released_by
        turns = call.repeat if length else 0
        while agent.turn < turns:
            while agent.op < length:
                status, blocked = step(code, net, serving, sim, rows, at, call, code.ops[begin + agent.op],
                                       agent.turn, now)  # fmt: skip
                if status != DONE:
                    set_timer(sim, now, at)  # tried again, first of this picosecond, when there is room
                    return status
                agent.op += 1
                if blocked:
                    return DONE
            agent.op = 0
            agent.turn += 1
        rows.calls[agent.call].end_ps = now
        agent.turn = 0
        agent.call += 1
    agent.flag = FINISHED
    agent.end_ps = now
    if len(sim.waiting):
        end(serving, sim, at, now)
    return DONE

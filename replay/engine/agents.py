"""Agents of the compiled engine: they run until they block, post messages, and are released by flags."""

from ..program import Mode, Op
from .jit import jit
from .layout import BLOCKED_NOT, DONE, FINISHED, LANDED, LOCAL_PS
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
def compute(serving, sim, at, op, clock):
    """Begin the compute `op` of agent `at`; return (when it ends, whether a timer of memory says when)."""
    if op.mode == _UNTIL:
        return max(clock, op.duration_ps), False
    sim.agents[at].compute_ps += op.duration_ps
    if serving.rate and op.size_bytes > 0:
        memory_compute(serving, sim, at, op.duration_ps, op.size_bytes, clock)
        return clock, True
    return clock + op.duration_ps, False


@jit
def unseen(code, net, serving, op):
    """Whether nothing happens when a write lands but that it has landed: in an ideal fabric, without flags."""
    alone = net.first_own == 0 and serving.rate == 0 and len(code.flow_of) == 0
    return alone and op.kind == _WRITE and op.flag < 0 and op.ack < 0


@jit
def land_unseen(sim, rows, at, clock):
    """Post and land a write that nobody sees land."""
    agent = sim.agents[at]
    if len(rows.messages):
        row = rows.messages[agent.message]
        row.post_ps = clock
        row.start_ps = clock
        row.arrival_ps = clock + LOCAL_PS
        row.queued_ps = 0
        row.link = -1
        row.released_by = agent.released_by
    agent.message += 1
    sim.register[LANDED] += 1


@jit
def run_agent(code, net, serving, sim, rows, at, now):
    """Run agent `at` until it blocks or ends; return DONE, or why a write of it cannot be posted now.

    Its clock runs ahead of `now` over computes, and over writes that nobody sees land, as far as nothing else
    happens; a timer then says when the rest does.
    """
    agent = sim.agents[at]
    clock = now
    last = code.call_first[at + 1]
    while agent.call < last:
        call = code.calls[agent.call]
        begin = code.block_first[call.block]
        length = code.block_first[call.block + 1] - begin
        if agent.turn == 0 and agent.op == 0:
            rows.calls[agent.call].start_ps = clock
            rows.calls[agent.call].released_by = agent.released_by
        turns = call.repeat if length else 0
        while agent.turn < turns:
            while agent.op < length:
                op = code.ops[begin + agent.op]
                blocked = False
                if op.kind == _COMPUTE:
                    if clock > now and serving.rate:
                        set_timer(sim, clock, at)
                        return DONE
                    clock, blocked = compute(serving, sim, at, op, clock)
                elif unseen(code, net, serving, op):
                    land_unseen(sim, rows, at, clock)
                elif clock > now:
                    set_timer(sim, clock, at)
                    return DONE
                elif op.kind == _WRITE:
                    status = post(code, net, sim, rows, at, call, op, agent.turn, now)
                    if status != DONE:
                        set_timer(sim, now, at)  # tried again, first of this picosecond, when there is room
                        return status
                else:
                    blocked = not begin_wait(code, serving, sim, rows, at, call, op, agent.turn, now)
                agent.op += 1
                if blocked:
                    return DONE
            agent.op = 0
            agent.turn += 1
        rows.calls[agent.call].end_ps = clock
        agent.turn = 0
        agent.call += 1
    if clock > now and len(sim.waiting):  # its slot is free then, not now
        set_timer(sim, clock, at)
        return DONE
    agent.flag = FINISHED
    agent.end_ps = clock
    if len(sim.waiting):
        end(serving, sim, at, now)
    return DONE

"""Agents of the compiled engine: they run until they block, post messages, and are released by flags."""

from ..program import Mode, Op
from ..waiting import Policy
from .heap import push
from .jit import jit
from .layout import BLOCKED_NOT, DONE, FINISHED, TIMERS
from .posting import post

_COMPUTE, _WRITE = int(Op.COMPUTE), int(Op.WRITE)
_UNTIL = int(Mode.UNTIL)
_POLL, _OBSERVE = int(Mode.POLL), int(Mode.OBSERVE)
_IDEAL, _SPIN, _MONITOR = int(Policy.IDEAL), int(Policy.SPIN), int(Policy.MONITOR)


@jit
def set_timer(sim, time, key):
    """Wake agent `key` at `time`; a negative key is an acknowledgement's, and comes before agents."""
    push(sim.timers, sim.register[TIMERS], time, key)
    sim.register[TIMERS] += 1


@jit
def serve(policy, mode, start, arrival):
    """Return (time that the waiter goes on, flag reads); see waiting.WaitPolicy.serve."""
    if mode == _POLL and policy[0] == _SPIN:
        turns = (arrival - start + policy[1] - 1) // policy[1]
        return start + turns * policy[1], turns + 1
    if mode == _POLL and policy[0] == _MONITOR:
        return max(arrival, start + policy[3]) + policy[2], 1
    return arrival, 0


@jit
def raise_flag(sim, rows, policy, index, message, now):
    """Add one to a flag, and release the agents that waited for the count that it has reached."""
    flag = sim.flags[index]
    flag.count += 1
    previous = -1
    at = flag.waiter
    while at >= 0:
        agent = sim.agents[at]
        following = agent.next
        if agent.expected <= flag.count:
            if previous < 0:
                flag.waiter = following
            else:
                sim.agents[previous].next = following
            end, polls = serve(policy, agent.mode, agent.since_ps, now)
            finish_wait(sim, rows, at, agent.since_ps, now, end, polls, message)
            agent.flag = BLOCKED_NOT
            agent.released_by = message
            set_timer(sim, end, at)
        else:
            previous = at
        at = following


@jit
def finish_wait(sim, rows, at, start, arrival, end, polls, message):
    """Count one served wait of agent `at`, and record it."""
    agent = sim.agents[at]
    agent.wait_ps += end - start
    agent.polls += polls
    if len(rows.waits):
        row = rows.waits[agent.wait]
        row.start_ps = start
        row.arrival_ps = arrival
        row.end_ps = end
        row.polls = polls
        row.released_by = message
    agent.wait += 1


@jit
def begin_wait(code, sim, rows, policy, at, call, op, turn, now):
    """Begin one wait of agent `at`; return whether the agent goes on at once."""
    slot = op.flag + call.flag_offset + turn * op.flag_step
    expected = op.expected + turn * op.expected_step
    if op.mode == _OBSERVE:
        finish_wait(sim, rows, at, now, -1, now, 0, -1)
        return True
    index = code.flag_first[code.agent_endpoint[at]] + slot
    flag = sim.flags[index]
    if flag.count >= expected:
        reads = 1 if op.mode == _POLL and policy[0] != _IDEAL else 0
        finish_wait(sim, rows, at, now, now, now, reads, -1)
        return True
    agent = sim.agents[at]
    agent.flag = index
    agent.expected = expected
    agent.since_ps = now
    agent.mode = op.mode
    agent.next = flag.waiter
    flag.waiter = at
    return False


@jit
def step(code, net, sim, rows, policy, at, call, op, turn, now):
    """Execute one operation of agent `at`; return (status, whether it blocks)."""
    if op.kind == _WRITE:
        return post(code, net, sim, rows, at, call, op, turn, now), False
    if op.kind != _COMPUTE:
        return DONE, not begin_wait(code, sim, rows, policy, at, call, op, turn, now)
    end = op.duration_ps
    if op.mode != _UNTIL:
        end += now
        sim.agents[at].compute_ps += op.duration_ps
    if end <= now:
        return DONE, False
    set_timer(sim, end, at)
    return DONE, True


@jit
def run_agent(code, net, sim, rows, policy, at, now):
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
                status, blocked = step(code, net, sim, rows, policy, at, call, code.ops[begin + agent.op],
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
    return DONE

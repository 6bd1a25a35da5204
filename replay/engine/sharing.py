"""What waits and GPUs share, in the compiled engine: monitors and their lines, slots, memory's bandwidth.

The same as `reference_sharing`, which is the definition; the fields are described in `serving`.
"""

from ..program import Mode
from .heap import push
from .jit import cold, jit
from .layout import BLOCKED_NOT, QUEUED, TIMERS
from .serving import AWAY, EVENT, MONITORED, NOT_WAITING, OVERFLOW, RESIDENT, SPINNING, UNLIMITED

_POLL = int(Mode.POLL)
_MILLION = 1_000_000


@jit
def set_timer(sim, time, key):
    """Wake agent `key` at `time`; a negative key is an acknowledgement's or a memory's, and comes before agents."""
    push(sim.timers, sim.register[TIMERS], time, key)
    sim.register[TIMERS] += 1


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
def serve(serving, mode, start, arrival):
    """Return (time that the waiter goes on, flag reads); see waiting.WaitPolicy.serve."""
    if mode != _POLL or not serving.polled:
        return arrival, 0
    time = start
    reads = 1
    for row in range(len(serving.rows)):
        gap = serving.rows[row, 0]
        times = serving.rows[row, 1]
        turns = (arrival - time + gap - 1) // gap
        if times == 0 or turns <= times:
            return time + turns * gap, reads + turns
        time += times * gap
        reads += times
    return max(arrival, time + serving.arm_ps) + serving.wake_ps, reads


@cold
def settle(gpu, now):
    """Bring memory's clock and the round of polls in progress to `now`."""
    if gpu.elastic:
        gpu.clock += (now - gpu.now_ps) * gpu.rate
    gpu.now_ps = now
    if gpu.spinners and now > gpu.boundary_ps:
        rounds = (now - gpu.boundary_ps + gpu.round_ps - 1) // gpu.round_ps
        gpu.boundary_ps += rounds * gpu.round_ps
        gpu.round += rounds


@cold
def divide(serving, sim, where):
    """Share memory's rate out anew after a change of its users; set the timer of the next that is served."""
    gpu = sim.gpus[where]
    users = gpu.elastic + gpu.spinners
    if users:
        wanted = max(1, serving.poll_bytes * _MILLION // serving.period_ps)
        each = max(1, min(wanted, serving.rate // users))
        gpu.round_ps = serving.period_ps
        if each < wanted:
            gpu.round_ps = (serving.poll_bytes * _MILLION + each - 1) // each
        if gpu.elastic:
            gpu.rate = max(1, (serving.rate - gpu.spinners * each) // gpu.elastic)
    if gpu.elastic == 0:
        gpu.clock = 0
        gpu.writes_end = 0
        gpu.due_ps = -1
        return
    nearest = gpu.writes_end if gpu.writing else -1
    at = gpu.computing
    while at >= 0:
        work = sim.waiting[at].work
        if nearest < 0 or work < nearest:
            nearest = work
        at = sim.agents[at].next
    due = gpu.now_ps + max(0, nearest - gpu.clock + gpu.rate - 1) // gpu.rate
    if due != gpu.due_ps:
        gpu.due_ps = due
        set_timer(sim, due, -1 - where)


@cold
def memory_event(serving, sim, where, now):
    """Let go what memory has served by now; a timer that is out of date does nothing."""
    gpu = sim.gpus[where]
    if gpu.due_ps != now:
        return
    gpu.due_ps = -1
    settle(gpu, now)
    if gpu.writing and gpu.writes_end <= gpu.clock:
        gpu.writing = 0
        gpu.elastic -= 1
    before = -1
    at = gpu.computing
    while at >= 0:
        agent = sim.agents[at]
        following = agent.next
        waiting = sim.waiting[at]
        if waiting.work <= gpu.clock:
            gpu.elastic -= 1
            if before < 0:
                gpu.computing = following
            else:
                sim.agents[before].next = following
            agent.compute_ps += max(0, now - waiting.served_ps)
            set_timer(sim, max(now, waiting.served_ps), at)
        else:
            before = at
        at = following
    divide(serving, sim, where)


@cold
def memory_write(serving, sim, where, size_bytes, now):
    """Let memory take the bytes of a write that has landed."""
    gpu = sim.gpus[where]
    settle(gpu, now)
    if not gpu.writing:
        gpu.writing = 1
        gpu.elastic += 1
    gpu.writes_end = max(gpu.clock, gpu.writes_end) + size_bytes * _MILLION
    divide(serving, sim, where)


@cold
def memory_compute(serving, sim, at, duration, size_bytes, now):
    """Begin a compute of agent `at` that ends when its duration is over and memory has served its bytes."""
    waiting = sim.waiting[at]
    gpu = sim.gpus[waiting.gpu]
    settle(gpu, now)
    waiting.work = gpu.clock + size_bytes * _MILLION
    waiting.served_ps = now + duration
    sim.agents[at].next = gpu.computing
    gpu.computing = at
    gpu.elastic += 1
    divide(serving, sim, waiting.gpu)


@cold
def block(serving, sim, at, now):
    """Note how the wait that agent `at` has begun is served; it may take a monitor, or give its slot away."""
    agent = sim.agents[at]
    waiting = sim.waiting[at]
    gpu = sim.gpus[waiting.gpu]
    waiting.how = EVENT
    if agent.mode != _POLL or not serving.polled:
        return
    waiting.how = MONITORED if serving.monitored else SPINNING
    if serving.monitored and serving.entries:
        if gpu.entries:
            gpu.entries -= 1
        else:
            waiting.how = OVERFLOW
            waiting.overflows += 1
    if waiting.how == MONITORED:
        waiting.woken_ps = now + serving.lead_ps - serving.wake_ps
        waiting.wakes = 0
        if serving.yields and waiting.place == RESIDENT:
            waiting.place = AWAY
            leave(serving, sim, waiting.gpu, now)
    elif serving.rate:
        settle(gpu, now)
        if gpu.spinners == 0:
            gpu.boundary_ps = now
        gpu.spinners += 1
        waiting.base = gpu.round - (gpu.boundary_ps > now)
        divide(serving, sim, waiting.gpu)


@cold
def unblock(serving, sim, at, now):
    """Give back what the wait of agent `at`, which goes on, has held."""
    waiting = sim.waiting[at]
    gpu = sim.gpus[waiting.gpu]
    if waiting.how == MONITORED and serving.entries:
        gpu.entries += 1
    if serving.rate and (waiting.how == SPINNING or waiting.how == OVERFLOW):
        settle(gpu, now)
        gpu.spinners -= 1
        divide(serving, sim, waiting.gpu)
    waiting.how = NOT_WAITING


@cold
def admit(serving, sim, at, now):
    """Whether agent `at`, which is due, may run now; otherwise it queues for a slot, or is being put onto one."""
    waiting = sim.waiting[at]
    if waiting.how != NOT_WAITING:
        unblock(serving, sim, at, now)
    if waiting.place != AWAY:
        return True
    gpu = sim.gpus[waiting.gpu]
    if gpu.slots:
        gpu.slots -= 1
        waiting.place = RESIDENT
        if serving.switch_ps:
            waiting.slot_ps += serving.switch_ps
            set_timer(sim, now + serving.switch_ps, at)
        return serving.switch_ps == 0
    waiting.ready_ps = now
    agent = sim.agents[at]
    agent.flag = QUEUED
    agent.next = -1
    if gpu.head >= 0:
        sim.agents[gpu.tail].next = at
    else:
        gpu.head = at
    gpu.tail = at
    return False


@cold
def leave(serving, sim, where, now):
    """Give a slot to the workgroup that is ready for the longest time; keep it free where there is none."""
    gpu = sim.gpus[where]
    at = gpu.head
    if at < 0:
        gpu.slots += 1
        return
    agent = sim.agents[at]
    gpu.head = agent.next
    agent.flag = BLOCKED_NOT
    waiting = sim.waiting[at]
    waiting.place = RESIDENT
    waiting.slot_ps += now + serving.switch_ps - waiting.ready_ps
    set_timer(sim, now + serving.switch_ps, at)


@cold
def end(serving, sim, at, now):
    """Let agent `at`, which has ended, leave its slot."""
    if sim.waiting[at].place != UNLIMITED:
        leave(serving, sim, sim.waiting[at].gpu, now)


@jit
def triggers(serving, sim, at, reached, now):
    """Whether a write wakes the monitor of agent `at` now, rather than while it polls or is being woken."""
    waiting = sim.waiting[at]
    if waiting.how != MONITORED or not (reached or serving.line_flags):
        return False
    return now > sim.agents[at].since_ps + serving.lead_ps and (
        serving.line_flags == 0 or now > waiting.woken_ps + serving.wake_ps
    )


@jit
def woken(serving, sim, at, reached, now, turn):
    """Return (time that a monitored waiter goes on, or -1; flag reads)."""
    agent = sim.agents[at]
    waiting = sim.waiting[at]
    if now <= agent.since_ps + serving.lead_ps:
        return serve(serving, _POLL, agent.since_ps, now) if reached else (-1, 0)
    if triggers(serving, sim, at, reached, now):
        armed = waiting.woken_ps + serving.wake_ps + serving.arm_ps
        waiting.woken_ps = max(now + turn * serving.stagger_ps, armed)
        waiting.wakes += 1
        waiting.false_wakes += not reached
    elif reached:
        waiting.false_wakes -= 1  # the wake on its way will find the flag raised
    reads = 1 + serving.lead_reads + (waiting.wakes if serving.line_flags else 0)
    return (waiting.woken_ps + serving.wake_ps if reached else -1), reads


@jit
def served(serving, sim, at, reached, now, turn):
    """Return (time that agent `at` goes on, -1 where it does not; flag reads) when a flag of its line is raised."""
    agent = sim.agents[at]
    waiting = sim.waiting[at]
    if waiting.how == MONITORED:
        return woken(serving, sim, at, reached, now, turn)
    if not reached:
        return -1, 0
    if waiting.how == EVENT:
        return now, 0
    if serving.rate:
        gpu = sim.gpus[waiting.gpu]
        settle(gpu, now)
        finish, reads = gpu.boundary_ps, 1 + gpu.round - waiting.base
    elif waiting.how == OVERFLOW:
        turns = (now - agent.since_ps + serving.overflow_ps - 1) // serving.overflow_ps
        finish, reads = agent.since_ps + turns * serving.overflow_ps, 1 + turns
    else:
        finish, reads = serve(serving, _POLL, agent.since_ps, now)
    if waiting.how == OVERFLOW:
        waiting.overflow_reads += reads
    return finish, reads


@cold
def raise_line(serving, sim, rows, index, message, now):
    """Release the agents that waited for the count that flag `index` has reached, and wake others of its line."""
    head = serving.lines[index] if len(serving.lines) else index
    count = sim.flags[index].count
    turn = -1  # waiters are listed latest first, and woken longest first
    if serving.stagger_ps:
        at = sim.flags[head].waiter - 1
        while at >= 0:
            agent = sim.agents[at]
            turn += triggers(serving, sim, at, agent.flag == index and agent.expected <= count, now)
            at = agent.next
    previous = -1
    at = sim.flags[head].waiter - 1
    while at >= 0:
        agent = sim.agents[at]
        following = agent.next
        reached = agent.flag == index and agent.expected <= count
        triggered = triggers(serving, sim, at, reached, now)
        finish, reads = served(serving, sim, at, reached, now, max(0, turn))
        turn -= triggered
        if finish >= 0:
            if previous < 0:
                sim.flags[head].waiter = following + 1
            else:
                sim.agents[previous].next = following
            finish_wait(sim, rows, at, agent.since_ps, now, finish, reads, message)
            agent.flag = BLOCKED_NOT
            agent.released_by = message
            set_timer(sim, finish, at)
        else:
            previous = at
        at = following

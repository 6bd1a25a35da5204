"""The records that the compiled engine works on: program and network as read, state as it changes.

Structured arrays keep what is used together in one cache line, and the number of arrays that functions pass
small, which is what a call costs under Numba.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..changes import LinkChange
from ..fabric import Fabric
from ..program import CALL_COLUMNS, OP_COLUMNS, Program
from ..routing import Routing, RoutingPolicy

Ints = npt.NDArray[np.integer[Any]]
Records = npt.NDArray[np.void]

# Registers: scalars of the state.
NOW, HEAP, TIMERS, SERVICES, HOPS, BIN_PS, LANDED = range(7)
# Records are taken from those given back, else from those that were never used.
FREE_MESSAGE, USED_MESSAGES, FREE_ENTRY, USED_ENTRIES = range(7, 11)
CHANGES = 11  # how many changes of links have happened
REGISTERS = 12

# What `advance` returns.
DONE, PAUSED, GROW_MESSAGES, GROW_ENTRIES, GROW_TIMERS, GROW_HOPS, NO_ROUTE, GROW_SERVICES, GROW_HEAP = range(
    9
)

CACHE_LINE = 64  # bytes, of x86-64 and most of Arm
NEVER = int(np.iinfo(np.int64).max)
BINS = 128
FIRST_BIN_PS = 1 << 10
_FILLED_AT_ONCE = 2048  # records; they stay in the fastest cache while their columns are copied into them
LOCAL_PS = 1  # a write to the own endpoint lands one picosecond later, as everything does in an ideal fabric
UNORDERED, ORDERED, HELD = range(3)  # kinds of a message in a flow; held: landed, its flag not yet shown
BLOCKED_NOT, FINISHED, QUEUED = -1, -2, -3  # values of an agent's `flag` when it waits for none


def record_type(names: str) -> np.dtype[np.void]:
    """Return the type of records with these fields: 64-bit integers, 32-bit where the name ends with a colon."""
    fields = [(name.rstrip(":"), np.int32 if name.endswith(":") else np.int64) for name in names.split()]
    return np.dtype(fields)


def _records(names: str, size: int) -> Records:
    """Return zeroed records."""
    return _zeros(size, record_type(names))


def _zeros(size: int, kind: np.dtype[Any]) -> Records:
    """Return zeroed records that begin at a cache line; memory is taken when it is first used."""
    memory = np.zeros(size * kind.itemsize + CACHE_LINE, np.uint8)
    first = -memory.ctypes.data % CACHE_LINE
    return memory[first : first + size * kind.itemsize].view(kind)


AGENT = "call turn message wait expected since_ps end_ps compute_ps wait_ps polls flag: next: op: mode: released_by"
FLAG = "count waiter"  # waiter: an agent, counted from 1, so that flags that nobody uses take no memory
FLOW = "head: tail:"
QUEUE = (  # two cache lines: what each segment touches, then what it rarely does
    "free_ps size_bytes serialise_ps each_bytes wire_bytes segments head: tail: towards: onward: "
    "since_ps busy_ps queued_ps injected_ps unused_1 unused_2 unused_3 unused_4"
)
MESSAGE = (  # one cache line
    "id: source: destination: segments: landed: flag: ack: link: flow: hop: size_bytes queued_ps weight_ps"
)
WAITING = (  # of agents, where waits or GPUs share something
    "woken_ps base work served_ps ready_ps slot_ps false_wakes overflows overflow_reads how: wakes: place: gpu:"
)
GPU = (  # of endpoints, where their agents share something
    "now_ps clock writes_end boundary_ps round_ps round due_ps rate spinners elastic writing: computing: entries: "
    "slots: head: tail:"
)
ORDER = "kind: before: after:"
ENTRY = "start_ps message: segment: left: next: then: hop:"
CURSOR = "turn since_ps agent: call: op: unused:"
PORT = "room head: tail: next: offers:"
EVENT = "time key"
LINK = "source: destination: down: stores: rate latency_ps header_bytes payload_bytes unused_0 unused_1"
NODE = "first arrivals due_ps ahead_ps"
CHANGE = "time_ps link rate_mb_per_s"
RULE = "low high stride base"
CALL_ROW = "start_ps end_ps released_by"
# What the program does not say of a message and of a wait; `columns` has the rest.
MESSAGE_ROW = "link: released_by: post_ps start_ps arrival_ps queued_ps"
WAIT_ROW = "released_by: start_ps arrival_ps end_ps polls"
HOP_ROW = "message segment link eligible_ps start_ps end_ps"


class Code(NamedTuple):
    """The program, as the engine reads it."""

    ops: Records
    block_first: Ints
    calls: Records
    call_first: Ints
    agent_endpoint: Ints
    group_first: Ints
    members: Ints
    flag_first: Ints
    flow_of: Ints  # (messages,) flow of each message; empty where routes keep order of themselves


class Net(NamedTuple):
    """The fabric, as the engine reads it. Links from `first_own` on are the endpoints' own, for local writes."""

    first_own: int
    segment_bytes: int
    buffer_bytes: int
    queued: int  # whether segments wait in ports: where buffers are finite, or links change
    routing: int
    seed: int
    reroutes: int  # whether another link than static routing's may be taken
    in_order: int  # whether the segments of a message land in order: one path, and no ports on it
    links: Records
    rule_first: Ints
    rules: Records
    choice_first: Ints
    choices: Ints
    changes: Records  # of links, by time


class Sim(NamedTuple):
    """What changes. Messages and entries given back are chained through `id` and `next`; -1 ends the chain."""

    register: Ints
    agents: Records
    flags: Records
    flows: Records  # first and last message in flight of each
    queues: Records  # of links
    use: Ints  # (links, BINS) busy_ps
    messages: Records  # in flight
    order: Records  # of messages in flight within their flows; empty where routes keep order of themselves
    entries: (
        Records  # of links' queues; `then`: in a port the link that follows, in a queue how many messages do
    )
    cursors: Records  # by entry: the write, in the program, of the first message that follows
    heap: Records  # deliveries by links, and nodes where segments arrive that go on
    arrivals: Records  # segments that go on, an event a link, a heap a node
    nodes: (
        Records  # where each node's arrivals are and how many; when it is due, and how far it may run ahead
    )
    timers: Records  # agents that are due, acknowledgements
    ports: Records  # buffers, then injections, of links; empty without credits
    services: Records  # events of links that wait for credit: credits, attempts to serve
    waiting: Records  # of agents, where waits or GPUs share something; otherwise empty
    gpus: Records  # of endpoints, likewise


class Final(NamedTuple):
    """What both engines return: totals and states by agent and link, final flag counts, and the rows."""

    agents: Records
    flags: Ints
    queues: Records
    use: Ints
    bin_ps: int
    rows: "Rows"
    loop: tuple[int, ...] = ()  # links whose buffers wait for one another, where a run ended so
    waiting: Records = np.zeros(0, np.int64)  # of agents, where waits or GPUs share something


class Rows(NamedTuple):
    """What is recorded; arrays of length 0 are not."""

    calls: Records
    messages: Records
    waits: Records
    hops: Records


def loop(waits_on: dict[int, int]) -> tuple[int, ...]:
    """Return a cycle of links in "the head of a's buffer waits for b"; empty where there is none."""
    for first in sorted(waits_on):
        seen: list[int] = []
        link = first
        while link in waits_on and link not in seen:
            seen.append(link)
            link = waits_on[link]
        if link in seen:
            return tuple(seen[seen.index(link) :])
    return ()


def hop_records(hops: list[tuple[int, ...]]) -> Records:
    """Return hops, given as tuples, as records."""
    return np.array(hops, _records(HOP_ROW, 0).dtype)


def _rows_of(columns: dict[str, Ints], types: dict[str, type]) -> Records:
    """Return columns as records, the wide fields first; an operation's are one cache line."""
    fields = sorted(types.items(), key=lambda field: -np.dtype(field[1]).itemsize)
    records = _zeros(len(next(iter(columns.values()))), np.dtype(fields, align=True))
    filled = [(records[name], column) for name, column in columns.items() if column.any()]
    for low in range(0, len(records), _FILLED_AT_ONCE):
        rows = slice(low, low + _FILLED_AT_ONCE)
        for field, column in filled:
            field[rows] = column[rows]
    return records


def code(program: Program, routing: RoutingPolicy) -> Code:
    """Return the program's arrays."""
    ops, calls = _rows_of(program.ops, OP_COLUMNS), _rows_of(program.calls, CALL_COLUMNS)
    return Code(ops, program.block_first, calls, program.call_first, program.agent_endpoint.astype(np.int64),
                program.group_first, program.members.astype(np.int64), program.flag_first,
               flows(program, routing))  # fmt: skip


def flows(program: Program, routing: RoutingPolicy) -> Ints:
    """Return (messages,) the flow of each message: one an agent, peer and label.

    Empty where routing keeps the order of a flow, or no write asks for it.
    """
    if not routing.reorders or not program.ops["ordered"].any():
        return np.zeros(0, np.int64)
    known = program.message_rows()
    keys = np.stack((known["agent"], known["destination"], program.ops["flow"][known["op"]]))
    flow: Ints = np.unique(keys, axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return flow


def net(
    fabric: Fabric,
    segment_bytes: int,
    buffer_bytes: int,
    routing: RoutingPolicy,
    changes: Sequence[LinkChange] = (),
) -> Net:
    """Return the fabric's arrays, the endpoints' own links appended."""
    links = _records(LINK, fabric.links + fabric.endpoints)
    links["source"][: fabric.links] = fabric.source
    links["destination"][: fabric.links] = fabric.destination
    links["stores"][: fabric.links] = fabric.store_and_forward[fabric.destination]
    links["destination"][fabric.links :] = np.arange(fabric.endpoints)
    links["rate"][: fabric.links] = fabric.rate_mb_per_s
    links["latency_ps"] = LOCAL_PS
    links["latency_ps"][: fabric.links] = fabric.latency_ps
    links["header_bytes"][: fabric.links] = fabric.header_bytes
    links["payload_bytes"][: fabric.links] = fabric.payload_bytes
    rules = _records(RULE, len(fabric.rule_low))
    rules["low"], rules["high"] = fabric.rule_low, fabric.rule_high
    rules["stride"], rules["base"] = fabric.rule_stride, fabric.rule_base
    seed = routing.seed & 0x7FFFFFFF
    changing = _records(CHANGE, len(changes))
    for row, change in enumerate(sorted(changes, key=lambda change: change.time_ps)):
        changing[row] = (change.time_ps, change.link, change.rate_mb_per_s)
    queued = int(buffer_bytes > 0 or len(changes) > 0)
    return Net(fabric.links, segment_bytes, buffer_bytes, queued, int(routing.kind), seed,
               int(queued or routing.kind != Routing.STATIC), int(not queued and not routing.reorders),
               links, fabric.rule_first, rules, fabric.choice_first,
               fabric.choices, changing)  # fmt: skip


def nodes(fabric: Fabric, queued: bool) -> Records:
    """Return the nodes before time 0.

    What happens at a plain switch concerns no other node before it has crossed a link. So all that arrives there
    within the smallest latency of the links to it can be served in one go, whatever happens elsewhere meanwhile:
    nothing that is not yet on one of them can come between. Where agents live, or where links wait for credit or
    change, one picosecond at a time is served.
    """
    found = _records(NODE, len(fabric.node_names))
    into = np.bincount(fabric.destination, minlength=len(found))
    found["first"] = np.cumsum(into) - into
    found["due_ps"] = NEVER
    found["ahead_ps"] = NEVER
    np.minimum.at(found["ahead_ps"], fabric.destination, fabric.latency_ps)
    found["ahead_ps"][: len(found) if queued else fabric.endpoints] = 1
    return found


def sim(program: Program, fabric: Fabric, flow_of: Ints, buffer_bytes: int, queued: bool) -> Sim:
    """Return the state before time 0: every agent due at its first operation."""
    agents, pool = program.agents, 1024
    queues = fabric.links + fabric.endpoints
    state = Sim(
        np.zeros(REGISTERS, np.int64),
        _records(AGENT, agents),
        _records(FLAG, int(program.flag_first[-1])),
        _records(FLOW, int(flow_of.max(initial=-1)) + 1),
        _records(QUEUE, queues),
        np.zeros((fabric.links, BINS), np.int64),
        _records(MESSAGE, pool),
        _records(ORDER, pool if len(flow_of) else 0),
        _records(ENTRY, pool),
        _records(CURSOR, pool),
        _records(EVENT, queues + len(fabric.node_names)),
        _records(EVENT, fabric.links),
        nodes(fabric, queued),
        _records(EVENT, 2 * agents + pool),
        _records(PORT, 2 * fabric.links if queued else 0),
        _records(EVENT, pool if queued else 0),
        _records(WAITING, 0),
        _records(GPU, 0),
    )
    first = program.call_first
    state.agents["call"] = first[:-1]
    state.agents["message"] = program.message_first[first[:-1]]
    state.agents["wait"] = program.wait_first[first[:-1]]
    state.agents["flag"] = BLOCKED_NOT
    state.agents["released_by"] = -1
    state.flows["head"] = state.flows["tail"] = -1
    for name in ("head", "tail", "next", "offers"):
        state.ports[name] = -1
    state.ports["room"] = buffer_bytes
    for name in ("head", "tail", "towards", "size_bytes"):
        state.queues[name] = -1
    state.timers["key"][:agents] = np.arange(agents)  # all at time 0, in order: a heap already
    state.register[TIMERS] = agents
    state.register[BIN_PS] = FIRST_BIN_PS
    state.register[[FREE_MESSAGE, FREE_ENTRY]] = -1
    return state


def rows(program: Program, record: str) -> Rows:
    """Return the arrays to record into: `none` keeps calls only, `messages` and `hops` also messages and waits."""
    full = record != "none"
    calls = _records(CALL_ROW, len(program.calls["agent"]))
    for name in calls.dtype.names or ():
        calls[name] = -1
    return Rows(
        calls,
        _records(MESSAGE_ROW, program.messages if full else 0),
        _records(WAIT_ROW, program.waits if full else 0),
        _records(HOP_ROW, 4096 if record == "hops" else 0),
    )


def grow(sim: Sim, rows: Rows, status: int) -> tuple[Sim, Rows]:
    """Double what ran out."""

    def double(records: Records) -> Records:
        larger = _zeros(2 * len(records), records.dtype)  # the new half takes memory when it is first used
        larger[: len(records)] = records
        return larger

    if status == GROW_HOPS:
        return sim, rows._replace(hops=double(rows.hops))
    if status == GROW_SERVICES:
        return sim._replace(services=double(sim.services)), rows
    if status == GROW_HEAP:
        return sim._replace(heap=double(sim.heap)), rows
    if status == GROW_TIMERS:
        return sim._replace(timers=double(sim.timers)), rows
    if status == GROW_ENTRIES:
        return sim._replace(entries=double(sim.entries), cursors=double(sim.cursors)), rows
    order = double(sim.order) if len(sim.order) else sim.order
    return sim._replace(messages=double(sim.messages), order=order), rows

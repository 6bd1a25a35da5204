"""Small fabrics and programs that several tests build on, and random ones for property tests."""

import numpy as np
from hypothesis import strategies as st

from eidola.replay.builder import Builder
from eidola.replay.changes import LinkChange
from eidola.replay.device import ORDERS, Device
from eidola.replay.fabric import Fabric, FabricBuilder
from eidola.replay.program import Mode, Program, compute, until, wait, write
from eidola.replay.waiting import Policy, WaitPolicy

MIB = 1 << 20
US = 1_000_000  # picoseconds


def star(
    gpus: int, rate_mb_per_s: int = 50_000, latency_ps: int = US, *, store_and_forward: bool = False
) -> Fabric:
    builder = FabricBuilder("star", gpus)
    switch = builder.node("switch", store_and_forward=store_and_forward)
    for gpu in range(gpus):
        builder.rule(gpu, 0, gpus, [[builder.link(gpu, switch, rate_mb_per_s, latency_ps)]])
    down = [[builder.link(switch, gpu, rate_mb_per_s, latency_ps)] for gpu in range(gpus)]
    builder.rule(switch, 0, gpus, down, stride=1)
    return builder.build()


def ring(gpus: int, size_bytes: int = MIB, steps: int | None = None) -> Program:
    builder = Builder(gpus)
    everyone = builder.group(list(range(gpus)))
    flag = builder.flags(list(range(gpus)))
    block = builder.block([write(1, size_bytes, flag, relative=True), wait(flag, 1, expected_step=1)])
    for gpu in range(gpus):
        agent = builder.agent(gpu, "stream")
        builder.call(agent, block, steps or 2 * (gpus - 1), group=everyone, position=gpu)
    return builder.build()


def all_to_all(gpus: int, size_bytes: int = MIB) -> Program:
    builder = Builder(gpus)
    everyone = builder.group(list(range(gpus)))
    flag = builder.flags(list(range(gpus)))
    posts = builder.block([write(1, size_bytes, flag, relative=True, peer_step=1)])
    end = builder.block([wait(flag, gpus - 1)])
    for gpu in range(gpus):
        agent = builder.agent(gpu, "stream")
        builder.call(agent, posts, gpus - 1, group=everyone, position=gpu)
        builder.call(agent, end)
    return builder.build()


def alone(gpus: int, *agents: tuple[int, list[dict[str, int]]], flags: int = 4) -> Program:
    """A program with the given (endpoint, operations), each agent one call."""
    builder = Builder(gpus)
    builder.flags(list(range(gpus)), flags)
    for endpoint, ops in agents:
        builder.call(builder.agent(endpoint, "stream"), builder.block(ops))
    return builder.build()


_RATE = st.integers(1, 50).map(lambda r: r * 1000)
_LATENCY = st.integers(1, 2000)


def _parallel(draw: st.DrawFn, builder: FabricBuilder, node: int, ends: list[int], alike: bool) -> list[int]:
    """Links from one node, any of which may be taken; alike where routing has to choose among them."""
    rate, latency = draw(_RATE), draw(_LATENCY)
    if alike:
        return [builder.link(node, end, rate, latency) for end in ends]
    return [builder.link(node, end, draw(_RATE), draw(_LATENCY)) for end in ends]


@st.composite
def fabrics(draw: st.DrawFn, gpus: int, alike: bool = False) -> Fabric:
    """Ideal, a star with parallel links and headers, or two leaves under two spines."""
    kind = draw(st.sampled_from(["ideal", "star", "leaves"]))
    builder = FabricBuilder(kind, gpus)
    if kind == "star":
        switch = builder.node("switch", store_and_forward=draw(st.booleans()))
        for gpu in range(gpus):
            up = _parallel(draw, builder, gpu, [switch] * draw(st.integers(1, 2)), alike)
            builder.rule(gpu, 0, gpus, [up])
        down = [[builder.link(switch, gpu, draw(_RATE), draw(_LATENCY), 16, 128)] for gpu in range(gpus)]
        builder.rule(switch, 0, gpus, down, stride=1)
    if kind == "leaves":
        half = (gpus + 1) // 2
        leaves = [builder.node(f"leaf {i}", store_and_forward=draw(st.booleans())) for i in range(2)]
        spines = [builder.node(f"spine {i}", store_and_forward=draw(st.booleans())) for i in range(2)]
        for gpu in range(gpus):
            builder.rule(
                gpu, 0, gpus, [[builder.link(gpu, leaves[gpu >= half], draw(_RATE), draw(_LATENCY))]]
            )
        for leaf, low, high in ((leaves[0], 0, half), (leaves[1], half, gpus)):
            down = [[builder.link(leaf, gpu, draw(_RATE), draw(_LATENCY))] for gpu in range(low, high)]
            if down:
                builder.rule(leaf, low, high, down, stride=1)
            builder.rule(leaf, 0, gpus, [_parallel(draw, builder, leaf, spines, alike)])
        for spine in spines:
            builder.rule(spine, 0, half, [[builder.link(spine, leaves[0], draw(_RATE), draw(_LATENCY))]])
            builder.rule(spine, half, gpus, [[builder.link(spine, leaves[1], draw(_RATE), draw(_LATENCY))]])
    return builder.build()


def _ops(draw: st.DrawFn, gpus: int, flag: int) -> dict[str, int]:
    kind = draw(st.sampled_from(["compute", "until", "write", "write", "write", "wait", "wait"]))
    if kind == "compute":
        size = draw(st.sampled_from([0, 0, 1, 300, 5000]))
        return compute(draw(st.sampled_from([0, 0, 1000, 100_000]) | st.integers(0, 100_000)), size)
    if kind == "until":
        return until(draw(st.integers(0, 300_000)))
    if kind == "write":
        size = draw(st.sampled_from([0, 1, 8, 1000, 5000, 70_000]))
        raised = draw(st.sampled_from([-1, flag, flag + 1]))
        return write(draw(st.integers(0, gpus - 1)), size, raised, relative=draw(st.booleans()),
                     ack=draw(st.sampled_from([-1, -1, flag + 2])), ordered=draw(st.booleans()),
                     flow=draw(st.integers(0, 1)))  # fmt: skip
    mode = draw(st.sampled_from([Mode.EVENT, Mode.POLL, Mode.OBSERVE]))
    return wait(flag + draw(st.integers(0, 2)), draw(st.integers(0, 4)), expected_step=draw(st.integers(0, 1)),
                mode=mode)  # fmt: skip


@st.composite
def programs(draw: st.DrawFn, gpus: int) -> Program:
    """Agents with random calls; many of them stall, which both engines must agree on too."""
    builder = Builder(gpus)
    flag = builder.flags(np.arange(gpus), 3)
    everyone = builder.group(draw(st.permutations(range(gpus))))
    for _ in range(draw(st.integers(1, 2 * gpus))):
        agent = builder.agent(draw(st.integers(0, gpus - 1)), draw(st.sampled_from(["stream", "workgroup"])))
        for _ in range(draw(st.integers(0, 3))):
            block = builder.block([_ops(draw, gpus, flag) for _ in range(draw(st.integers(0, 4)))])
            position = draw(st.integers(0, gpus - 1))
            builder.call(agent, block, draw(st.integers(0, 3)), group=everyone, position=position)
    return builder.build()


@st.composite
def kernels(draw: st.DrawFn, gpus: int) -> Program:
    """Workgroups that wait for flags which a stream of every GPU raises, at random times and often enough."""
    builder = Builder(gpus)
    flag = builder.flags(np.arange(gpus), 4)
    slot, times = st.integers(flag, flag + 3), st.integers(0, 40_000)
    for gpu in range(gpus):
        raised = draw(st.lists(st.tuples(slot, times, st.integers(0, gpus - 1)), max_size=6))
        ops = [op for at, time, peer in raised for op in (compute(time), write(peer, 64, at))]
        last = [write(peer, 8, flag + at) for peer in range(gpus) for at in range(4)]
        builder.call(builder.agent(gpu, "stream"), builder.block([*ops, compute(draw(times)), *last, *last]))
    one = st.one_of(
        st.builds(wait, slot, st.integers(1, 3), mode=st.just(Mode.POLL)),
        st.builds(compute, times, st.sampled_from([0, 64, 3000])),
    )
    for number in range(draw(st.integers(1, 4 * gpus))):
        agent = builder.agent(number % gpus, draw(st.sampled_from(["workgroup"] * 4 + ["stream"])))
        builder.call(agent, builder.block(draw(st.lists(one, max_size=5))))
    return builder.build()


@st.composite
def monitors(draw: st.DrawFn) -> WaitPolicy:
    """Monitors that compare or watch lines, run out, wake one by one, and let their slots go."""
    times = st.sampled_from([0, 0, 1, 700, 30_000])
    entries = draw(st.integers(0, 2))
    return WaitPolicy(Policy.MONITOR, wake_ps=draw(times), arm_ps=draw(times), line_flags=draw(st.integers(0, 3)),
                      entries=entries, overflow_ps=draw(st.sampled_from([1, 900, 20_000])),
                      stagger_ps=draw(times), yields=draw(st.booleans()))  # fmt: skip


@st.composite
def devices(draw: st.DrawFn, wait: WaitPolicy) -> Device:
    """No limits, few slots, a slow memory, or both."""
    slots, switch, rate = draw(st.integers(0, 2)), draw(st.sampled_from([0, 1, 2000])), 0
    if wait.kind not in (Policy.BACKOFF, Policy.TABLE):
        rate = draw(st.sampled_from([0, 0, 1, 37, 2000, 1_000_000]))
    return Device(slots, draw(st.sampled_from(ORDERS)), switch, rate, draw(st.sampled_from([1, 64])), seed=3)


@st.composite
def link_changes(draw: st.DrawFn, fabric: Fabric) -> list[LinkChange]:
    """Nothing, or links that slow down, fail and perhaps come back."""
    if not fabric.links or draw(st.booleans()):
        return []
    link = st.integers(0, fabric.links - 1)
    rate = st.sampled_from([0, 0, 500, 20_000])
    changes = draw(
        st.lists(st.tuples(st.integers(0, 200_000), link, rate), max_size=4, unique_by=lambda c: c[0])
    )
    return [LinkChange(*change) for change in sorted(changes)]

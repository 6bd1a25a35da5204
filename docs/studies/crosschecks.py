"""The engine against closed forms and solvers that other simulators rest on, as the table of docs/validation.md.

    python docs/studies/crosschecks.py

Alpha-beta: ring, direct and pairwise collectives on a star (Thakur, Rabenseifner, Gropp, 2005). LogGOP: chains and
trains of messages with overheads o, gap a byte G and latency L (Hoefler, Schneider, Lumsdaine, 2010). Max-min: long
flows that share one bottleneck, by water-filling. FIFO-proportional: open-loop flows over links in a row, where a
FIFO gives each flow a share of its link in proportion to what arrives, which is not max-min.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eidola.replay import Builder, Fabric, FabricBuilder, run
from eidola.replay.collectives import Operation, Tuning, expand
from eidola.replay.presets import preset
from eidola.replay.program import compute, wait, write

MIB, US = 2**20, 1_000_000
RATE, LATENCY = 50_000, US
"""MB/s and picoseconds of a link."""


@dataclass(frozen=True)
class Check:
    """What a closed form or a solver says, and what the engine gave, in the same unit."""

    against: str
    case: str
    expected: float
    simulated: float
    unit: str

    @property
    def error(self) -> float:
        """Simulated over expected, less one."""
        return self.simulated / self.expected - 1


def alpha_beta() -> Iterator[Check]:
    """Check collectives on a star: steps (alpha + m beta); alpha is two links, beta the bytes' time on one."""
    alpha, size = 2 * LATENCY, 8 * MIB

    def beta(size_bytes: int) -> float:
        return size_bytes * 1e6 / RATE

    forms: list[tuple[str, str, Callable[[int], float]]] = [
        ("all_reduce", "ring", lambda n: 2 * (n - 1) * (alpha + beta(size // n))),
        ("all_gather", "ring", lambda n: (n - 1) * (alpha + beta(size))),
        ("reduce_scatter", "ring", lambda n: (n - 1) * (alpha + beta(size // n))),
        ("all_reduce", "direct", lambda n: 2 * (alpha + (n - 1) * beta(size // n))),
        ("all_to_all", "pairwise", lambda n: (n - 1) * (alpha + beta(size // n))),
    ]
    for name, algorithm, form in forms:
        for n in (4, 16):
            fabric, builder = preset("star", n), Builder(n)
            made = expand(builder, fabric, range(n), Operation(name, size), Tuning(algorithm)).calls
            for member, calls in enumerate(made):
                agent = builder.agent(member, "stream")
                for call in calls:
                    builder.call(agent, **call)
            took = run(builder.build(), fabric, segment_bytes=0, record="none").makespan_ps
            yield Check("alpha-beta", f"{algorithm} {name}, {n} GPUs", form(n) / US, took / US, "us")


def loggop() -> Iterator[Check]:
    """Check a chain of relays and a train of messages: sends and receives cost o, bytes G, the wire L."""
    o, size, gap = 3 * US, MIB, MIB * 1_000_000 // RATE
    for p in (2, 8):
        fabric, builder = _line(p), Builder(p)
        flag = builder.flags(list(range(p)), 1, "chain")
        for at in range(p):
            ops = ([wait(0, 1), compute(o)] if at else []) + (
                [compute(o), write(at + 1, size, 0)] if at < p - 1 else []
            )
            builder.call(builder.agent(at, "relay"), builder.block(ops), flag_offset=flag)
        took = run(builder.build(), fabric, segment_bytes=0, record="none").makespan_ps
        form = (p - 1) * (2 * o + LATENCY + gap)
        yield Check("LogGOP", f"chain of {p - 1} messages", form / US, took / US, "us")
    for k, overhead in ((16, o), (16, 2 * gap)):
        fabric, builder = _line(2), Builder(2)
        flag = builder.flags([0, 1], 1, "train")
        builder.call(builder.agent(0, "sends"), builder.block([compute(overhead), write(1, size, 0)]), k)
        builder.call(builder.agent(1, "receives"), builder.block([wait(0, k), compute(o)]), flag_offset=flag)
        took = run(builder.build(), fabric, segment_bytes=0, record="none").makespan_ps
        form = overhead + (k - 1) * max(overhead, gap) + gap + LATENCY + o
        bound = "gap" if overhead < gap else "overhead"
        yield Check("LogGOP", f"train of {k} messages, {bound} bound", form / US, took / US, "us")


def max_min() -> Iterator[Check]:
    """Three long flows over one bottleneck: each ends when water-filling says so."""
    sizes = [64 * MIB, 128 * MIB, 256 * MIB]
    fabric = _row([Flow(0, 1)] * len(sizes))
    ends = _flow_ends(fabric, [(i, len(sizes) + i, size) for i, size in enumerate(sizes)])
    for i, (end, form) in enumerate(zip(ends, _water_filling(sizes), strict=True)):
        yield Check(
            "max-min", f"flow {i + 1} of {len(sizes)}, {sizes[i] // MIB} MiB", form / US, end / US, "us"
        )


def parking_lot() -> Iterator[Check]:
    """Open-loop flows over links in a row: shares of a link while everyone injects.

    Parking lots, one flow over all links and one across each, all at a link's rate; and a road of six flows that
    enter, leave and inject as they like.
    """
    lots = {f"parking lot of {n}": [Flow(0, n), *(Flow(i, i + 1) for i in range(n))] for n in (2, 3)}
    road = [Flow(0, 4), Flow(0, 2, 0.6), Flow(1, 3, 0.8), Flow(2, 4, 0.5), Flow(1, 2, 0.4), Flow(3, 4, 0.9)]
    for name, flows in {**lots, "road of 4": road}.items():
        expected = proportional(flows)
        for flow, share, simulated in zip(flows, expected, _shares(flows, expected), strict=True):
            what = f"flow of {flow.rate:g} over links {flow.enter + 1} to {flow.leave}"
            yield Check("FIFO-proportional", f"{name}, {what}", share, simulated, "of a link")


@dataclass(frozen=True)
class Flow:
    """A flow over the links from stop `enter` to stop `leave` of a row, that injects at `rate` of a link."""

    enter: int
    leave: int
    rate: float = 1.0


def proportional(flows: Sequence[Flow]) -> list[float]:
    """Return each flow's rate at its end as a share of a link: a full FIFO serves flows as they arrive."""
    rates = [flow.rate for flow in flows]
    for link in range(max(flow.leave for flow in flows)):
        over = [i for i, flow in enumerate(flows) if flow.enter <= link < flow.leave]
        full = max(1.0, sum(rates[i] for i in over))
        for i in over:
            rates[i] /= full
    return rates


def _water_filling(sizes: Sequence[int]) -> list[float]:
    """Return when each flow ends (ps) if those that are left always share the bottleneck evenly."""
    ends, time, sent = [], 0.0, 0.0
    for done, size in enumerate(sorted(sizes)):
        time += (size - sent) * (len(sizes) - done) * 1e6 / RATE
        sent = size
        ends.append(time)
    return [ends[sorted(sizes).index(size)] for size in sizes]


def _line(gpus: int) -> Fabric:
    """GPUs in a row, a link from each to the next."""
    builder = FabricBuilder("line", gpus)
    for at in range(gpus - 1):
        builder.rule(at, at + 1, at + 2, [[builder.link(at, at + 1, RATE, LATENCY)]])
    return builder.build()


def _row(flows: Sequence[Flow]) -> Fabric:
    """Return links in a row; flow i comes from endpoint i over a link of its rate, and leaves to flows + i."""
    ends = 2 * len(flows)
    builder = FabricBuilder("row", ends)
    stops = [builder.node(f"stop {s}") for s in range(1 + max(flow.leave for flow in flows))]
    for i, flow in enumerate(flows):
        own = builder.link(i, stops[flow.enter], round(flow.rate * RATE), LATENCY)
        builder.rule(i, 0, ends, [[own]])
        end = len(flows) + i
        builder.rule(
            stops[flow.leave], end, end + 1, [[builder.link(stops[flow.leave], end, 20 * RATE, LATENCY)]]
        )
    for a, b in pairwise(stops):
        builder.rule(a, 0, ends, [[builder.link(a, b, RATE, LATENCY)]])
    return builder.build()


def _flow_ends(fabric: Fabric, flows: Sequence[tuple[int, int, int]]) -> list[int]:
    """Return when each flow (source, destination, bytes) has landed, in picoseconds."""
    builder = Builder(fabric.gpus)
    flag = builder.flags(list(range(fabric.gpus)), 1, "flow")
    ends = []
    for source, to, size in flows:
        builder.call(builder.agent(source, "source"), builder.block([write(to, size, 0)]), flag_offset=flag)
        ends.append(builder.agent(to, "sink"))
        builder.call(ends[-1], builder.block([wait(0, 1)]), flag_offset=flag)
    done = run(builder.build(), fabric, segment_bytes=4096, record="none")
    return [int(done.final.agents["end_ps"][agent]) for agent in ends]


def _shares(flows: Sequence[Flow], expected: Sequence[float]) -> list[float]:
    """Return what arrives of each flow, of a link's rate, between a quarter and a half of the time to inject.

    The `expected` shares say which messages those are; what is measured is how long they take.
    """
    count, size = 4096, 4096
    fabric = _row(flows)
    builder = Builder(fabric.gpus)
    flag = builder.flags(list(range(fabric.gpus)), 1, "flow")
    sinks = []
    for i, (flow, share) in enumerate(zip(flows, expected, strict=True)):
        to = len(flows) + i
        block = builder.block([write(to, size, 0)])
        builder.call(builder.agent(i, "source"), block, round(count * flow.rate), flag_offset=flag)
        marks = [round(count * share / 4), round(count * share / 2)]
        sinks.append([(builder.agent(to, f"sink {mark}"), mark) for mark in marks])
        for agent, mark in sinks[-1]:
            builder.call(agent, builder.block([wait(0, mark)]), flag_offset=flag)
    end = run(builder.build(), fabric, segment_bytes=0, record="none").final.agents["end_ps"]
    return [
        (later[1] - sooner[1]) * size * 1e6 / RATE / (int(end[later[0]]) - int(end[sooner[0]]))
        for sooner, later in sinks
    ]


def checks() -> list[Check]:
    """Return all checks."""
    return [*alpha_beta(), *loggop(), *max_min(), *parking_lot()]


def main() -> None:
    """Print the table."""
    print("| against | case | expected | simulated | error |")
    print("| --- | --- | ---: | ---: | ---: |")
    for c in checks():
        print(
            f"| {c.against} | {c.case} | {c.expected:,.4g} {c.unit} | {c.simulated:,.4g} | {c.error:+.3%} |"
        )


if __name__ == "__main__":
    main()

"""Is single-path transport with a little flow splitting as good as packet spraying? The tables of splitting.md.

    python docs/studies/splitting.py [--seeds 10] [--processes 2] [--svg splitting.svg] [...]

Patterns run on a non-blocking leaf-spine under every way of choosing paths and every seed. A seed stirs the hashes,
and the order of the GPUs in the shuffled patterns.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np

from eidola.replay import Builder, Fabric, FabricBuilder, Program, run
from eidola.replay.program import wait, write
from eidola.replay.routing import mix, routing

KIB = 1024
WAYS = ("1 path", "2 paths", "4 paths", "8 paths", "16 paths", "placed", "static", "spray", "least-loaded")


@dataclass(frozen=True)
class Setting:
    """The fabric, the bytes of each pattern, and how a sender interleaves the subflows of a flow."""

    leaves: int
    leaf_gpus: int
    spines: int
    rate_mb_per_s: int
    latency_ps: int
    segment_bytes: int
    turn_bytes: int  # subflows of a flow take turns of this size; 0: one after another, each whole
    ring_bytes: int  # a step's, per GPU
    all_to_all_bytes: int  # a pair's
    permutation_bytes: int

    @property
    def gpus(self) -> int:
        """GPUs of the whole fabric."""
        return self.leaves * self.leaf_gpus

    def latency(self, source: int, destination: int) -> int:
        """Picoseconds of latency on the path: two links inside a leaf, four across."""
        return (2 if source // self.leaf_gpus == destination // self.leaf_gpus else 4) * self.latency_ps

    def serialisation(self, size_bytes: int) -> int:
        """Picoseconds that a link is busy with `size_bytes`, segment by segment."""
        whole, rest = divmod(size_bytes, self.segment_bytes)
        cost = [-(-part * 10**6 // self.rate_mb_per_s) for part in (self.segment_bytes, rest)]
        return whole * cost[0] + cost[1]


def leaf_spine(setting: Setting) -> Fabric:
    """Each GPU on one leaf, each leaf on every spine; all links alike."""
    gpus, wire = setting.gpus, (setting.rate_mb_per_s, setting.latency_ps)
    builder = FabricBuilder("leaf-spine", gpus)
    leaves = [builder.node(f"leaf {i}") for i in range(setting.leaves)]
    spines = [builder.node(f"spine {i}") for i in range(setting.spines)]
    for number, leaf in enumerate(leaves):
        own = range(number * setting.leaf_gpus, (number + 1) * setting.leaf_gpus)
        for gpu in own:
            builder.rule(gpu, 0, gpus, [[builder.link(gpu, leaf, *wire)]])
        down = [[builder.link(leaf, gpu, *wire)] for gpu in own]
        builder.rule(leaf, own.start, own.stop, down, stride=1)
        builder.rule(leaf, 0, gpus, [[builder.link(leaf, spine, *wire) for spine in spines]])
    for spine in spines:
        to_leaf = [[builder.link(spine, leaf, *wire)] for leaf in leaves]
        builder.rule(spine, 0, gpus, to_leaf, stride=setting.leaf_gpus)
    return builder.build()


Labels = Callable[[int, int], list[int]]  # the flow labels of the subflows from a GPU to another


def numbered(paths: int, source: int, destination: int) -> list[int]:
    """Subflows 0, 1, ...: each is hashed on its own, and may share its spine with another."""
    return list(range(paths))


def placed(
    setting: Setting, fabric: Fabric, seed: int, flows: int, source: int, destination: int
) -> list[int]:
    """Labels whose hashes put the same load on every spine, with the fewest subflows.

    A source with `flows` equal flows to each leaf cuts each into spines / gcd(flows, spines); it looks at no other
    source. The sender chooses a path by choosing its label, as one does with UDP source ports.
    """
    step = math.gcd(flows, setting.spines)
    leaf = int(fabric.destination[fabric.route(source, destination)[0]])
    stem = mix(mix(mix(seed, leaf), source), destination)
    wanted = [(destination + first) % setting.spines for first in range(0, setting.spines, step)]
    return [next(label for label in count() if mix(stem, label) % setting.spines == one) for one in wanted]


def pieces(setting: Setting, labels: list[int], peer: int, size_bytes: int) -> list[dict[str, int]]:
    """Write `size_bytes` to `peer`, its subflows taking turns."""
    turn = setting.turn_bytes if setting.turn_bytes and len(labels) > 1 else -(-size_bytes // len(labels))
    starts = range(0, size_bytes, turn)
    return [
        write(peer, min(turn, size_bytes - start), 0, flow=labels[i % len(labels)])
        for i, start in enumerate(starts)
    ]


def ring(setting: Setting, labels: Labels, order: list[int], steps: int, size_bytes: int) -> Program:
    """Each GPU sends to the next in `order`, and goes on when as much came from the one before."""
    builder = Builder(setting.gpus)
    builder.flags(order)
    for gpu, peer in zip(order, [*order[1:], order[0]], strict=True):
        step = pieces(setting, labels(gpu, peer), peer, size_bytes)
        arrivals = len(pieces(setting, labels(order[order.index(gpu) - 1], gpu), gpu, size_bytes))
        block = builder.block([*step, wait(0, arrivals, expected_step=arrivals)])
        builder.call(builder.agent(gpu, "ring"), block, steps)
    return builder.build()


def all_to_all(setting: Setting, labels: Labels, order: list[int], size_bytes: int) -> Program:
    """Each GPU posts a write to every other at once, the next GPU's first."""
    gpus, builder = setting.gpus, Builder(setting.gpus)
    builder.flags(order)
    for gpu in range(gpus):
        peers = [(gpu + step) % gpus for step in range(1, gpus)]
        posts = [pieces(setting, labels(gpu, peer), peer, size_bytes) for peer in peers]
        ops = [op for post in posts for op in post]
        builder.call(builder.agent(gpu, "all-to-all"), builder.block([*ops, wait(0, len(ops))]))
    return builder.build()


def ring_ideal(setting: Setting, order: list[int], steps: int, size_bytes: int) -> int:
    """Return the longest chain of steps: each waits for the one before, over the next edge of the ring."""
    edges = list(zip(order, [*order[1:], order[0]], strict=True))
    each = [setting.serialisation(size_bytes) + setting.latency(*edge) for edge in edges]
    around = [*each, *each, *each]
    return max(sum(around[first : first + steps]) for first in range(len(edges)))


@dataclass(frozen=True)
class Pattern:
    """A traffic pattern: its program, its ideal, and the flows that a GPU has to each other leaf."""

    program: Callable[[Setting, Labels, list[int]], Program]
    ideal_ps: Callable[[Setting, list[int]], int]
    flows: Callable[[Setting], int]
    shuffled: bool

    def order(self, setting: Setting, seed: int) -> list[int]:
        """Return the GPUs in the order in which the pattern takes them."""
        gpus = list(range(setting.gpus))
        return np.random.default_rng(seed).permutation(gpus).tolist() if self.shuffled else gpus


def _ring(shuffled: bool, whole: bool) -> Pattern:
    def shape(setting: Setting) -> tuple[int, int]:
        return (2 * (setting.gpus - 1), setting.ring_bytes) if whole else (1, setting.permutation_bytes)

    return Pattern(
        lambda setting, labels, order: ring(setting, labels, order, *shape(setting)),
        lambda setting, order: ring_ideal(setting, order, *shape(setting)),
        lambda setting: 1,
        shuffled,
    )


PATTERNS = {
    "ring all-reduce, in order": _ring(shuffled=False, whole=True),
    "ring all-reduce, shuffled": _ring(shuffled=True, whole=True),
    "all-to-all": Pattern(
        lambda setting, labels, order: all_to_all(setting, labels, order, setting.all_to_all_bytes),
        lambda setting, order: (
            (setting.gpus - 1) * setting.serialisation(setting.all_to_all_bytes) + 2 * setting.latency_ps
        ),
        lambda setting: setting.leaf_gpus,
        shuffled=False,
    ),
    "permutation": _ring(shuffled=True, whole=False),
}


def measure(setting: Setting, case: tuple[str, str, int]) -> float:
    """Return the completion time of one pattern, way and seed over its ideal."""
    name, way, seed = case
    pattern, fabric = PATTERNS[name], leaf_spine(setting)
    order = pattern.order(setting, seed)
    labels: Labels = partial(numbered, 1)
    if way.endswith(("path", "paths")):
        labels = partial(numbered, int(way.split()[0]))
    elif way == "placed":
        labels = partial(placed, setting, fabric, seed, pattern.flows(setting))
    program = pattern.program(setting, labels, order)
    policy = routing(way if way in ("static", "spray", "least-loaded") else "ecmp", seed)
    outcome = run(program, fabric, routing=policy, segment_bytes=setting.segment_bytes, record="none")
    return outcome.makespan_ps / pattern.ideal_ps(setting, order)


def table(found: dict[tuple[str, str, int], float], setting: Setting, seeds: int) -> Iterator[str]:
    """Yield the markdown table, a row a pattern and way."""
    yield "| pattern | ideal us | way | median us | median / ideal | worst / ideal |"
    yield "|---|---|---|---|---|---|"
    for name, pattern in PATTERNS.items():
        ideals = [pattern.ideal_ps(setting, pattern.order(setting, seed)) / 1e6 for seed in range(seeds)]
        for way in WAYS:
            ratios = [found[name, way, seed] for seed in range(seeds)]
            times = [ratio * ideal for ratio, ideal in zip(ratios, ideals, strict=True)]
            yield (
                f"| {name} | {median(ideals):,.1f} | {way} | {median(times):,.1f} | {median(ratios):.3f} "
                f"| {max(ratios):.3f} |"
            )


def plot(found: dict[tuple[str, str, int], float], seeds: int) -> str:
    """Return an SVG: a panel a pattern, a row a way, a tick a seed, a dot at the median."""
    top = max(found.values())
    width, row, panel = 300, 18, 40 + 18 * len(WAYS)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 160}" height="{panel * len(PATTERNS) + 20}" '
             'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>']  # fmt: skip
    for number, name in enumerate(PATTERNS):
        parts.append(f'<text x="110" y="{panel * number + 18}" font-weight="bold">{name}</text>')
        for line, way in enumerate(WAYS):
            y = panel * number + 34 + row * line
            ratios = [found[name, way, seed] for seed in range(seeds)]
            x = [110 + width * (ratio - 1) / (top - 1) for ratio in ratios]
            parts.append(f'<text x="100" y="{y + 4}" text-anchor="end">{way}</text>')
            parts.append(f'<path d="M110 {y}h{width}" stroke="#ddd"/>')
            ticks = "".join(f"M{at:.1f} {y - 5}v10" for at in x)
            parts.append(f'<path d="{ticks}" stroke="#4477aa"/>')
            parts.append(f'<circle cx="{median(x):.1f}" cy="{y}" r="4" fill="#aa3377"/>')
    foot = panel * len(PATTERNS) + 8
    parts.append(f'<text x="110" y="{foot}">ideal</text>')
    end = f'x="{110 + width}" y="{foot}" text-anchor="end"'
    parts.append(f"<text {end}>{top:.2f} x ideal</text></svg>")
    return "\n".join(parts) + "\n"


def arguments() -> argparse.Namespace:
    """Return the command's parameters."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("seeds", 10), ("processes", 2), ("leaves", 8), ("leaf-gpus", 16), ("spines", 16), ("segment-bytes", 4096),
        ("turn-bytes", 4096), ("ring-kib", 256), ("all-to-all-kib", 64), ("permutation-kib", 4096),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--rate-gb-per-s", type=float, default=50)
    parser.add_argument("--latency-us", type=float, default=1)
    parser.add_argument("--svg", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run all cases, print the table, draw the plot."""
    args = arguments()
    setting = Setting(
        args.leaves, args.leaf_gpus, args.spines, round(args.rate_gb_per_s * 1000), round(args.latency_us * 1e6),
        args.segment_bytes, args.turn_bytes, args.ring_kib * KIB, args.all_to_all_kib * KIB,
        args.permutation_kib * KIB,
    )  # fmt: skip
    cases = [(name, way, seed) for name in PATTERNS for way in WAYS for seed in range(args.seeds)]
    begin = time.perf_counter()
    with ProcessPoolExecutor(args.processes, get_context("spawn")) as pool:
        found = dict(zip(cases, pool.map(partial(measure, setting), cases), strict=True))
    print("\n".join(table(found, setting, args.seeds)))
    print(f"\n{len(cases)} runs in {time.perf_counter() - begin:.0f} s on {args.processes} processes.")
    if args.svg:
        args.svg.write_text(plot(found, args.seeds))


if __name__ == "__main__":
    main()

"""How much the end of a fused kernel varies, and why. The tables of variability.md.

    python docs/studies/eidola/variability.py [--quick] [--out FOLDER]

Three causes, each switched on and off: arrival skew (each GPU starts up to 10 us late), contention (an HGX box's
links, or none), and the phase of polls (a poll each 2 us, or none). And captured runs: the spread of launches of
real runs on two CPU threads, beside their replay without polls and with.
"""

import argparse
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, median, pstdev, quantiles

from figures import plot, table
from real_polls import alone_on_cores, calibrate, host_run, two_threads

from eidola.replay import IDEAL, WaitPolicy, lower, replay, run, spin
from eidola.replay.generate import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce, generate
from eidola.replay.generate.kernel import Kernel
from eidola.replay.presets import preset
from eidola.schemas import Trace

JITTER_NS, POLL_NS = 10_000, 2000
KERNELS: dict[str, Kernel] = {
    "GEMV + AllReduce": GemvAllReduce(gpus=8),
    "embedding + All-to-All": EmbeddingAllToAll(gpus=8, batch=1024),
    "GEMM + All-to-All": GemmAllToAll(gpus=8, rows=2048, columns=512, inner=512),
}
CAUSES = list(product((False, True), repeat=3))


def ends(kernel: Kernel, seed: int) -> dict[tuple[bool, bool, bool], float]:
    """Return when the kernel ends, in us, by (skew, contention, polls)."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for skew in (False, True):
            drawn = replace(kernel, seed=seed, jitter_ns=JITTER_NS if skew else 0)
            trace = generate(drawn, Path(folder) / "t.eidola", overwrite=True)
            for contention in (False, True):
                fabric = preset("hgx-h100" if contention else "ideal", kernel.gpus)
                program = lower(trace, fabric).program
                for polls in (False, True):
                    outcome = run(program, fabric, wait=spin(POLL_NS) if polls else IDEAL, record="none")
                    found[skew, contention, polls] = outcome.makespan_ps / 1e6
    return found


def factorial(seeds: int) -> tuple[str, dict[str, list[tuple[float, float]]]]:
    """Return the table of all combinations of causes, and the ends of each by rank order."""
    rows, points = [], {}
    for name, kernel in KERNELS.items():
        every = [ends(kernel, seed) for seed in range(seeds)]
        for causes in CAUSES:
            found = sorted(of[causes] for of in every)
            low, high = found[round(0.05 * (seeds - 1))], found[round(0.95 * (seeds - 1))]
            rows.append((name, *("x" if on else "" for on in causes), f"{mean(found):.2f}",
                         f"{pstdev(found):.3f}", f"{low:.2f} to {high:.2f}"))  # fmt: skip
            if name == "GEMV + AllReduce" and any(causes):
                names = zip(("skew", "links", "polls"), causes, strict=True)
                label = ", ".join(cause for cause, on in names if on)
                points[label] = [(100 * i / max(1, seeds - 1), end) for i, end in enumerate(found)]
    names = ("kernel", "skew", "contention", "polls", "mean us", "standard deviation", "5 % to 95 %")
    return table(names, rows), points


def launches(rows: list[dict[str, float]], start: str, end: str, scale: int) -> list[float]:
    """Return each launch's duration in us: five phases, of one workgroup, the warm-up left out."""
    rows = sorted(rows, key=lambda row: row[start])
    whole = [rows[first : first + 5] for first in range(5, len(rows) - 4, 5)]
    return [(phases[-1][end] - phases[0][start]) / scale for phases in whole]


def replayed(trace: Trace, wait: WaitPolicy, latency_ns: float) -> list[float]:
    """Return the duration of rank 0's launches when it is the target."""
    results = replay(trace, mode="target", targets=(0,), fabric=two_threads(latency_ns), wait=wait)
    rows = results.read("activities", ["rank", "kind", "start_ps", "end_ps"]).to_pylist()
    chosen = [row for row in rows if row["rank"] == 0 and row["kind"] == "phase"]
    return launches(chosen, "start_ps", "end_ps", 10**6)


def captured(repeats: int) -> str:
    """Return the table of launches of real runs whose peer is 20 us late, and of their replay."""
    alone_on_cores()
    with tempfile.TemporaryDirectory() as name:
        period_ns, latency_ns = calibrate(repeats, Path(name))
        trace = host_run((20,), repeats, Path(name))
        spans = trace.read("spans", ["start_ns", "end_ns"], ranks=[0]).to_pylist()
        cases = {
            "captured": launches(spans, "start_ns", "end_ns", 1000),
            "replayed without polls": replayed(trace, IDEAL, latency_ns),
            f"replayed, a poll each {period_ns:.0f} ns": replayed(trace, spin(period_ns), latency_ns),
        }
    rows = []
    for what, found in cases.items():
        cuts = quantiles(found, n=20)
        rows.append(
            (what, len(found), f"{median(found):.2f}", f"{cuts[-1] - cuts[0]:.2f}", f"{max(found):.2f}")
        )
    apart = [abs(a - b) for a, b in zip(cases["captured"], list(cases.values())[2], strict=True)]
    told = table(("", "launches", "median us", "5 % to 95 %, us wide", "longest us"), rows)
    return (
        f"{told}\n\ncaptured against replayed with polls, a launch: median difference {median(apart):.2f} us"
    )


def main() -> None:
    """Print the tables, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    told, points = factorial(3 if args.quick else args.seeds)
    print(told)
    print("\n" + captured(10 if args.quick else 200))
    plot(args.out / "variability.svg", "End of GEMV + AllReduce, 8 GPUs", "% of seeds", "us", points)


if __name__ == "__main__":
    main()

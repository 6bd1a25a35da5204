"""How much the end of a fused kernel varies, and why. The tables of variability.md.

    python docs/studies/eidola/variability.py [--quick] [--out FOLDER]

Three causes, each switched on and off: arrival skew (each GPU starts up to 10 us late), contention (an HGX box's
links, or none), and the phase of polls (a poll each 2 us, or none). And captured runs: the spread of launches of
real runs on CPU threads, beside their replay without polls and with.
"""

import argparse
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, median, pstdev

from figures import plot, table

from eidola.replay import IDEAL, WaitPolicy, lower, replay, run, spin
from eidola.replay.generate import EmbeddingAllToAll, GemmAllToAll, GemvAllReduce, generate
from eidola.replay.generate.kernel import Kernel
from eidola.replay.polling import captured_period_ns
from eidola.replay.presets import preset
from eidola.schemas import Trace

JITTER_NS, POLL_NS = 10_000, 2000
KERNELS: dict[str, Kernel] = {
    "GEMV + AllReduce": GemvAllReduce(gpus=8),
    "embedding + All-to-All": EmbeddingAllToAll(gpus=8, batch=1024),
    "GEMM + All-to-All": GemmAllToAll(gpus=8, rows=2048, columns=512, inner=512),
}
SAMPLES = Path(__file__).resolve().parents[3] / "sample_traces"
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


def launches(rows: list[dict[str, object]], start: str, end: str) -> list[float]:
    """Return each launch's duration in us: phases come in launches of five, workgroup by workgroup."""
    by_lane: dict[tuple[object, object], list[dict[str, object]]] = {}
    for row in sorted(rows, key=lambda row: row[start]):
        by_lane.setdefault((row["rank"], row["lane"]), []).append(row)
    count = min(len(lane) for lane in by_lane.values()) // 5
    scale = 1000 if start.endswith("_ns") else 10**6
    return [
        (
            max(lane[5 * i + 4][end] for lane in by_lane.values())
            - min(lane[5 * i][start] for lane in by_lane.values())
        )
        / scale
        for i in range(count)
    ]


def replayed(trace: Trace, wait: WaitPolicy) -> list[float]:
    """Return each launch's duration when all ranks are replayed closed-loop on an ideal fabric."""
    results = replay(trace, wait=wait)
    lanes = {row["agent"]: row["name"] for row in results.read("agents", ["agent", "name"]).to_pylist()}
    rows = [row | {"lane": lanes[row["agent"]]} for row in results.read("activities").to_pylist()]
    return launches([row for row in rows if row["kind"] == "phase"], "start_ps", "end_ps")


def captured() -> str:
    """Return the table of captured launches, and of their replay."""
    rows = []
    for name in ("gemv_allreduce_host_2", "gemv_allreduce_host_4"):
        trace = Trace(SAMPLES / name / "trace.eidola")
        spans = trace.read("spans", ["rank", "lane", "start_ns", "end_ns"]).to_pylist()
        period_ns = captured_period_ns(trace) or 100
        for what, found in (
            ("captured", launches(spans, "start_ns", "end_ns")),
            ("replayed without polls", replayed(trace, IDEAL)),
            (f"replayed, a poll each {period_ns:,.0f} ns", replayed(trace, spin(period_ns))),
        ):
            rows.append(
                (name, what, len(found), f"{median(found):,.0f}", f"{min(found):,.0f} to {max(found):,.0f}")
            )
    return table(("capture", "", "launches", "median us", "range"), rows)


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
    print("\n" + captured())
    plot(args.out / "variability.svg", "End of GEMV + AllReduce, 8 GPUs", "% of seeds", "us", points)


if __name__ == "__main__":
    main()

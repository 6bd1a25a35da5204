"""How much the end of a fused kernel varies, and why. The tables of variability.md.

    python docs/studies/eidola/variability.py [--quick] [--out FOLDER]

Over seeds: arrival skew (each GPU starts up to 10 us late), contention (an HGX box's links, or none; and other
jobs' traffic on them), and the phase of polls (a poll each 2 us, or none), each switched on and off. Over launches
of real runs on two CPU threads: the spread, what of it each part of a launch makes, and its replay without polls
and with.
"""

import argparse
import tempfile
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean, pstdev, quantiles

import numpy as np
from crowded import Crowded, end_us
from figures import plot, table
from real_polls import Wait, alone_on_cores, calibrate, host_run, interleaved, two_threads, waits

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
LOADS = (0.3, 0.6)
ADDED: dict[str, tuple[object, object]] = {
    "skew": ((True, False, False), (False, False, False)),
    "links": ((True, True, False), (True, False, False)),
    **{f"others' traffic, {load:.0%} of the links": (load, (True, True, False)) for load in LOADS},
    "polls": ((True, True, True), (True, True, False)),
}
"""What is added, and to what: ends' keys."""
LATE_US = (20, 20, 20)  # so that all three calibrating delays go between


def ends(kernel: Kernel, seed: int) -> dict[object, float]:
    """Return when the kernel ends, in us, by (skew, contention, polls); skewed, beside others' traffic, by load."""
    found: dict[object, float] = {}
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
        for load in LOADS:
            crowd = Crowded(drawn, load, seed)
            program = lower(generate(crowd, Path(folder) / "c.eidola", overwrite=True), fabric).program
            found[load] = end_us(run(program, fabric, record="none"), kernel)
    return found


def factorial(seeds: int) -> tuple[str, str, dict[str, list[tuple[float, float]]]]:
    """Return the tables of all combinations of causes and of what each adds, and the ends of each by rank order."""
    rows, added, points = [], [], {}
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
        for cause, (more, less) in ADDED.items():
            apart = [of[more] - of[less] for of in every]
            added.append((name, cause, f"{mean(apart):+.2f}", f"{pstdev(apart):.3f}",
                          f"{min(apart):.2f} to {max(apart):.2f}"))  # fmt: skip
    names = ("kernel", "skew", "contention", "polls", "mean us", "standard deviation", "5 % to 95 %")
    cause_names = ("kernel", "added", "mean us", "standard deviation", "least to most")
    return table(names, rows), table(cause_names, added), points


def launches(rows: list[dict[str, float]], start: str, end: str, scale: int) -> np.ndarray:
    """Return (launches, 5, 2) starts and ends in us of the phases of one workgroup, launch by launch."""
    rows = sorted(rows, key=lambda row: row[start])
    times = np.array([(row[start], row[end]) for row in rows]) - rows[0][start]
    return times.reshape(-1, 5, 2) / scale


def judged(seen: dict[int, Wait]) -> np.ndarray:
    """Return which launches are late by LATE_US and no warm-up, counted from 0."""
    count = len(interleaved(LATE_US))
    return np.array([epoch - 1 for epoch in sorted(seen) if epoch > count and epoch % count % 2 == 0])


def replayed(trace: Trace, wait: WaitPolicy, flag_ns: float) -> np.ndarray:
    """Return the duration of rank 0's launches when it is the target."""
    results = replay(trace, mode="target", targets=(0,), fabric=two_threads(flag_ns), wait=wait)
    rows = results.read("activities", ["rank", "kind", "start_ps", "end_ps"]).to_pylist()
    chosen = [row for row in rows if row["rank"] == 0 and row["kind"] == "phase"]
    return took(launches(chosen, "start_ps", "end_ps", 10**6))


def took(phases: np.ndarray) -> np.ndarray:
    """Return (launches,) from the first phase's start to the last one's end."""
    return phases[:, -1, 1] - phases[:, 0, 0]


def parts(phases: np.ndarray, seen: dict[int, Wait]) -> dict[str, np.ndarray]:
    """Return (launches,) us of the parts of a launch, which add up to it.

    The wait for partials ends a flag's latency and what is left of a poll's period after the peer raised it.
    """
    waited = [seen[epoch] for epoch in sorted(seen)]
    noticed = np.array([wait["end_ns"] - wait["issue_ns"] for wait in waited]) / 1000
    first = phases[:, :1, 0].ravel()
    raised = phases[:, 2, 1] - noticed  # all that is after the wait's record belongs to the work
    return {
        "the peer's flag: arrival skew": raised - first,
        "from the flag to the poll that sees it: latency, phase of polls": noticed,
        "rank 0's own sums": phases[:, 3, 1] - phases[:, 2, 1],
        "the wait for results": phases[:, 4, 1] - phases[:, 3, 1],
    }


def captured(repeats: int) -> str:
    """Return the tables of launches of real runs whose peer is 20 us late, of their parts, and of their replay."""
    alone_on_cores()
    cases: dict[str, list[np.ndarray]] = {}
    made: dict[str, list[np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(repeats):
            trace = host_run(LATE_US, 5, Path(name))
            seen = waits(trace)
            poll, chosen = calibrate(seen, LATE_US), judged(seen)
            phases = launches(
                trace.read("spans", ["start_ns", "end_ns"], ranks=[0]).to_pylist(), "start_ns", "end_ns", 1000
            )
            for what, found in (
                ("captured", took(phases)),
                ("replayed without polls", replayed(trace, IDEAL, poll.flag_ns)),
                ("replayed with the loop's polls", replayed(trace, poll.policy, poll.flag_ns)),
            ):
                cases.setdefault(what, []).append(found[chosen])
            for what, found in parts(phases, seen).items():
                made.setdefault(what, []).append(found[chosen])
    whole = {what: np.concatenate(found) for what, found in cases.items()}
    return "\n\n".join(
        (_spread(whole), _shares(whole["captured"], {w: np.concatenate(m) for w, m in made.items()}))
    )


def _wide(found: np.ndarray) -> float:
    cuts = quantiles(found.tolist(), n=20)
    return cuts[-1] - cuts[0]


def _spread(whole: dict[str, np.ndarray]) -> str:
    rows = [
        (what, len(found), f"{np.median(found):.2f}", f"{_wide(found):.2f}", f"{found.max():.2f}")
        for what, found in whole.items()
    ]
    apart = np.abs(whole["captured"] - whole["replayed with the loop's polls"])
    told = table(("", "launches", "median us", "5 % to 95 %, us wide", "longest us"), rows)
    return f"{told}\n\ncaptured against replayed with polls, a launch: median difference {np.median(apart):.2f} us"


def _shares(whole: np.ndarray, made: dict[str, np.ndarray]) -> str:
    """Return each part's spread, and its share of the launches' variance, the longest and shortest 5 % left out."""
    low, high = np.percentile(whole, (5, 95))
    inner = (whole >= low) & (whole <= high)
    rows = []
    for what, found in made.items():
        share = np.cov(found[inner], whole[inner])[0, 1] / whole[inner].var(ddof=1)
        rows.append((what, f"{np.median(found):.2f}", f"{_wide(found):.2f}", f"{share:.0%}"))
    return table(("part of a captured launch", "median us", "5 % to 95 %, us wide", "of the variance"), rows)


def main() -> None:
    """Print the tables, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    told, added, points = factorial(3 if args.quick else args.seeds)
    print(told + "\n\n" + added)
    print("\n" + captured(1 if args.quick else 20))
    plot(args.out / "variability.svg", "End of GEMV + AllReduce, 8 GPUs", "% of seeds", "us", points)


if __name__ == "__main__":
    main()

"""Predicted polls and wake-ups against probe records of real runs. The tables of flag_reads.md.

    python docs/studies/eidola/real_polls.py [--quick] [--out FOLDER]

The fused GEMV + AllReduce runs on two CPU threads, a workgroup each, so that a waiting thread is a plain spin.
Rank 1 begins each launch late by one of eight times; its captured flags are the eidolon's writes, rank 0 is the
target. The period of a poll and the latency of a flag come from runs of their own, with other wake-up times; clocks
of cores drift, so such a run goes before each round of measured ones. Where it may, the script asks for SCHED_FIFO,
so that a busy machine does not take the cores away; it says whether it got it.
"""

import argparse
import os
import tempfile
from pathlib import Path
from statistics import median, quantiles

from figures import plot, table

from eidola.capture.fused.capture import capture_kernel
from eidola.capture.fused.gemv_allreduce import GemvAllReduce
from eidola.convert.captured import captured
from eidola.replay import Fabric, FabricBuilder, replay, spin
from eidola.schemas import Trace

DELAYS_US = (5, 10, 15, 20, 25, 30, 35, 40)
CALIBRATION_US = (12, 22, 33)
RATE_MB_PER_S = 1_000_000  # the data of a flag are small and written before it: their time does not show


def host_run(delays_us: tuple[int, ...], repeats: int, folder: Path) -> Trace:
    """Capture launches whose rank 1 begins late by each of `delays_us` in turns, and convert them."""
    spec = GemvAllReduce(gpus=2, workgroups=1, rows=256, columns=64, iterations=1 + len(delays_us) * repeats,
                         buffer_records=1 << 17)  # fmt: skip
    delays = "-DFUSED_DELAYS=" + ",".join(str(delay * 1000) for delay in delays_us)
    capture_kernel(spec, folder / "raw", options=(delays,), overwrite=True)
    return Trace(captured(folder / "raw", folder / "trace.eidola", overwrite=True))


def waits(trace: Trace) -> dict[int, dict[str, float]]:
    """Return rank 0's waits for partials by epoch: start, end, polls, and when rank 1 raised the flag."""
    found = trace.read("waits", ["start_ns", "end_ns", "polls", "flag", "expected"], ranks=[0]).to_pylist()
    first = min(row["flag"] for row in found)
    raised = trace.read("writes", ["issue_ns", "kind", "flag", "value"], ranks=[1]).to_pylist()
    issue = {
        row["value"]: row["issue_ns"] for row in raised if row["kind"] == "flag" and row["flag"] == first
    }
    return {
        row["expected"]: {**row, "issue_ns": issue[row["expected"]]} for row in found if row["flag"] == first
    }


def calibrate(repeats: int, folder: Path) -> tuple[float, float]:
    """Return the period of polls and the latency of a flag in ns, from runs that are not predicted."""
    long = [row for row in waits(host_run(CALIBRATION_US, repeats, folder)).values() if row["polls"] > 1]
    period_ns = median((row["end_ns"] - row["start_ns"]) / (row["polls"] - 1) for row in long)
    seen_ns = median(row["end_ns"] - row["issue_ns"] for row in long)
    return period_ns, max(
        1.0, seen_ns - period_ns / 2
    )  # half a period passes, in the median, before a poll sees it


def two_threads(latency_ns: float) -> Fabric:
    """Return two endpoints with a link each way, of a flag's latency."""
    builder = FabricBuilder("two threads", 2)
    for source in range(2):
        link = builder.link(source, 1 - source, RATE_MB_PER_S, round(latency_ns * 1000))
        builder.rule(source, 0, 2, [[link]])
    return builder.build()


def alone_on_cores() -> bool:
    """Ask for SCHED_FIFO, so that other processes do not take the cores away; whether it was granted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (OSError, AttributeError):
        return False
    return True


def shared_again() -> None:
    """Return to the default scheduler."""
    if hasattr(os, "SCHED_OTHER"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def predict(trace: Trace, period_ns: float, latency_ns: float) -> dict[int, dict[str, float]]:
    """Return the target's predicted waits by epoch, in ns after the flag was raised and after the wait began."""
    fabric = two_threads(latency_ns)
    results = replay(trace, mode="target", targets=(0,), fabric=fabric, wait=spin(period_ns))
    rows = results.read(
        "waits", ["rank", "flag", "expected", "start_ps", "arrival_ps", "end_ps", "polls"]
    ).to_pylist()
    first = min(row["flag"] for row in rows if row["rank"] == 0)
    return {
        row["expected"]: {
            "polls": row["polls"],
            "waited_ns": (row["end_ps"] - row["start_ps"]) / 1000,
            "latency_ns": (row["end_ps"] - row["arrival_ps"]) / 1000 + latency_ns,
        }
        for row in rows
        if row["rank"] == 0 and row["flag"] == first
    }


def main() -> None:
    """Calibrate, run, predict, compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=20, help="launches of each wake-up time, a round")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    rounds, repeats = (1, 5) if args.quick else (args.rounds, args.repeats)
    granted = (
        "SCHED_FIFO"
        if alone_on_cores()
        else "the default; on a busy machine waits are cut by other processes"
    )
    print(f"scheduler: {granted}")
    with tempfile.TemporaryDirectory() as name:
        compare(Path(name), rounds, repeats, args.out)


def judged(folder: Path, repeats: int) -> list[dict[str, float]]:
    """Calibrate, measure and predict once; return what was seen and said of every launch."""
    period_ns, latency_ns = calibrate(2 * repeats, folder)
    trace = host_run(DELAYS_US, repeats, folder)
    seen, said = waits(trace), predict(trace, period_ns, latency_ns)
    return [
        {
            "delay_us": DELAYS_US[epoch % len(DELAYS_US)],
            "period_ns": period_ns,
            "flag_ns": latency_ns,
            "polls": seen[epoch]["polls"],
            "said_polls": said[epoch]["polls"],
            "polls_error": abs(said[epoch]["polls"] / seen[epoch]["polls"] - 1),
            "wait_error": abs(
                said[epoch]["waited_ns"] / (seen[epoch]["end_ns"] - seen[epoch]["start_ns"]) - 1
            ),
            "latency_ns": seen[epoch]["end_ns"] - seen[epoch]["issue_ns"],
            "said_latency_ns": said[epoch]["latency_ns"],
        }
        for epoch in seen
        if epoch > 1
    ]


def compare(folder: Path, rounds: int, repeats: int, out: Path) -> None:
    """Print and plot errors by wake-up time."""
    every = [launch for _ in range(rounds) for launch in judged(folder, repeats)]
    for name, what in (("period_ns", "time between polls"), ("flag_ns", "latency of a flag")):
        found = sorted({launch[name] for launch in every})
        print(f"calibrated {what}: {found[0]:.0f} to {found[-1]:.0f} ns, median {median(found):.0f}")
    rows, errors = [], []
    points: dict[str, list[tuple[float, float]]] = {"measured": [], "predicted": []}
    for delay in DELAYS_US:
        launches = [launch for launch in every if launch["delay_us"] == delay]
        of = {name: [launch[name] for launch in launches] for name in launches[0]}
        middle = {name: median(values) for name, values in of.items()}
        latency = abs(middle["said_latency_ns"] / middle["latency_ns"] - 1)
        errors.append((middle["polls_error"], middle["wait_error"], latency))
        points["measured"].append((delay, middle["polls"]))
        points["predicted"].append((delay, middle["said_polls"]))
        rows.append((delay, len(launches), f"{middle['polls']:.0f}", f"{middle['said_polls']:.0f}",
                     f"{middle['polls_error']:.1%}", f"{quantiles(of['polls_error'], n=10)[8]:.1%}",
                     f"{middle['wait_error']:.1%}", f"{middle['latency_ns']:.0f}",
                     f"{middle['said_latency_ns']:.0f}", f"{latency:.1%}"))  # fmt: skip
    names = ("wake-up us", "waits", "polls", "predicted", "median error", "90th", "wait's length: median error",
             "median latency ns", "predicted", "error")  # fmt: skip
    print("\n" + table(names, rows))
    polls, length, latency = (median(column) for column in zip(*errors, strict=True))
    print(
        f"\nmedian over wake-up times: polls {polls:.1%}, length of the wait {length:.1%}, latency {latency:.1%}"
    )
    plot(out / "real_polls.svg", "Polls of a wait, host backend", "peer begins late by, us", "polls", points)


if __name__ == "__main__":
    main()

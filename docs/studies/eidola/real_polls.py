"""Predicted polls and wake-ups against probe records of real runs. The tables of flag_reads.md.

    python docs/studies/eidola/real_polls.py [--quick] [--out FOLDER]

The fused GEMV + AllReduce runs on two CPU threads, a workgroup each, so that a waiting thread is a plain spin.
Rank 1 begins each launch late; its captured flags are the eidolon's writes, rank 0 is the target. Every second
launch is late by one of eight times, and is predicted. The launches between them are late by three others, and
calibrate how the spin polls and how long a flag takes: in the same run of a few milliseconds, because the speed of
a virtual machine's cores changes. Where it may, the script asks for SCHED_FIFO, so that a busy machine does not
take the cores away; it says whether it got it.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

import numpy as np
from figures import plot, table

from eidola.capture.fused.capture import capture_kernel
from eidola.capture.fused.gemv_allreduce import GemvAllReduce
from eidola.convert.captured import captured
from eidola.replay import Fabric, FabricBuilder, WaitPolicy, polls_table, replay
from eidola.schemas import Trace

DELAYS_US = (5, 10, 15, 20, 25, 30, 35, 40)
CALIBRATION_US = (12, 22, 33)
RATE_MB_PER_S = 1_000_000  # the data of a flag are small and written before it: their time does not show
Wait = dict[str, float]


@dataclass(frozen=True)
class Spin:
    """How the kernel's loop polls, and how long a flag takes until a poll can see it, in ns.

    The loop polls again at once after its first failure, and then yields and looks at the clock before each poll.
    `first_ns` is from the wait's record to that second poll, its end's record included; then comes one a
    `period_ns`.
    """

    period_ns: float
    first_ns: float
    flag_ns: float

    @property
    def policy(self) -> WaitPolicy:
        """The loop as a wait policy."""
        return polls_table(((self.first_ns, 1), (self.period_ns, 0)))

    def whole(self, wait: Wait) -> bool:
        """Whether the wait's polls fill its time; where more than one is missing, the thread was interrupted."""
        fills = self.first_ns + (wait["polls"] - 2) * self.period_ns
        return wait["polls"] > 1 and wait["end_ns"] - wait["start_ns"] - fills <= self.period_ns


def interleaved(delays_us: tuple[int, ...]) -> list[int]:
    """Return the launches' delays: those to predict, with a calibrating one after each."""
    return [
        us for i, delay in enumerate(delays_us) for us in (delay, CALIBRATION_US[i % len(CALIBRATION_US)])
    ]


def host_run(delays_us: tuple[int, ...], repeats: int, folder: Path) -> Trace:
    """Capture launches whose rank 1 begins late by `interleaved` delays in turns, and convert them.

    One launch of each delay goes before the `repeats` of it: pages, caches and the delay's own code are cold there.
    """
    turns = interleaved(delays_us)
    spec = GemvAllReduce(gpus=2, workgroups=1, rows=256, columns=64, iterations=len(turns) * (1 + repeats),
                         buffer_records=1 << 17)  # fmt: skip
    delays = "-DFUSED_DELAYS=" + ",".join(str(delay * 1000) for delay in turns)
    capture_kernel(spec, folder / "raw", options=(delays,), overwrite=True)
    return Trace(captured(folder / "raw", folder / "trace.eidola", overwrite=True))


def waits(trace: Trace) -> dict[int, Wait]:
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


def calibrate(seen: dict[int, Wait], delays_us: tuple[int, ...]) -> Spin:
    """Return the spin that the calibrating launches show.

    Its period is the median slope of time over polls between any two waits (Theil and Sen's line, which single
    interruptions do not move), the rest is that line's intercept. In the mean a poll is half a period late.
    """
    turns = interleaved(delays_us)
    known = [
        wait for epoch, wait in seen.items() if epoch > 1 and epoch % len(turns) % 2 and wait["polls"] > 1
    ]
    polls, time = (np.array(column, float) for column in zip(
        *((wait["polls"], wait["end_ns"] - wait["start_ns"]) for wait in known), strict=True))  # fmt: skip
    one, other = np.triu_indices(len(polls), 1)
    apart = polls[one] != polls[other]
    period = float(np.median((time[one] - time[other])[apart] / (polls[one] - polls[other])[apart]))
    spin = Spin(period, max(1.0, float(np.median(time - (polls - 2) * period))), 0.0)
    flag = mean(wait["end_ns"] - wait["issue_ns"] for wait in known if spin.whole(wait)) - period / 2
    return Spin(spin.period_ns, spin.first_ns, max(1.0, flag))


def two_threads(flag_ns: float) -> Fabric:
    """Return two endpoints with a link each way, of a flag's latency."""
    builder = FabricBuilder("two threads", 2)
    for source in range(2):
        link = builder.link(source, 1 - source, RATE_MB_PER_S, round(flag_ns * 1000))
        builder.rule(source, 0, 2, [[link]])
    return builder.build()


def alone_on_cores() -> bool:
    """Ask for SCHED_FIFO, so that other processes do not take the cores away; whether it was granted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except (OSError, AttributeError):
        return False
    return True


def predict(trace: Trace, spin: Spin) -> dict[int, Wait]:
    """Return the target's predicted waits by epoch, in ns after the flag was raised and after the wait began."""
    fabric = two_threads(spin.flag_ns)
    results = replay(trace, mode="target", targets=(0,), fabric=fabric, wait=spin.policy)
    rows = results.read(
        "waits", ["rank", "flag", "expected", "start_ps", "arrival_ps", "end_ps", "polls"]
    ).to_pylist()
    first = min(row["flag"] for row in rows if row["rank"] == 0)
    return {
        row["expected"]: {
            "polls": row["polls"],
            "waited_ns": (row["end_ps"] - row["start_ps"]) / 1000,
            "latency_ns": (row["end_ps"] - row["arrival_ps"]) / 1000 + spin.flag_ns,
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
    parser.add_argument("--rounds", type=int, default=120)
    parser.add_argument("--repeats", type=int, default=5, help="launches of each wake-up time, a round")
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
        compare([launch for _ in range(rounds) for launch in judged(Path(name), repeats)], args.out)


def judged(folder: Path, repeats: int) -> list[Wait]:
    """Measure, calibrate and predict once; return what was seen and said of every launch that did not calibrate."""
    trace, turns = host_run(DELAYS_US, repeats, folder), interleaved(DELAYS_US)
    seen = waits(trace)
    spin = calibrate(seen, DELAYS_US)
    said = predict(trace, spin)
    return [
        {
            "delay_us": turns[epoch % len(turns)],
            "period_ns": spin.period_ns,
            "first_ns": spin.first_ns,
            "flag_ns": spin.flag_ns,
            "whole": spin.whole(wait),
            "polls": wait["polls"],
            "said_polls": said[epoch]["polls"],
            "polls_error": abs(said[epoch]["polls"] / wait["polls"] - 1),
            "wait_error": abs(said[epoch]["waited_ns"] / (wait["end_ns"] - wait["start_ns"]) - 1),
            "latency_ns": wait["end_ns"] - wait["issue_ns"],
            "said_latency_ns": said[epoch]["latency_ns"],
            "latency_error": abs(said[epoch]["latency_ns"] / (wait["end_ns"] - wait["issue_ns"]) - 1),
        }
        for epoch, wait in seen.items()
        if epoch > len(turns) and not epoch % len(turns) % 2
    ]


def compare(every: list[Wait], out: Path) -> None:
    """Print and plot errors by wake-up time."""
    for name, what in (("period_ns", "time between polls"), ("first_ns", "until the second poll"),
                       ("flag_ns", "latency of a flag")):  # fmt: skip
        found = sorted({launch[name] for launch in every})
        print(f"calibrated {what}: {found[0]:.0f} to {found[-1]:.0f} ns, median {median(found):.0f}")
    whole = [launch for launch in every if launch["whole"]]
    print(f"waits that were interrupted, left out: {len(every) - len(whole)} of {len(every)}")
    rows, points = [], {"measured": [], "predicted": []}
    late: dict[str, list[tuple[float, float]]] = {}
    for delay in DELAYS_US:
        launches = [launch for launch in whole if launch["delay_us"] == delay]
        of = {name: np.array([launch[name] for launch in launches], float) for name in launches[0]}
        points["measured"].append((delay, float(np.median(of["polls"]))))
        points["predicted"].append((delay, float(np.median(of["said_polls"]))))
        spans = (
            " to ".join(f"{ns:.0f}" for ns in np.percentile(of[n], (10, 90)))
            for n in ("latency_ns", "said_latency_ns")
        )
        for side, name in (("measured", "latency_ns"), ("predicted", "said_latency_ns")):
            for percent in (10, 50, 90):
                late.setdefault(f"{side}, {percent} %", []).append(
                    (delay, float(np.percentile(of[name], percent)))
                )
        means = of["latency_ns"].mean(), of["said_latency_ns"].mean()
        rows.append((delay, len(launches), *(f"{np.median(of[n]):.0f}" for n in ("polls", "said_polls")),
                     f"{np.median(of['polls_error']):.1%}", f"{np.percentile(of['polls_error'], 90):.1%}",
                     f"{np.median(of['wait_error']):.1%}", *(f"{ns:.0f}" for ns in means),
                     f"{abs(means[1] / means[0] - 1):.1%}", *spans))  # fmt: skip
    names = ("wake-up us", "waits", "polls", "predicted", "median error", "90th", "wait's length: median error",
             "mean latency ns", "predicted", "error", "10 to 90 % ns", "predicted")  # fmt: skip
    print("\n" + table(names, rows))
    print("\n" + bottom_line("waits that were not interrupted, mean", whole, mean))
    print(bottom_line("all waits, median", every, median))
    late_by = "peer begins late by, us"
    plot(out / "real_polls.svg", "Polls of a wait, host backend", late_by, "polls", points)
    plot(
        out / "real_latency.svg", "From the flag to the poll that sees it, host backend", late_by, "ns", late
    )


def bottom_line(what: str, launches: list[Wait], middle: Callable[[list[float]], float]) -> str:
    """Return the errors' medians over wake-up times, latency's of its `middle`, and that of single launches."""
    errors = []
    for delay in DELAYS_US:
        mine = [launch for launch in launches if launch["delay_us"] == delay]
        polls, length = (median(launch[name] for launch in mine) for name in ("polls_error", "wait_error"))
        seen, said = (middle([launch[name] for launch in mine]) for name in ("latency_ns", "said_latency_ns"))
        errors.append((polls, length, abs(said / seen - 1)))
    polls, length, latency = (median(column) for column in zip(*errors, strict=True))
    single = median(launch["latency_error"] for launch in launches)
    return (
        f"{what} latency: median error over wake-up times: polls {polls:.1%}, length of the wait {length:.1%}, "
        f"latency {latency:.1%}; latency of a single launch {single:.1%}"
    )


if __name__ == "__main__":
    main()

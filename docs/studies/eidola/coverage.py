"""How often predicted intervals hold captured steps that they have not seen. The table of docs/validation.md.

    python docs/studies/eidola/coverage.py [--quick]

Each step of a capture is drawn from the recordings of its other steps (leave one out), and the captured step is
looked up in the draws. The first step warms up and is left out. Captures: training over Gloo in sample_traces/, and
the fused GEMV + AllReduce that two CPU threads run here and now, as real_polls.py does, a round of launches being a
step. What Gloo itself takes is no part of the model.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from figures import table
from real_polls import alone_on_cores, calibrate, host_run, interleaved, two_threads, waits

from eidola.replay import IDEAL, Fabric, WaitPolicy, lower
from eidola.replay.jitter import Steps, between, captured_steps, find_gaps, spread, step_times
from eidola.replay.presets import preset
from eidola.replay.program import Program
from eidola.schemas import Trace

SAMPLES = Path(__file__).resolve().parents[3] / "sample_traces"
GLOO = ("gloo_ddp_2", "gloo_ddp_4", "gloo_fsdp_2")
PERCENTS = (50, 80, 90)
LATE_US = (20, 20, 20)
Case = tuple[Program, Fabric, Steps, WaitPolicy]


def rounds(trace: Trace) -> Steps:
    """Return when each rank began each round of launches."""
    spans = trace.read("spans", ["rank", "name", "start_ns"]).to_pandas()
    first = spans[spans["name"] == "remote_tiles"].sort_values("start_ns")
    return {
        rank: rows["start_ns"].tolist()[:: len(interleaved(LATE_US))] for rank, rows in first.groupby("rank")
    }


def captured_times(program: Program, steps: Steps) -> np.ndarray:
    """Return the captured time of each step (K,), in picoseconds."""
    ends = program.activities["captured_end_ns"] - program.epoch_ns
    return step_times(find_gaps(program, steps).step, np.maximum(ends, 0) * 1000)


def held(case: Case, seeds: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Return predicted medians over captured times of all steps but the first, and what each interval holds."""
    program, fabric, steps, wait = case
    found = spread(program, fabric, seeds, steps=steps, skip=1, unseen=True, wait=wait).step_ps[:, 1:]
    seen = captured_times(program, steps)[1:]
    inside = {}
    for percent in PERCENTS:
        low, high = between(found, percent)
        inside[percent] = (low <= seen) & (seen <= high)
    return np.median(found, axis=0) / seen, inside


def cases(repeats: int, folder: Path) -> Iterator[tuple[str, Case]]:
    """Yield each capture's name, program, fabric, steps and how it waits."""
    for name in GLOO:
        trace = Trace(SAMPLES / name / "trace.eidola")
        fabric = preset("ideal", len(trace.ranks()))
        yield name, (lower(trace, fabric).program, fabric, captured_steps(trace), IDEAL)
    alone_on_cores()
    trace = host_run(LATE_US, repeats, folder)
    poll = calibrate(waits(trace), LATE_US)
    fabric = two_threads(poll.flag_ns)
    yield "fused GEMV + AllReduce", (lower(trace, fabric).program, fabric, rounds(trace), poll.policy)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=200)
    args = parser.parse_args()
    seeds, repeats = (20, 5) if args.quick else (args.seeds, 60)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, case in cases(repeats, Path(folder)):
            ratio, inside = held(case, seeds)
            rows.append(
                (name, len(ratio), f"{np.median(ratio):.2f}", *(f"{inside[p].mean():.0%}" for p in PERCENTS))
            )
    names = ("capture", "unseen steps", "median predicted over captured", *(f"in {p} %" for p in PERCENTS))
    print(table(names, rows))


if __name__ == "__main__":
    main()

"""Captured against replayed: every multi-rank trace at its own size, as the tables of docs/validation.md.

    python docs/studies/captured.py [TRACES]

TRACES is a folder with the 8-rank V100 job (`kineto/v100_dlrm_8ranks`, `execution_trace/v100_dlrm_8ranks`);
without it, or where it is not there, only the captures in sample_traces/ are replayed.
"""

import sys
import tempfile
from pathlib import Path

import pyarrow.compute as pc

from eidola.convert import kineto
from eidola.replay import compare, replay, spin
from eidola.replay.polling import captured_period_ns
from eidola.schemas import Results, Trace

ROOT = Path(__file__).resolve().parents[2]


def row(*cells: object) -> None:
    """Print a row of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |")


def header(*cells: str) -> None:
    """Print a table's head."""
    row(*cells)
    row(*("---" for _ in cells))


def collectives(run: Results) -> None:
    """Print own time (last start to latest end), predicted and captured, of each collective, and the step's."""
    comparison = compare(run, "captured")
    frame = comparison.collectives
    header("operation", "predicted us", "captured us", "error", "skew predicted us", "skew captured us")
    for entry in frame.itertuples():
        times = [f"{ps / 1e6:,.1f}" for ps in (entry.a_ps, entry.b_ps)]
        skews = [f"{ps / 1e6:,.1f}" for ps in (entry.skew_a_ps, entry.skew_b_ps)]
        row(f"{entry.sequence} {entry.operation}", *times, f"{entry.a_against_b:+.1%}", *skews)
    error = frame["a_against_b"].abs()
    step = comparison.makespan_a_ps / comparison.makespan_b_ps - 1
    print(f"\nCollectives: median error {error.median():.1%}, worst {error.max():.1%}. ", end="")
    times = comparison.makespan_a_ps / 1e6, comparison.makespan_b_ps / 1e6
    print(f"Step: {times[0]:,.1f} us predicted, {times[1]:,.1f} us captured, {step:+.2%}.\n")


def starts(run: Results) -> None:
    """Print how far starts and ends of the run's operations are from the captured ones, and what came too late."""
    captured = pc.field("captured_start_ns").is_valid()
    known = run.read("activities", ["start_ps", "captured_start_ns"], captured)
    start_ps, captured_ns = (known[name].to_numpy() for name in known.column_names)
    late_ps = abs(start_ps - (captured_ns - captured_ns.min()) * 1000).max()
    violations = run.summary["causality_violations"]
    print(f"`timed`: {known.num_rows:,} starts, the largest difference {late_ps} ps; {violations} ", end="")
    print("waits ended in the capture before replay's arrival.\n")


def polls(name: str) -> None:
    """Print a fused kernel's predicted flag reads beside those that the capture counted."""
    trace = Trace(ROOT / "sample_traces" / name / "trace.eidola")
    period = captured_period_ns(trace)
    counted = trace.read("waits", ["rank", "polls"]).to_pandas().groupby("rank")["polls"].sum()
    for rank, captured in counted.items():
        results = replay(trace, mode="target", targets=(rank,), fabric="ideal", wait=spin(period))
        predicted = results.read("gpus", ["flag_reads"])["flag_reads"][rank].as_py()
        row(name, rank, f"{period:,.0f}", f"{predicted:,}", f"{captured:,}", f"{predicted / captured:.2f}")


def main() -> None:
    """Print all tables."""
    traces = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "traces"
    kinetos, ets = (traces / kind / "v100_dlrm_8ranks" for kind in ("kineto", "execution_trace"))
    with tempfile.TemporaryDirectory() as scratch:
        if kinetos.is_dir():
            job = Path(scratch) / "job.eidola"
            kineto([kinetos], job, execution_traces=[ets])
            print("### DLRM step, 8 x V100\n")
            collectives(replay(job, fabric="dgx1-v100"))
            starts(replay(job, fabric="dgx1-v100", mode="timed"))
    print("### Fused GEMV + AllReduce, host backend: flag reads of one target\n")
    header("capture", "target", "poll period ns", "predicted reads", "counted reads", "ratio")
    for name in ("gemv_allreduce_host_2", "gemv_allreduce_host_4"):
        polls(name)


if __name__ == "__main__":
    main()

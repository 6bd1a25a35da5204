"""Captured against replayed: every multi-rank trace at its own size, as the tables of docs/validation.md.

    python docs/studies/captured.py [TRACES]

TRACES is a folder with the 8-rank V100 job (`kineto/v100_dlrm_8ranks`, `execution_trace/v100_dlrm_8ranks`), two
ranks of a 128-GPU job (`kineto/a100_2of128ranks`) and a 2-GPU Nsight Systems report
(`nsys/sm90_2gpu_training.sqlite`); without it, or where it is not there, only the captures in sample_traces/ are
replayed.
"""

import sys
import tempfile
from pathlib import Path

import pyarrow.compute as pc
from captured_kernels import poll_rows, wave_rows

from eidola.convert import auto, kineto
from eidola.replay import Comparison, compare, lower, replay
from eidola.replay.jitter import between, own_times, spread
from eidola.replay.presets import preset
from eidola.schemas import Results, Trace

ROOT = Path(__file__).resolve().parents[2]
HOST = ("gloo_ddp_2", "gloo_ddp_4", "gloo_fsdp_2")
"""Captures of collectives between processes of a host: truth for order and skew, never for a link's time."""
SEEDS = 100
MODEL_ERROR = ((2**16, 0.27), (2**24, 0.29), (2**63, 0.19))
"""90th percentiles of the error of collectives in one box (docs/validation.md), below each size."""


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
    header("operation", "predicted us", "captured us", "error", "skew predicted us", "skew captured us",
           "end's error us", "of which last start")  # fmt: skip
    for entry in frame.itertuples():
        times = [f"{ps / 1e6:,.1f}" for ps in (entry.a_ps, entry.b_ps)]
        skews = [f"{ps / 1e6:,.1f}" for ps in (entry.skew_a_ps, entry.skew_b_ps)]
        end = entry.end_a_ps - entry.end_b_ps
        ends = [f"{ps / 1e6:+,.1f}" for ps in (end, end + entry.difference_ps)]
        row(f"{entry.sequence} {entry.operation}", *times, f"{entry.a_against_b:+.1%}", *skews, *ends)
    error = frame["a_against_b"].abs()
    step = comparison.makespan_a_ps / comparison.makespan_b_ps - 1
    print(f"\nCollectives: median error {error.median():.1%}, worst {error.max():.1%}. ", end="")
    times = comparison.makespan_a_ps / 1e6, comparison.makespan_b_ps / 1e6
    print(f"Step: {times[0]:,.1f} us predicted, {times[1]:,.1f} us captured, {step:+.2%}.\n")


def end_errors(name: str, found: Comparison) -> None:
    """Print a row: errors of ends, by cause; own times and skews as medians, predicted and captured."""
    frame, step = found.collectives, found.makespan_a_ps - found.makespan_b_ps
    own = -frame["difference_ps"] / 1e6
    end = (frame["end_a_ps"] - frame["end_b_ps"]) / 1e6
    cells = [name, len(frame)]
    if len(frame):
        cells += [
            f"{us:,.0f}" for errors in (end, end - own) for us in (errors.abs().median(), errors.abs().max())
        ]
        columns = ("a_ps", "b_ps", "skew_a_ps", "skew_b_ps")
        cells += [f"{frame[column].median() / 1e6:,.0f}" for column in columns]
    cells += ["-"] * (10 - len(cells))
    row(*cells, f"{step / found.makespan_b_ps:+.2%}", f"{step / 1e6:+,.0f}", f"{own.sum():+,.0f}")


def intervals(path: Path, fabric: str) -> None:
    """Print between what the step and the collectives are predicted to lie, and how many captured ones do.

    The step: whole ranks' gaps drawn anew. A collective: its prediction and the model's own error, which decides.
    """
    trace = Trace(path)
    built = preset(fabric, len(trace.ranks()))
    program = lower(trace, built).program
    found = spread(program, built, SEEDS)
    low, high = (bound[0] / 1e6 for bound in found.interval())
    activities = program.activities
    known = activities["captured_start_ns"] >= 0
    ends = [(activities[f"captured_{end}_ns"] - program.epoch_ns) * 1000 * known for end in ("start", "end")]
    (captured, at), step = own_times(program, *ends), ends[1].max() / 1e6
    bounds = between(found.end_ps)
    held = int(((bounds[0] <= at) & (at <= bounds[1])).sum())
    inside = 0
    for collective, predicted, took in zip(program.collectives, found.own_ps[0], captured, strict=True):
        part = next(error for size, error in MODEL_ERROR if collective.size_bytes < size)
        inside += bool(predicted * (1 - part) <= took <= predicted * (1 + part))
    print(
        f"Step over {SEEDS} seeds, 90 % of them: {low:,.1f} to {high:,.1f} us; captured {step:,.1f} us. ",
        end="",
    )
    print(f"Ends of collectives inside theirs: {held} of {len(at)}. ", end="")
    print(f"Collectives' own times within the model's own error: {inside} of {len(captured)}.\n")


def starts(run: Results) -> None:
    """Print how far starts and ends of the run's operations are from the captured ones, and what came too late."""
    captured = pc.field("captured_start_ns").is_valid()
    known = run.read("activities", ["start_ps", "captured_start_ns"], captured)
    start_ps, captured_ns = (known[name].to_numpy() for name in known.column_names)
    late_ps = abs(start_ps - (captured_ns - captured_ns.min()) * 1000).max()
    violations = run.summary["causality_violations"]
    print(f"`timed`: {known.num_rows:,} starts, the largest difference {late_ps} ps; {violations} ", end="")
    print("waits ended in the capture before replay's arrival.\n")


def partial(traces: Path, scratch: Path) -> None:
    """Print rows of traces whose collectives a replay cannot be held to: ranks or sizes are missing."""
    few = traces / "kineto" / "a100_2of128ranks"
    report = traces / "nsys" / "sm90_2gpu_training.sqlite"
    for source, options in (
        (few, {"fabric": "hgx-a100", "gpus": 128, "fill": True}),
        (report, {"fabric": "hgx-h100"}),
    ):
        if source.exists():
            auto([source], scratch / f"{source.name}.eidola")
            run = replay(scratch / f"{source.name}.eidola", **options)
            end_errors(source.name, compare(run, "captured"))


def main() -> None:
    """Print all tables."""
    traces = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "traces"
    kinetos, ets = (traces / kind / "v100_dlrm_8ranks" for kind in ("kineto", "execution_trace"))
    names = ("capture", "collectives", "end: median error us", "worst", "of which last start: median", "worst",
             "median own time predicted us", "captured", "median skew predicted us", "captured", "step",
             "step us", "sum of own times' errors us")  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        if kinetos.is_dir():
            job = Path(scratch) / "job.eidola"
            kineto([kinetos], job, execution_traces=[ets])
            print("### DLRM step, 8 x V100\n")
            collectives(replay(job, fabric="dgx1-v100"))
            intervals(job, "dgx1-v100")
            starts(replay(job, fabric="dgx1-v100", mode="timed"))
        print("### Ends, by cause\n")
        header(*names)
        if kinetos.is_dir():
            end_errors("v100_dlrm_8ranks", compare(replay(job, fabric="dgx1-v100"), "captured"))
        for name in HOST:
            run = replay(ROOT / "sample_traces" / name / "trace.eidola", fabric="ideal")
            end_errors(name, compare(run, "captured"))
        partial(traces, Path(scratch))
    print("\n### Fused kernels, host backend: flag waves, dependent on `ideal`\n")
    header("capture", "waves", "end: median error us", "worst", "seen late in the capture, worst us",
           "error if seen at once: median us", "worst", "ends of launches: error us", "their lengths us",
           "step")  # fmt: skip
    for made in wave_rows():
        row(*made)
    print("\n### Fused kernels, host backend: flag reads of one target\n")
    header("capture", "target", "poll period ns", "predicted reads", "counted reads", "ratio")
    for made in poll_rows():
        row(*made)


if __name__ == "__main__":
    main()

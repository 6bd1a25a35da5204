"""Durations of a pipeline's passes, measured in a trace: kernels launched in annotated micro-batches.

PyTorch's pipelines annotate them `Forward 3` and `Backward 3` (torch.distributed.pipelining); `Weight 3` is taken
likewise. A pass lasts as long as its kernels together, collectives and gaps left out: what waits is the schedule's.
"""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..schemas import Trace, UsageError
from .lowering.axes import find_axes
from .lowering.plan import make_plan
from .schedules import Pipeline

_PASS = re.compile(r"(forward|backward|weight)[ _#]*\d+", re.IGNORECASE)


@dataclass(frozen=True)
class Passes:
    """Mean durations in ns a stage and micro-batch; `micro_batches` a step; bytes between stages, or 0."""

    forward_ns: tuple[int, ...]
    backward_ns: tuple[int, ...]
    weight_ns: tuple[int, ...]
    micro_batches: int
    activation_bytes: int

    def spread(self, stages: int) -> "Passes":
        """Return the same model on another number of stages: its layers, and so its time, in equal parts."""
        if stages == len(self.forward_ns):
            return self
        parts = [
            tuple(sum(times) // stages for _ in range(stages)) if times else ()
            for times in (self.forward_ns, self.backward_ns, self.weight_ns)
        ]
        return Passes(parts[0], parts[1], parts[2], self.micro_batches, self.activation_bytes)


def measure(trace: Trace) -> Passes:
    """Return the passes of a captured pipeline, a rank a stage.

    Raises UsageError, saying what is missing, where the trace has no annotated micro-batches, or its ranks are no
    pipeline.
    """
    ranks = trace.ranks()
    _check_stages(trace, ranks)
    kinds: dict[str, list[int]] = {"forward": [], "backward": [], "weight": []}
    count = 0
    for rank in ranks:
        found, count = _of_rank(trace, rank)
        for kind, times in kinds.items():
            if kind in found:
                times.append(found[kind])
    for kind in ("forward", "backward"):
        if len(kinds[kind]) < len(ranks):
            raise UsageError(
                f"{trace.path}: not every rank has kernels launched in annotations like `{kind.title()} 3`, so how "
                f"long a micro-batch's {kind} pass takes is not known; give it with --{kind}-ns, or capture it"
            )
    weight = tuple(kinds["weight"]) if len(kinds["weight"]) == len(ranks) else ()
    sent = trace.read("collectives", ["operation", "size_bytes"]).to_pylist()
    sizes = [row["size_bytes"] for row in sent if row["operation"] == "send" and row["size_bytes"]]
    return Passes(tuple(kinds["forward"]), tuple(kinds["backward"]), weight, count, max(sizes, default=0))


def make_pipeline(
    trace: Trace | str | Path,
    schedule: str,
    *,
    stages: int | None = None,
    micro_batches: int | None = None,
    chunks: int | None = None,
    forward_ns: int | None = None,
    backward_ns: int | None = None,
    weight_ns: int | None = None,
    activation_bytes: int | None = None,
) -> tuple[Pipeline, list[str]]:
    """Return a pipeline of `stages` for `write_schedule`, and in sentences where its numbers are from.

    What is not given is measured in `trace`: durations a stage and micro-batch, bytes between stages. Raises
    UsageError for what neither says.
    """
    source = trace if isinstance(trace, Trace) else Trace(trace)
    if forward_ns is not None and backward_ns is not None:
        if stages is None or micro_batches is None or activation_bytes is None:
            raise UsageError(
                "with --forward-ns and --backward-ns give --pipeline-parallel, --micro-batches, --activation-bytes"
            )
        weight = () if weight_ns is None else (weight_ns,) * stages
        found = Passes(
            (forward_ns,) * stages, (backward_ns,) * stages, weight, micro_batches, activation_bytes
        )
        told = ["durations of passes and bytes between stages as given"]
    elif (forward_ns, backward_ns, weight_ns) != (None, None, None):
        raise UsageError("give both --forward-ns and --backward-ns (with zb-h1 also --weight-ns), or none")
    else:
        measured = measure(source)
        captured = len(measured.forward_ns)
        found = measured.spread(stages or captured)
        told = [f"durations of passes are means over the micro-batches of {captured} captured stages"]
        if len(found.forward_ns) != captured:
            told.append(f"{captured} stages on {stages}: the model's time split into equal parts")
    size = found.activation_bytes if activation_bytes is None else activation_bytes
    if activation_bytes is None and not size and len(found.forward_ns) > 1:
        raise UsageError(f"{source.path}: no send of a known size between stages; give --activation-bytes")
    backward, weight = found.backward_ns, found.weight_ns
    if schedule == "zb-h1" and not weight:
        raise UsageError(
            f"{source.path}: zb-h1 needs the weight gradients' part of the backward pass, and the trace has no "
            "annotations like `Weight 3`; give --forward-ns, --backward-ns (without it) and --weight-ns"
        )
    if schedule != "zb-h1" and weight:
        backward, weight = tuple(b + w for b, w in zip(backward, weight, strict=True)), ()
    made = Pipeline(
        schedule, micro_batches or found.micro_batches, found.forward_ns, backward, weight, size, chunks or 1
    )
    return made, told


def _check_stages(trace: Trace, ranks: list[int]) -> None:
    if len(ranks) == 1:
        return
    operations: dict[str, set[str]] = {}
    for row in trace.read("collectives", ["communicator", "operation"]).to_pylist():
        operations.setdefault(row["communicator"], set()).add(row["operation"])
    plan = make_plan(trace)
    pairs = {op for found in operations.values() for op in found} <= {"send", "recv", "barrier"}
    axes = find_axes(plan.groups, len(plan.job), operations, None, ["pipeline"] if pairs else ["data"])
    others = [f"{digit.axis} {digit.size}" for digit in axes.digits if digit.axis != "pipeline"]
    if others or not axes.digits:
        raise UsageError(
            f"{trace.path}: its ranks are {', '.join(others) or 'in no group'}, and a schedule is made for a GPU a "
            "stage; take the durations of a stage's passes from it, and give them by --forward-ns, --backward-ns"
        )


def _of_rank(trace: Trace, rank: int) -> tuple[dict[str, int], int]:
    """Return the mean duration of each kind of pass, and how many forward passes there are."""
    spans = trace.read("spans", ["span", "kind", "name", "launch_ns", "start_ns", "end_ns"], [rank])
    rows = spans.to_pylist()
    skipped = set(trace.read("collectives", ["span"], [rank])["span"].to_pylist())
    windows = sorted(
        (row["start_ns"], row["end_ns"], match[1].lower())
        for row in rows
        if row["kind"] == "annotation" and (match := _PASS.fullmatch(row["name"]))
    )
    launched = _launches(trace, rank, {row["span"]: row["start_ns"] for row in rows})
    starts, total = [start for start, *_ in windows], dict[str, int]()
    for row in rows:
        if row["kind"] not in ("kernel", "copy") or row["span"] in skipped:
            continue
        launch = row["launch_ns"]
        time = launched.get(row["span"], row["start_ns"]) if launch is None else launch
        at = bisect_right(starts, time) - 1
        if at >= 0 and time <= windows[at][1]:
            kind = windows[at][2]
            total[kind] = total.get(kind, 0) + row["end_ns"] - row["start_ns"]
    number = {kind: sum(window[2] == kind for window in windows) for kind in total}
    return {kind: time // number[kind] for kind, time in total.items()}, number.get("forward", 0)


def _launches(trace: Trace, rank: int, starts: dict[int, int]) -> dict[int, int]:
    edges: Sequence[dict[str, object]] = trace.read(
        "dependencies", ["before", "after", "kind"], [rank]
    ).to_pylist()
    found: dict[int, int] = {}
    for edge in edges:
        before, after = edge["before"], edge["after"]
        if (
            edge["kind"] == "launch"
            and isinstance(before, int)
            and isinstance(after, int)
            and before in starts
        ):
            found[after] = starts[before]
    return found

"""Pipeline schedules: the order of forward, backward and weight passes a stage, and the trace of such a pipeline.

Schedules and their bubbles (p stages, m micro-batches, equal stages, communication free):

- `gpipe`: all forwards, then all backwards; (p - 1)(F + B). Huang et al., "GPipe", 2019.
- `1f1b`: p - stage forwards, then one backward, one forward; the same bubble, less memory. Narayanan et al.,
  "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", 2021.
- `interleaved`: v chunks of layers a stage; (p - 1)(F + B) / v. The same paper.
- `zb-h1`: backward split into input (B) and weight (W) gradients, W filling the bubble; (p - 1)(F + B - W).
  Qi et al., "Zero Bubble Pipeline Parallelism", 2024.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..schemas import Trace, TraceWriter, UsageError

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zb-h1")


class Task(NamedTuple):
    """One pass of one micro-batch through one chunk of a stage; kind: forward, backward, weight."""

    kind: str
    micro_batch: int
    chunk: int = 0


@dataclass(frozen=True)
class Pipeline:
    """A pipeline to write: durations a stage and micro-batch in ns (all its chunks together), sizes in bytes.

    `backward_ns` holds the weight gradients too, except with `zb-h1`, which runs them for `weight_ns`.
    """

    schedule: str
    micro_batches: int
    forward_ns: tuple[int, ...]
    backward_ns: tuple[int, ...]
    weight_ns: tuple[int, ...] = ()
    activation_bytes: int = 0
    chunks: int = 1

    def __post_init__(self) -> None:
        stages = len(self.forward_ns)
        if self.schedule not in SCHEDULES:
            raise UsageError(f"--schedule {self.schedule}: choose {', '.join(SCHEDULES)}")
        if min(stages, self.micro_batches, self.chunks) < 1:
            raise UsageError("a pipeline has at least one stage, one micro-batch and one chunk a stage")
        if len(self.backward_ns) != stages or len(self.weight_ns) not in (0, stages):
            raise UsageError(f"durations of {stages} forward stages, but not as many of backward or weight")
        if (self.schedule == "zb-h1") != bool(self.weight_ns):
            raise UsageError(
                "zb-h1 runs the weight gradients apart, and the other schedules with the backward pass: give their "
                "duration with zb-h1 (--weight-ns), and only then"
            )
        if (self.schedule == "interleaved") != (self.chunks > 1):
            raise UsageError("interleaved has at least 2 chunks a stage (--chunks), the other schedules 1")
        if self.schedule == "interleaved" and self.micro_batches % stages:
            raise UsageError(
                f"interleaved runs rounds of {stages} micro-batches; {self.micro_batches} is no multiple"
            )
        if min((*self.forward_ns, *self.backward_ns, *self.weight_ns, self.activation_bytes)) < 0:
            raise UsageError("durations and sizes of a pipeline are 0 or more")

    @property
    def stages(self) -> int:
        """Number of stages, one GPU each."""
        return len(self.forward_ns)

    def duration_ns(self, stage: int, kind: str) -> int:
        """Return how long one pass of one chunk takes."""
        whole = {"forward": self.forward_ns, "backward": self.backward_ns, "weight": self.weight_ns}[kind]
        return whole[stage] // self.chunks


def order(pipeline: Pipeline, stage: int) -> list[Task]:
    """Return what a stage runs, in order."""
    p, m, v = pipeline.stages, pipeline.micro_batches, pipeline.chunks
    if pipeline.schedule == "gpipe":
        return [Task(kind, i) for kind in ("forward", "backward") for i in range(m)]
    if pipeline.schedule == "interleaved":
        forward, backward = _rounds(p, m, v), _rounds(p, m, v, backward=True)
        return list(_alternate(forward, backward, min(m * v, 2 * (p - stage - 1) + (v - 1) * p)))
    forward, backward = ([Task(kind, i) for i in range(m)] for kind in ("forward", "backward"))
    tasks = list(_alternate(forward, backward, min(m, p - stage - 1)))
    return list(_with_weights(tasks, stage)) if pipeline.schedule == "zb-h1" else tasks


def _rounds(p: int, m: int, v: int, backward: bool = False) -> list[Task]:
    """Return passes in rounds: p micro-batches through a chunk, the same ones through the next, p others then."""
    kind, chunks = ("backward", range(v - 1, -1, -1)) if backward else ("forward", range(v))
    return [Task(kind, first + i, chunk) for first in range(0, m, p) for chunk in chunks for i in range(p)]


def _alternate(forward: list[Task], backward: list[Task], warm: int) -> Iterator[Task]:
    """Yield `warm` forwards, then one forward and one backward in turn, then the backwards that are left."""
    yield from forward[:warm]
    for i, task in enumerate(backward):
        yield from forward[warm + i : warm + i + 1]
        yield task


def _with_weights(tasks: list[Task], lag: int) -> Iterator[Task]:
    """Yield the weight pass of each micro-batch `lag` backwards after its own, all that are left at the end."""
    done = 0
    for task in tasks:
        yield task
        if task.kind == "backward":
            done += 1
            if done > lag:
                yield Task("weight", done - 1 - lag)
    for i in range(max(0, done - lag), done):
        yield Task("weight", i)


@dataclass
class _Ideal:
    """Start and end of every pass where communication is free: the times that the trace holds."""

    pipeline: Pipeline
    orders: list[list[Task]]
    ends: dict[tuple[int, Task], int] = field(default_factory=dict)
    starts: dict[tuple[int, Task], int] = field(default_factory=dict)

    def run(self) -> None:
        """Fill `starts` and `ends`. Each pass starts when its stage is free and its predecessor is done."""
        at, free = [0] * len(self.orders), [0] * len(self.orders)
        moved = True
        while moved:
            moved = False
            for stage, tasks in enumerate(self.orders):
                while at[stage] < len(tasks):
                    task = tasks[at[stage]]
                    needs = needed(self.pipeline, stage, task)
                    if needs and needs not in self.ends:
                        break
                    start = max(free[stage], self.ends[needs] if needs else 0)
                    free[stage] = start + self.pipeline.duration_ns(stage, task.kind)
                    self.starts[stage, task], self.ends[stage, task] = start, free[stage]
                    at[stage] += 1
                    moved = True


def needed(pipeline: Pipeline, stage: int, task: Task) -> tuple[int, Task] | None:
    """Return the (stage, task) whose output a pass needs, None for the first forward pass."""
    last = pipeline.stages - 1, pipeline.chunks - 1
    kind, i, chunk = task
    if kind == "weight":
        return stage, Task("backward", i, chunk)
    if kind == "backward" and (stage, chunk) == last:
        return stage, Task("forward", i, chunk)
    step = -1 if kind == "forward" else 1
    at = chunk * pipeline.stages + stage + step
    if at < 0:
        return None
    return at % pipeline.stages, Task(kind, i, at // pipeline.stages)


def write_schedule(
    pipeline: Pipeline,
    output: str | Path,
    *,
    notes: Sequence[str] = (),
    overwrite: bool = False,
    command: str | None = None,
) -> Trace:
    """Write the trace `output` of one pipeline, a rank a stage: passes as kernels, messages between them.

    Times are those of free communication; replay waits for the messages. `notes` say where durations are from.
    Raises UsageError where `output` is taken.
    """
    ideal = _Ideal(pipeline, [order(pipeline, stage) for stage in range(pipeline.stages)])
    ideal.run()
    with TraceWriter(output, overwrite=overwrite) as writer:
        for stage in range(pipeline.stages):
            rows = _Stage(pipeline, stage, ideal)
            rows.add()
            writer.write("ranks", stage, {"backend": ["virtual"]})
            member = {"communicator": ["pipeline"], "group_rank": [stage], "group_size": [pipeline.stages]}
            writer.write("communicators", stage, {**member, "name": ["pipeline parallel"]})
            for name, table in (
                ("spans", rows.spans),
                ("dependencies", rows.edges),
                ("collectives", rows.parts),
            ):
                columns = {key: [row[key] for row in table] for key in (table[0] if table else {})}
                if columns:
                    writer.write(name, stage, columns)
        writer.notes = {
            "source": "eidola replay scale --schedule",
            "pipeline": pipeline.__dict__,
            "extrapolated": [
                *notes,
                f"{pipeline.schedule}: {pipeline.stages} stages, {pipeline.micro_batches} micro-batches, "
                f"{pipeline.chunks} chunks a stage; passes in the schedule's order, each a kernel",
            ],
            "command": command,
            "truth": "the schedule's order; durations as `extrapolated` says",
        }
    return Trace(output)


@dataclass
class _Stage:
    """Rows of one stage. A receive is posted once the one before it is done; a send when its pass is."""

    pipeline: Pipeline
    stage: int
    ideal: _Ideal
    spans: list[dict[str, object]] = field(default_factory=list)
    edges: list[dict[str, object]] = field(default_factory=list)
    parts: list[dict[str, object]] = field(default_factory=list)
    _number: dict[Task, int] = field(default_factory=dict)

    def add(self) -> None:
        """Add passes, then what they send, then what they receive."""
        ideal, stage = self.ideal, self.stage
        for task in ideal.orders[stage]:
            times = ideal.starts[stage, task], ideal.ends[stage, task]
            chunk = f" chunk {task.chunk}" if self.pipeline.chunks > 1 else ""
            self._number[task] = self._span("stream 7", f"{task.kind}{chunk}", *times)
        for peer, other in enumerate(ideal.orders):
            for task in other:
                needs = needed(self.pipeline, peer, task)
                if needs and needs[0] == stage and peer != stage:
                    self._send(peer, task, needs[1])
        self._receive_all()

    def _send(self, peer: int, task: Task, done: Task) -> None:
        time = self.ideal.ends[self.stage, done]
        span = self._span(f"send {task.kind} to {peer}", "send", time, time)
        self._edge(self._number[done], span)
        self._part(span, "send", peer, task, time, time)

    def _receive_all(self) -> None:
        """Post receives in the order in which each peer sends."""
        found = []
        for task in self.ideal.orders[self.stage]:
            needs = needed(self.pipeline, self.stage, task)
            if needs and needs[0] != self.stage:
                found.append((self.ideal.ends[needs], needs[0], task))
        free: dict[tuple[str, int], int] = {}
        for arrival, peer, task in sorted(found):
            start = free.get((task.kind, peer), 0)
            free[task.kind, peer] = arrival
            span = self._span(f"receive {task.kind} from {peer}", "recv", start, arrival)
            self._edge(span, self._number[task])
            self._part(span, "recv", peer, task, start, arrival)

    def _span(self, lane: str, name: str, start_ns: int, end_ns: int) -> int:
        row = {"span": len(self.spans), "lane": lane, "kind": "kernel", "name": name}
        self.spans.append({**row, "start_ns": start_ns, "end_ns": end_ns})
        return len(self.spans) - 1

    def _edge(self, before: int, after: int) -> None:
        self.edges.append({"before": before, "after": after, "kind": "event", "origin": "inferred"})

    def _part(self, span: int, operation: str, peer: int, task: Task, start_ns: int, end_ns: int) -> None:
        """Add an operation, numbered by kind, micro-batch and chunk, alike at both ends."""
        m, v = self.pipeline.micro_batches, self.pipeline.chunks
        sequence = ((task.kind == "backward") * m + task.micro_batch) * v + task.chunk
        self.parts.append(
            {
                "span": span,
                "communicator": "pipeline",
                "sequence": sequence,
                "operation": operation,
                "size_bytes": self.pipeline.activation_bytes,
                "peer": peer,
                "start_ns": start_ns,
                "end_ns": end_ns,
            }
        )

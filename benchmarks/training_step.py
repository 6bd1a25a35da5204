"""One training step of 4,608 GPUs, 64 racks of NVL72: `training_step.py [REPLICAS [MICRO_BATCHES [LAYERS]]]`.

Tensor parallel in groups of 8, a pipeline of 8 stages (1F1B), data parallel over all `REPLICAS` (72) pipelines;
each stage has `LAYERS` (6) layers, each pipeline takes `MICRO_BATCHES` (8). A layer does two all-reduces of its
tensor group forward and two backward; behind the last backward pass of a layer its gradients are reduce-scattered
over the replicas, beside what else goes on; at last parameters are gathered. Algorithm, protocol, channels and
chunks are those that NCCL's model chooses. Replicas are alike, so one is expanded, as one data-parallel group is,
and stamped out. Nothing is folded: the engine moves every message of every GPU, each as one segment.

Prints JSON: messages, collectives of a GPU at the pipeline's ends (others send and receive more), seconds to build
and to run, messages a second, peak MiB.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from figure import Figure, measure

from eidola.replay.builder import Builder
from eidola.replay.collectives import Call, Operation, expand, tuning
from eidola.replay.fabric import Fabric
from eidola.replay.presets import preset
from eidola.replay.program import Program, compute, wait, write
from eidola.replay.run import run

HIDDEN, TOKENS, ELEMENT_BYTES = 8192, 4096, 2  # 48 layers of this are a model of 39 billion parameters
FLOP_PER_PS = 1000  # what a kernel is assumed to reach: 1 PFLOP/s
Ints = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Shape:
    """How the GPUs are shared out: GPU = tensor rank + `tensor` * (replica + `replicas` * stage)."""

    replicas: int = 72
    micro_batches: int = 8
    layers: int = 6
    tensor: int = 8
    stages: int = 8

    @property
    def gpus(self) -> int:
        return self.tensor * self.replicas * self.stages

    def gpu(self, tensor: int, replica: int, stage: int) -> int:
        return tensor + self.tensor * (replica + self.replicas * stage)

    @property
    def half_ps(self) -> int:
        """How long half a layer (attention, or MLP) takes forward: 6 parameters of 12, two operations a token."""
        return 12 * HIDDEN**2 * TOKENS // self.tensor // FLOP_PER_PS

    def passes(self, stage: int) -> Iterator[tuple[bool, int]]:
        """Yield (forward, micro-batch) in the order of 1F1B."""
        ahead = min(self.micro_batches, self.stages - 1 - stage)
        yield from ((True, m) for m in range(ahead))
        for m in range(self.micro_batches):
            if m + ahead < self.micro_batches:
                yield True, m + ahead
            yield False, m


class Pipeline:
    """The first replica's pipeline, expanded. Slot 0 counts the layers whose gradients are ready."""

    def __init__(self, fabric: Fabric, shape: Shape) -> None:
        self.fabric, self.shape, self.builder = fabric, shape, Builder(fabric.gpus)
        self.builder.flags(np.arange(fabric.gpus))
        crossings = product((True, False), range(1, shape.stages), range(shape.micro_batches))
        self.sent = {key: self.sends(*key) for key in crossings}  # first: they take slots of two stages alike
        for stage in range(shape.stages):
            self.members = [shape.gpu(t, 0, stage) for t in range(shape.tensor)]
            self.streams = [self.builder.agent(gpu, "stream") for gpu in self.members]
            for forward, micro_batch in shape.passes(stage):
                self.one_pass(stage, forward, micro_batch)

    def one_pass(self, stage: int, forward: bool, micro_batch: int) -> None:
        """Receive, compute and reduce layer by layer, send."""
        upper, lower = stage + 1, stage  # boundaries by the stage below them
        source, sink = (lower, upper) if forward else (upper, lower)
        self.cross(source, forward, micro_batch, sends=False)
        busy = self.builder.block([compute(self.shape.half_ps * (1 if forward else 2))])
        done = self.builder.block([write(0, 0, 0, relative=True)])
        everyone = self.builder.group(self.members)
        for _ in range(self.shape.layers):
            for _ in range(2):
                self.emit([[{"block": busy}] for _ in self.members])
                self.emit(self.all_reduce())
            if not forward and micro_batch == self.shape.micro_batches - 1:
                at = range(self.shape.tensor)
                self.emit([[{"block": done, "group": everyone, "position": p}] for p in at])
        self.cross(sink, forward, micro_batch, sends=True)

    def all_reduce(self) -> list[list[Call]]:
        operation = Operation("all_reduce", TOKENS * HIDDEN * ELEMENT_BYTES, element_bytes=ELEMENT_BYTES)
        how = tuning(self.fabric, operation, self.members)
        return expand(self.builder, self.fabric, self.members, operation, how, "tensor").calls

    def cross(self, boundary: int, forward: bool, micro_batch: int, *, sends: bool) -> None:
        """Send or receive activations, or their gradients, over the boundary above stage `boundary` - 1."""
        if not 0 < boundary < self.shape.stages:
            return
        self.emit([calls[0 if sends else 1] for calls in self.sent[forward, boundary, micro_batch]])

    def sends(self, forward: bool, boundary: int, _micro_batch: int) -> list[list[list[Call]]]:
        """Return each tensor rank's send: the calls of the sender and of the receiver."""
        operation = Operation("send", TOKENS * HIDDEN * ELEMENT_BYTES // self.shape.tensor)
        found = []
        for t in range(self.shape.tensor):
            pair = [self.shape.gpu(t, 0, boundary - 1), self.shape.gpu(t, 0, boundary)]
            pair = pair if forward else pair[::-1]
            how = tuning(self.fabric, operation, pair)
            found.append(expand(self.builder, self.fabric, pair, operation, how).calls)
        return found

    def emit(self, calls: Sequence[Sequence[Call]]) -> None:
        for agent, own in zip(self.streams, calls, strict=True):
            for call in own:
                self.builder.call(agent, **call)


def data_parallel(fabric: Fabric, shape: Shape, ready: Sequence[int], first_slot: int) -> Program:
    """Expand the data-parallel group of the first tensor rank and stage; `ready` is each replica's slot."""
    builder = Builder(fabric.gpus)
    builder.flags(np.arange(fabric.gpus), first_slot)
    members = [shape.gpu(0, replica, 0) for replica in range(shape.replicas)]
    streams = [builder.agent(gpu, "data parallel") for gpu in members]
    layer_bytes = 12 * HIDDEN**2 * ELEMENT_BYTES // shape.tensor

    def reduce_or_gather(name: str, size_bytes: int) -> None:
        operation = Operation(name, size_bytes, element_bytes=ELEMENT_BYTES)
        how = tuning(fabric, operation, members)
        calls = expand(builder, fabric, members, operation, how, "data").calls
        for agent, own in zip(streams, calls, strict=True):
            for call in own:
                builder.call(agent, **call)

    for layer in range(shape.layers):
        block = builder.block([wait(0, layer + 1)])
        for agent, slot in zip(streams, ready, strict=True):
            builder.call(agent, block, flag_offset=slot)
        reduce_or_gather("reduce_scatter", layer_bytes)
    for _ in range(shape.layers):
        reduce_or_gather("all_gather", layer_bytes // shape.replicas)
    return builder.build()


@dataclass(frozen=True)
class Stamp:
    """A program, and its copies: (copies, endpoints) where each endpoint goes, and by how much slots shift."""

    program: Program
    moved: Ints
    slots: Ints


def stamped(stamps: Sequence[Stamp], flags: Ints, gpus: int) -> Program:
    """Return all copies as one program. Every write must be relative to its group; activities are left out."""
    agents = [s.moved[:, s.program.agent_endpoint].ravel() for s in stamps]
    calls, group_sizes, members = [], [], []
    base = {"agent": 0, "block": 0, "group": 0}
    for stamp in stamps:
        program, copy = stamp.program, np.arange(len(stamp.moved))[:, None]
        own, groups = program.calls, len(program.group_first) - 1
        moved = {
            "agent": own["agent"] + base["agent"] + copy * program.agents,
            "block": own["block"] + base["block"] + 0 * copy,
            "repeat": own["repeat"] + 0 * copy,
            "group": np.where(own["group"] < 0, -1, own["group"] + base["group"] + copy * groups),
            "position": own["position"] + 0 * copy,
            "flag_offset": own["flag_offset"] + stamp.slots[:, None],
            "activity": np.full_like(own["activity"], -1) + 0 * copy,
        }
        calls.append({c: v.ravel().astype(own[c].dtype) for c, v in moved.items()})
        group_sizes.append(np.tile(np.diff(program.group_first), len(copy)))
        members.append(stamp.moved[:, program.members].ravel())
        base["agent"] += program.agents * len(copy)
        base["block"] += len(program.block_first) - 1
        base["group"] += groups * len(copy)
    programs = [s.program for s in stamps]
    sizes = np.concatenate([np.diff(p.block_first) for p in programs])
    endpoint = np.concatenate(agents).astype(np.int32)
    return Program(
        endpoints=len(flags),
        agent_endpoint=endpoint,
        agent_name=np.zeros_like(endpoint),
        calls={c: np.concatenate([table[c] for table in calls]) for c in calls[0]},
        block_first=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        ops={c: np.concatenate([p.ops[c] for p in programs]) for c in programs[0].ops},
        group_first=np.concatenate(([0], np.cumsum(np.concatenate(group_sizes)))).astype(np.int64),
        members=np.concatenate(members).astype(np.int32),
        flags=flags,
        activities={c: v[:0] for c, v in programs[0].activities.items()},
        names=("training step",),
        switches=len(flags) - gpus,
    )


def training_step(fabric: Fabric, shape: Shape) -> tuple[Program, int]:
    """Return the step of all GPUs, and in how many collectives a GPU of the first or last stage takes part.

    Pipelines whose GPUs share a switch get slots of their own there, and so at the GPUs.
    """
    pipeline = Pipeline(fabric, shape)
    replica = pipeline.builder.build()
    used = int(replica.flags.max())
    every = np.arange(fabric.endpoints)
    copies = np.arange(shape.replicas)
    moved = np.where(every < fabric.gpus, every, 0) + shape.tensor * copies[:, None]
    for stage, copy in product(range(shape.stages), range(shape.replicas)):
        here, there = (fabric.switches(shape.gpu(0, c, stage), direct=True)[0] for c in (0, copy))
        moved[copy, here] = there
    boxes = fabric.box[[shape.gpu(0, int(copy), 0) for copy in copies]]
    shift = used * (copies - np.searchsorted(boxes, boxes))
    last = used + int(shift.max())
    data = data_parallel(fabric, shape, shift.tolist(), last)
    at = np.array([shape.gpu(t, 0, s) for s in range(shape.stages) for t in range(shape.tensor)])
    program = stamped(
        [
            Stamp(replica, moved, shift),
            Stamp(data, every + at[:, None], np.zeros(len(at), np.int64)),
        ],
        np.full(fabric.endpoints, data.flags.max(), np.int32),
        fabric.gpus,
    )
    ends = 2 * shape.micro_batches
    return program, 4 * shape.layers * shape.micro_batches + ends + 2 * shape.layers


def figures() -> Iterator[Figure]:
    """Measure once: it takes minutes."""
    found = measure("training_step.py")
    title = (
        "training step of {gpus:,} GPUs, {collectives_a_gpu} collectives a GPU, {messages:,} messages".format(
            **found
        )
    )
    yield Figure(f"{title}: build", found["build_seconds"], "s")
    yield Figure(f"{title}: time", found["seconds"], "s")
    yield Figure(f"{title}: processor time", found["cpu_seconds"], "s")
    yield Figure(f"{title}: rate", found["messages_per_s"], "messages/s")
    yield Figure(f"{title}: peak memory of the process", found["peak_mib"], "MiB")


def main(replicas: int = 72, micro_batches: int = 8, layers: int = 6) -> None:
    run(*_tiny(), segment_bytes=0, record="none")  # compiles, or loads
    begin = time.perf_counter()
    shape = Shape(replicas, micro_batches, layers)
    fabric = preset("gb200-nvl72", shape.gpus)
    program, collectives = training_step(fabric, shape)
    built = time.perf_counter()
    cpu = time.process_time()
    outcome = run(program, fabric, segment_bytes=0, record="none", progress=_progress(program.messages))
    seconds, cpu = time.perf_counter() - built, time.process_time() - cpu
    figures = {
        "gpus": shape.gpus,
        "collectives_a_gpu": collectives,
        "messages": program.messages,
        "build_seconds": built - begin,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "messages_per_s": program.messages / seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "makespan_us": outcome.makespan_ps / 1e6,
    }
    print(json.dumps(figures))


def _progress(messages: int) -> Callable[[int, int], None]:
    begin, shown = time.process_time(), 0

    def show(landed: int, now_ps: int) -> None:
        nonlocal shown
        if landed >= shown + 20_000_000:
            shown, cpu = landed, time.process_time() - begin
            print(
                f"{landed / messages:.1%} of {messages:,}; {now_ps / 1e9:.1f} ms; {cpu:.0f} s CPU",
                file=sys.stderr,
            )

    return show


def _tiny() -> tuple[Program, Fabric]:
    builder = Builder(2)
    builder.call(builder.agent(0, "one"), builder.block([write(1, 1)]))
    return builder.build(), preset("star", 2)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

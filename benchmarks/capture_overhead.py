"""What a capture costs a training job: the light level a step, and spaced windows a run.

DistributedDataParallel on Gloo, 2 ranks, a step of about 10 ms of processor time on a quiet machine.

`light`: blocks of steps with the hooks on and off, in turn (on off, off on); a pair is two blocks that follow each
other, as the mean of both ranks. Off means that nothing is recorded and no step hook is there; the kernels of the
operators stay, and hand on at once. The first steps after a switch are not counted: a job switches once. Processor
time is that of the whole process. The interval is that of the median of the pairs, from their order alone (95 %,
binomial): it supposes no distribution.

`spaced`: a run of minutes with windows of CPU operators, whose start, slowdown, stop and save the capture times;
the dearest rank counts.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from figure import Figure

SETTLE, BLOCK, PAIRS, LAYERS, WIDTH, BATCH = 3, 10, 400, 6, 512, 64
LIGHT_S, SPACED_S = 110, 150
"""Longest that each part runs; without other work on the machine, the first ends before."""


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder) / "light", "light")
        ranks = [json.loads((Path(folder) / f"light/{rank}.json").read_text()) for rank in (0, 1)]
        yield from light(ranks)
        run(Path(folder) / "spaced", "spaced", "--detail", "spaced")
        capture = json.loads((Path(folder) / "spaced/raw/capture.json").read_text())
        yield from spaced(capture["cost"])


def run(folder: Path, what: str, *options: str) -> None:
    folder.mkdir()
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        __file__,
        what,
        str(folder),
    ]
    command = [
        str(Path(sys.executable).with_name("eidola")),
        "capture",
        "run",
        *options,
        "-o",
        f"{folder}/raw",
        "--",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *torchrun], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)


def light(ranks: Sequence[dict]) -> Iterator[Figure]:
    for what in ("processor", "wall"):
        on, off = (
            [statistics.mean(pair) for pair in zip(*(r[what][k] for r in ranks), strict=True)]
            for k in ("on", "off")
        )
        step_us = 1e6 * statistics.median(off)
        more = sorted(1e6 * (a - b) for a, b in zip(on, off, strict=True))
        half = math.ceil(0.98 * math.sqrt(len(more)))  # 1.96 standard deviations of a binomial of one half
        middle = len(more) // 2
        name = f"light capture, {what} time added to a step"
        yield Figure(name, statistics.median(more), "us", step_us, "the step")
        yield Figure(f"{name}, 95 % from", more[max(0, middle - half)], "us", step_us, "the step")
        yield Figure(f"{name}, 95 % to", more[min(len(more) - 1, middle + half)], "us", step_us, "the step")
    yield Figure("light capture, pairs of blocks", len(ranks[0]["wall"]["on"]), "pairs")
    yield Figure("light capture, records a step and rank", ranks[0]["records"], "records")
    yield Figure("light capture, processor time of a record", ranks[0]["record_us"], "us")
    yield Figure("light capture, time to attach", ranks[0]["attach_ms"], "ms")


def spaced(cost: dict) -> Iterator[Figure]:
    run_ms = cost["run_ns"] / 1e6
    yield Figure("spaced capture, windows", cost["windows"], "windows")
    parts = {part: cost[f"{part}_ns"] / 1e6 for part in ("open", "slowdown", "stop", "save")}
    for part, ms in parts.items():
        yield Figure(f"spaced capture, {part} of all windows", ms, "ms", run_ms, "the run")
    yield Figure("spaced capture, all that windows cost", sum(parts.values()), "ms", run_ms, "the run")


class Job:
    """The training job, which both parts run."""

    def __init__(self) -> None:
        import torch
        import torch.distributed as dist
        from torch import nn

        dist.init_process_group("gloo")
        layers = (layer for _ in range(LAYERS) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU()))
        self.model = nn.parallel.DistributedDataParallel(nn.Sequential(*layers), bucket_cap_mb=1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.batch = torch.randn(BATCH, WIDTH)
        self.began = time.monotonic()
        self.agreed = torch.zeros(1)

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        self.optimizer.step()

    def over(self, after_s: float) -> bool:
        """Whether the time is up on any rank: all ranks hear the same."""
        import torch.distributed as dist

        self.agreed.fill_(time.monotonic() - self.began > after_s)
        dist.all_reduce(self.agreed)
        return bool(self.agreed.item())


def light_job(folder: Path) -> None:
    import torch.distributed as dist

    from eidola.capture import attach

    job = Job()
    rank = attach.current()

    def switch(on: bool) -> None:
        rank._recorder.eidola_recorder_switch(int(on))
        rank._hook.remove()
        if on:
            rank._count_optimizer_steps()

    times = {what: {"on": [], "off": []} for what in ("processor", "wall")}
    for block in range(-4, 2 * PAIRS):
        if block % 2 == 0 and job.over(LIGHT_S):
            break
        on = bool((block + block // 2) % 2)  # on off, off on: neither is always first
        switch(on)
        before = rank._recorder.eidola_recorder_count()
        for _ in range(SETTLE):
            job.step()
        dist.barrier()
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(BLOCK):
            job.step()
        spent = {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}
        if on:
            records = (rank._recorder.eidola_recorder_count() - before) / (SETTLE + BLOCK)
        for what, seconds in spent.items() if block >= 0 else ():
            times[what]["on" if on else "off"].append(seconds / BLOCK)
    more = {"records": records, "record_us": record_us(switch), "attach_ms": rank.record["attach_ns"] / 1e6}
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(times | more))


def record_us(switch) -> float:
    """Return what a record costs: of many empty blocks, with and without."""
    import torch

    name = torch.profiler.record_function("x")
    cost = {}
    for on in (False, True):
        switch(on)
        processor = time.process_time()
        for _ in range(20_000):
            with name:
                pass
        cost[on] = time.process_time() - processor
    return (cost[True] - cost[False]) / 20_000 * 1e6


def spaced_job(_: Path) -> None:
    job = Job()
    while not job.over(SPACED_S):
        for _ in range(50):
            job.step()


if __name__ == "__main__":
    {"light": light_job, "spaced": spaced_job}[sys.argv[1]](Path(sys.argv[2]))

"""What the light level of a capture costs a training step: blocks of steps with the hooks on and off, in turn.

DistributedDataParallel on Gloo, 2 ranks. Off means that nothing is recorded and no step hook is there; the kernels
of the operators stay, and hand on at once. Processor time is that of the whole process. How much noise there was
shows in the middle half of the pairs of blocks.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figure import Figure

BLOCK, BLOCKS, WIDTH, BATCH = 10, 40, 640, 256


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        run = [str(Path(sys.executable).with_name("eidola")), "capture", "run", "-o", f"{folder}/raw", "--"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*run, *torchrun, __file__, folder], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr)
        ranks = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in (0, 1)]
    for what in ("processor", "wall"):
        pairs = [
            (on, off) for rank in ranks for on, off in zip(rank[what]["on"], rank[what]["off"], strict=True)
        ]
        more = [1e6 * (on - off) for on, off in pairs]
        step_us = 1e6 * statistics.median(off for _, off in pairs)
        low, _, high = statistics.quantiles(more, n=4)
        name = f"light capture, {what} time added to a step ({low:.0f} to {high:.0f} us)"
        yield Figure(name, statistics.median(more), "us", step_us, "the step")
    yield Figure("light capture, records a step and rank", ranks[0]["records"], "records")
    yield Figure("light capture, processor time of a record", ranks[0]["record_us"], "us")


def job(folder: Path) -> None:
    import torch
    import torch.distributed as dist
    from torch import nn

    from eidola.capture import attach

    dist.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(
        nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU()))),
        bucket_cap_mb=1,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = torch.randn(BATCH, WIDTH)
    rank = attach.current()

    def switch(on: bool) -> None:
        rank._recorder.eidola_recorder_switch(int(on))
        rank._hook.remove()
        if on:
            rank._count_optimizer_steps()

    times = {what: {"on": [], "off": []} for what in ("processor", "wall")}
    records = 0
    for block in range(-2, 2 * BLOCKS):
        on = bool((block + block // 2) % 2)  # on off, off on: neither is always first
        switch(on)
        before = rank._recorder.eidola_recorder_count()
        dist.barrier()
        processor, wall = time.process_time(), time.perf_counter()
        for _ in range(BLOCK):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
        if block >= 0:
            which = "on" if on else "off"
            times["processor"][which].append((time.process_time() - processor) / BLOCK)
            times["wall"][which].append((time.perf_counter() - wall) / BLOCK)
            if on:
                records = (rank._recorder.eidola_recorder_count() - before) / BLOCK
    name = torch.profiler.record_function("x")
    cost = {}
    for on in (False, True):
        switch(on)
        processor = time.process_time()
        for _ in range(20_000):
            with name:
                pass
        cost[on] = time.process_time() - processor
    result = times | {"records": records, "record_us": (cost[True] - cost[False]) / 20_000 * 1e6}
    (folder / f"{dist.get_rank()}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    job(Path(sys.argv[1]))

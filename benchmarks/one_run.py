"""One run in a process of its own: `one_run.py ring|all_to_all GPUS ENGINE none|messages|written`.

Prints JSON: messages, seconds after compilation (`written`: with result tables, Parquet and hash), seconds of
processor time, peak MiB.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from eidola.replay.builder import Builder
from eidola.replay.fabric import Fabric
from eidola.replay.outcome import Outcome
from eidola.replay.presets import preset
from eidola.replay.program import Program, wait, write
from eidola.replay.run import run
from eidola.schemas import ResultsWriter

MIB = 1 << 20


def ring(gpus: int) -> Program:
    """Ring all-reduce: 2 (N - 1) steps, each a write of 1 MiB to the next GPU and a wait for the one before."""
    builder = Builder(gpus)
    everyone, flag = builder.group(list(range(gpus))), builder.flags(np.arange(gpus))
    step = builder.block([write(1, MIB, flag, relative=True), wait(flag, 1, expected_step=1)])
    for gpu in range(gpus):
        builder.call(builder.agent(gpu, "ring"), step, 2 * (gpus - 1), group=everyone, position=gpu)
    return builder.build()


def all_to_all(gpus: int) -> Program:
    """All-to-all posted at once: 1 MiB to rank + 1, rank + 2, ..., then a wait for all."""
    builder = Builder(gpus)
    everyone, flag = builder.group(list(range(gpus))), builder.flags(np.arange(gpus))
    post = builder.block([write(1, MIB, flag, relative=True, peer_step=1)])
    end = builder.block([wait(flag, gpus - 1)])
    for gpu in range(gpus):
        agent = builder.agent(gpu, "all-to-all")
        builder.call(agent, post, gpus - 1, group=everyone, position=gpu)
        builder.call(agent, end)
    return builder.build()


def replay(program: Program, fabric: Fabric, engine: str, rows: str) -> Outcome:
    """Run, and write what `rows` asks for."""
    record = "none" if rows == "none" else "messages"
    outcome = run(program, fabric, engine=engine, segment_bytes=0, record=record)
    if rows == "written":
        with tempfile.TemporaryDirectory() as folder, ResultsWriter(Path(folder) / "run") as writer:
            outcome.write(writer)
            writer.manifest = {"results_hash": writer.results_hash()}
    return outcome


def main(kind: str, gpus: int, engine: str, rows: str) -> None:
    make = {"ring": ring, "all_to_all": all_to_all}[kind]
    replay(make(4), preset("star", 4), engine, rows)  # compiles, or loads, and imports
    program, fabric = make(gpus), preset("star", gpus)
    begin, begin_cpu = time.perf_counter(), time.process_time()
    outcome = replay(program, fabric, engine, rows)
    cpu_seconds = time.process_time() - begin_cpu
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "messages": program.messages,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "messages_per_s": program.messages / seconds,
                "peak_mib": peak,
                "makespan_us": outcome.makespan_ps / 1e6,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])

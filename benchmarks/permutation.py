"""4 KiB segments on a three-level fat-tree, each GPU sending 1 MiB to another: `permutation.py GPUS ENGINE`.

The permutation is drawn with a fixed seed; routes are static. A GPU is itself a port of the tree: no NIC, no PCIe.
Prints JSON: segment-hops (segments times the links that they cross), seconds after compilation, peak MiB.
"""

import json
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
from figure import REPEATS, Figure, measure, median

from eidola.replay.builder import Builder
from eidola.replay.fabric import Fabric
from eidola.replay.presets import preset
from eidola.replay.program import Program, wait, write
from eidola.replay.run import run

FLOW_BYTES, SEGMENT_BYTES = 1 << 20, 4096
CASES = {1024: 16, 128: 8}  # GPUs of a full tree, and the ports of its switches
REFERENCE = "the SimPy engine, 128 GPUs"


def figures() -> Iterator[Figure]:
    runs: dict[str, list[dict]] = {"compiled": [], "reference": []}
    for _ in range(REPEATS):
        runs["reference"].append(measure("permutation.py", 128, "reference"))
        runs["compiled"].append(measure("permutation.py", 1024, "compiled"))
    reference = median(runs["reference"], "hops_per_s")
    found = runs["compiled"]
    title = (
        f"permutation of 1 MiB, three-level tree of 1,024, 4 KiB segments, {found[0]['hops']:,} segment-hops"
    )
    yield Figure(f"{title}: time", median(found, "seconds"), "s")
    yield Figure(f"{title}: rate", median(found, "hops_per_s"), "segment-hops/s", reference, REFERENCE)
    yield Figure(f"{title}: peak memory of the process", median(found, "peak_mib"), "MiB")


def tree(gpus: int) -> Fabric:
    return preset("fat-tree-3", gpus, box="gpu", radix=CASES[gpus])


def partners(gpus: int) -> list[int]:
    """Return whom each GPU sends to: a permutation in which nobody sends to itself (a cycle through all)."""
    order = np.random.default_rng(0).permutation(gpus)
    to = np.empty(gpus, np.int64)
    to[order] = np.roll(order, -1)
    return [int(gpu) for gpu in to]


def permutation(gpus: int) -> Program:
    builder = Builder(gpus)
    flag = builder.flags(np.arange(gpus))
    for gpu, partner in enumerate(partners(gpus)):
        flow = builder.block([write(partner, FLOW_BYTES, flag), wait(flag, 1)])
        builder.call(builder.agent(gpu, "flow"), flow)
    return builder.build()


def main(gpus: int, engine: str) -> None:
    run(
        permutation(128), tree(128), engine="compiled", segment_bytes=SEGMENT_BYTES, record="none"
    )  # compiles
    program, fabric = permutation(gpus), tree(gpus)
    links = sum(len(fabric.route(gpu, partner)) for gpu, partner in enumerate(partners(gpus)))
    begin, begin_cpu = time.perf_counter(), time.process_time()
    outcome = run(program, fabric, engine=engine, segment_bytes=SEGMENT_BYTES, record="none")
    cpu_seconds = time.process_time() - begin_cpu
    seconds = time.perf_counter() - begin
    hops = links * (FLOW_BYTES // SEGMENT_BYTES)
    print(
        json.dumps(
            {
                "hops": hops,
                "seconds": seconds,
                "cpu_seconds": cpu_seconds,
                "hops_per_s": hops / seconds,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "makespan_us": outcome.makespan_ps / 1e6,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

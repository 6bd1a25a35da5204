"""What a probe record costs a fused kernel: runs with probes and without, interleaved, and their medians.

`python benchmarks/probes.py host` (or virtual, gpu). On CPU threads the time is the threads' processor time, polls
included; on GPUs it is the GPU's own, by events around each launch.
"""

import json
import sys
from statistics import median

from eidola.capture import GemvAllReduce
from eidola.capture.fused import cpu, gpu

RUNS = 20
OFF = "-DEIDOLA_PROBES_OFF"
ROW_TILES = GemvAllReduce(gpus=2, rows=16384, columns=256, tile_rows=1, iterations=5)
SHAPES = {"host": {"default tiles": GemvAllReduce(gpus=2), "a row a tile": ROW_TILES}}
ON_GPU = {"default": GemvAllReduce(workgroups=32, columns=4096, iterations=101)}


def time_ns(spec, backend, *options):
    """Return the time of one run, and the records that a workgroup made in it."""
    if backend == "host":
        run = cpu.run(spec, *options)
        spent = sum(rank["cpu_ns"] for rank in run.ranks) / len(run.ranks)
        return spent, run.emitted.sum() / len(run.ranks)  # a rank's thread runs its workgroups in turn
    run = gpu.run(spec, *options, virtual=backend == "virtual")
    return sum(run.details["launch_ns"][1:]), run.emitted.mean() * (spec.iterations - 1) / spec.iterations


def measure(spec, backend):
    on, off, records = [], [], 0
    time_ns(spec, backend)  # builds, and warms up
    time_ns(spec, backend, OFF)
    for _ in range(RUNS):
        spent, records = time_ns(spec, backend)
        on.append(spent)
        off.append(time_ns(spec, backend, OFF)[0])
    per_record = (median(on) - median(off)) / records
    return {
        "runs": RUNS,
        "on_us": round(median(on) / 1000, 1),
        "off_us": round(median(off) / 1000, 1),
        "records": round(float(records)),
        "ns_a_record": round(float(per_record), 1),
        "percent": round(100 * (median(on) / median(off) - 1), 2),
    }


if __name__ == "__main__":
    backend = sys.argv[1] if len(sys.argv) > 1 else "host"
    for name, spec in SHAPES.get(backend, ON_GPU).items():
        print(json.dumps({"backend": backend, "shape": name, **measure(spec, backend)}))

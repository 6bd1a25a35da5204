"""How fast Kineto files convert, beside the JSON parser of Python's library on the same bytes."""

import gzip
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figure import HERE, REPEATS, Figure, measure, median

MB = 1_000_000
EVENTS = 200_000
REAL = HERE.parent.parent / "shared/traces/kineto/mi300x_resnet_rank0of8.json.gz"


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "rank0.json"
        synthesise(made)
        yield from of_file(made, f"synthetic Kineto file of {EVENTS:,} events")
        if not REAL.is_file():
            print(f"skipped: {REAL} is not there")
            return
        real = Path(folder) / REAL.stem
        real.write_bytes(gzip.decompress(REAL.read_bytes()))
        yield from of_file(real, f"real Kineto file {REAL.stem}")


def of_file(file: Path, name: str) -> Iterator[Figure]:
    runs: dict[str, list[dict]] = {"convert": [], "parse": []}
    for _ in range(REPEATS):
        for what, found in runs.items():
            found.append(measure("conversion.py", what, file))
    name += f", {file.stat().st_size / MB:.0f} MB"
    parse = median(runs["parse"], "mb_per_s")
    yield Figure(f"{name}, to a trace", median(runs["convert"], "mb_per_s"), "MB/s", parse, "json.load")
    memory = median(runs["parse"], "peak_mib")
    yield Figure(f"{name}, peak memory", median(runs["convert"], "peak_mib"), "MiB", memory, "json.load")


def synthesise(file: Path) -> None:
    """Write host calls and the kernels that they launch, as PyTorch's profiler does."""
    draw = random.Random(0)
    with file.open("w") as out:
        head = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "GPU", "totalGlobalMem": 1 << 34}],
                "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1},
                "baseTimeNanoseconds": 1_700_000_000_000_000_000}  # fmt: skip
        out.write(json.dumps(head)[:-1] + ', "traceEvents": [\n')
        host = gpu = 1_000_000  # nanoseconds
        for number in range(EVENTS // 2):
            host += draw.randrange(2000, 6000)
            gpu = max(gpu, host + 3000) + draw.randrange(200)
            length = draw.randrange(1000, 6000)
            call = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "pid": 100, "tid": 100,
                    "ts": host / 1000, "dur": 1.5,
                    "args": {"External id": number, "cbid": 211, "correlation": number}}  # fmt: skip
            kernel = {"ph": "X", "cat": "kernel", "name": f"void elementwise_kernel<{number % 97}>(int, float*)",
                      "pid": 0, "tid": 7, "ts": gpu / 1000, "dur": length / 1000,
                      "args": {"External id": number, "device": 0, "stream": 7, "correlation": number,
                               "grid": [108, 1, 1], "block": [128, 1, 1], "registers per thread": 32}}  # fmt: skip
            gpu += length
            comma = "" if number == EVENTS // 2 - 1 else ","
            out.write(f"{json.dumps(call)},\n{json.dumps(kernel)}{comma}\n")
        out.write("]}\n")


def main(what: str, file: Path) -> None:
    begin = time.perf_counter()
    if what == "parse":
        with file.open() as source:
            json.load(source)
    else:
        from eidola.convert import kineto

        kineto([file], file.with_suffix(".eidola"), overwrite=True)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"mb_per_s": file.stat().st_size / MB / seconds, "peak_mib": peak}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

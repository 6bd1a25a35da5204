"""How fast a Kineto file of 1 GB is read and converted, beside Python's JSON parser on the same bytes.

The file is a real trace, replicated with later times and fresh ids, or a synthetic one where there is none.
"""

import gzip
import json
import random
import re
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figure import HERE, REPEATS, Figure, measure, median

MB = 1_000_000
SIZE = 1000 * MB
REAL = HERE.parent.parent / "shared/traces/kineto"
FILES = ("a100_nccl_rank0of2.json.gz", "mi300x_resnet_rank0of8.json.gz")
EVENTS = 40_000


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        for name in FILES:
            real = REAL / name
            text = gzip.decompress(real.read_bytes()) if real.is_file() else synthetic()
            title = f"{name.partition('.')[0]} replicated" if real.is_file() else "synthetic trace replicated"
            plain = Path(folder) / "rank0.json"
            replicate(text, plain, SIZE)
            packed = Path(folder) / "rank0.json.gz"
            # In pieces: the peak of this process would count as that of those that it starts.
            with plain.open("rb") as whole, gzip.open(packed, "wb", compresslevel=1) as out:
                shutil.copyfileobj(whole, out)
            yield from of_file(plain, packed, f"{title}, {plain.stat().st_size / MB:,.0f} MB")
            if not real.is_file():
                return


def of_file(plain: Path, packed: Path, name: str) -> Iterator[Figure]:
    size = plain.stat().st_size
    settings = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # as the command line has it
    jobs = {
        "every event": ("all", plain),
        "every event, gzip": ("all", packed),
        "what replay needs": ("needed", plain),
        "to a trace": ("convert", plain),
    }
    runs: dict[str, list[dict]] = {what: [] for what in jobs}
    parse = measure("conversion.py", "parse", plain, size)
    for _ in range(REPEATS):
        for what, (job, file) in jobs.items():
            runs[what].append(measure("conversion.py", job, file, size, env=settings))
    for what, found in runs.items():
        rate, memory = median(found, "mb_per_s"), median(found, "peak_mib")
        yield Figure(f"{name}: {what}", rate, "MB/s", parse["mb_per_s"], "json.load")
        yield Figure(f"{name}: {what}, peak memory", memory, "MiB", parse["peak_mib"], "json.load")


def replicate(text: bytes, file: Path, size: int) -> None:
    """Write copies of a trace's events, each later and with ids of its own, up to about `size` bytes."""
    begin = text.index(b"[", text.index(b'"traceEvents"')) + 1
    end = [m.start() + 1 for m in re.finditer(rb'\}\s*\](?=\s*(?:\}|,\s*"|$))', text)][-1]
    moving = re.compile(rb'("(?:ts|id|correlation|External id)": ?)(\d+)')
    fixed: list[bytes] = []
    numbers: list[tuple[int, bool]] = []
    last = begin
    for match in moving.finditer(text, begin, end):
        fixed.append(text[last : match.end(1)])
        numbers.append((int(match[2]), match[1].startswith(b'"ts"')))
        last = match.end()
    closing = text[last:end]
    times = [number for number, is_time in numbers if is_time]
    step, ids = max(times) - min(times) + 1000, max(n for n, is_time in numbers if not is_time) + 1
    with file.open("wb") as out:
        out.write(text[:begin])
        for copy in range(max(1, size // (end - begin))):
            out.write(b"," * bool(copy))
            later, fresh = copy * step, copy * ids
            for piece, (number, is_time) in zip(fixed, numbers, strict=True):
                out.write(piece + b"%d" % (number + (later if is_time else fresh)))
            out.write(closing)
        out.write(text[end:])


def synthetic() -> bytes:
    """Return host calls and the kernels that they launch, as PyTorch's profiler writes them."""
    draw = random.Random(0)
    head = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": "GPU", "totalGlobalMem": 1 << 34}],
            "distributedInfo": {"backend": "nccl", "rank": 0, "world_size": 1},
            "baseTimeNanoseconds": 1_700_000_000_000_000_000}  # fmt: skip
    events = []
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
        events += [json.dumps(call), json.dumps(kernel)]
    return f'{json.dumps(head)[:-1]}, "traceEvents": [{",".join(events)}]}}'.encode()


def main(what: str, file: Path, size: int) -> None:
    if what == "parse":
        begin = time.perf_counter()
        with file.open() as source:
            rows = len(json.load(source)["traceEvents"])
    else:
        from eidola.convert import kineto
        from eidola.convert.events import read_all, read_events
        from eidola.convert.scanner import scan

        scan(b"", everything=False)  # compiled by now, and loaded
        begin = time.perf_counter()
        if what == "convert":
            rows = kineto([file], file.with_suffix(".eidola"), overwrite=True).spans
        else:
            rows = sum(t.num_rows for t in read_all(file)) if what == "all" else len(read_events(file).rows)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures = {
        "mb_per_s": size / MB / seconds,
        "peak_mib": peak,
        "rows": rows,
        "processor_s": time.process_time(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))

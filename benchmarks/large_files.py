"""Whether the memory of a conversion grows with the file: files of 1 and of 4 GB, each converted once.

Made as those of `conversion` and `databases` are, from real traces where these are there.
"""

import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import conversion
import databases
from figure import HERE, Figure, measure

GB = 1_000_000_000
SIZES = (GB, 4 * GB)
ROCPROFV3 = HERE.parent.parent / "shared/traces/rocprofv3/mi350x_results.json.gz"


def figures() -> Iterator[Figure]:
    kinds: dict[str, tuple[str, str, Callable[[Path, int], None]]] = {
        "kineto": ("rank0.json", "conversion.py", _kineto),
        "nsys": ("nsys.sqlite", "databases.py", databases.nsys),
        "rocpd": ("rocpd.db", "databases.py", databases.rocpd),
    }
    if ROCPROFV3.is_file():
        kinds["rocprofv3"] = ("results.json", "databases.py", rocprofv3)
    for kind, (name, script, make) in kinds.items():
        small: dict[str, float] = {}
        for size in SIZES:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / name
                make(file, size)
                size_mb = file.stat().st_size / 1e6
                what = "convert" if kind == "kineto" else kind
                settings = {"ARROW_DEFAULT_MEMORY_POOL": "system"}  # as the command line has it
                found = measure(script, what, file, file.stat().st_size, env=settings)
            title = f"{kind}, {size // GB} GB ({size_mb:,.0f} MB, {found['rows']:,} spans), to a trace"
            yield Figure(f"{title}: peak memory", found["peak_mib"], "MiB", small.get("peak_mib"), "1 GB")
            yield Figure(
                f"{title}: processor time", found["processor_s"], "s", small.get("processor_s"), "1 GB"
            )
            small = small or found


def _kineto(file: Path, size: int) -> None:
    real = conversion.REAL / conversion.FILES[0]
    text = gzip.decompress(real.read_bytes()) if real.is_file() else conversion.synthetic()
    conversion.replicate(text, file, size)


def rocprofv3(file: Path, size: int) -> None:
    """Write the kernels of a real file again and again, each time later and with ids of their own."""
    document = json.loads(gzip.decompress(ROCPROFV3.read_bytes()))
    records = document["rocprofiler-sdk-tool"][0]["buffer_records"]
    kernels = records["kernel_dispatch"]
    records["kernel_dispatch"] = ["HERE"]
    before, after = json.dumps(document).split('"HERE"')
    times = [kernel[name] for kernel in kernels for name in ("start_timestamp", "end_timestamp")]
    step, ids = max(times) - min(times) + 1000, max(_id(kernel) for kernel in kernels) + 1
    with file.open("w") as out:
        out.write(before)
        written, copy = len(before), 0
        while written < size:
            text = ", ".join(json.dumps(_later(kernel, copy * step, copy * ids)) for kernel in kernels)
            written += out.write(", " * bool(copy) + text)
            copy += 1
        out.write(after)


def _id(kernel: dict) -> int:
    found = kernel["correlation_id"]
    return found["internal"] if isinstance(found, dict) else found


def _later(kernel: dict, step: int, ids: int) -> dict:
    found = kernel["correlation_id"]
    new = {**found, "internal": found["internal"] + ids} if isinstance(found, dict) else found + ids
    times = {name: kernel[name] + step for name in ("start_timestamp", "end_timestamp")}
    return {**kernel, **times, "correlation_id": new}

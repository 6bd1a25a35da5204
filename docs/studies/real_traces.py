"""What the real traces hold, what they do not tell, and what reading them costs: the table in docs/formats.md.

`python docs/studies/real_traces.py TRACES` converts each with the command line, in a process of its own, and prints
the table; TRACES is the folder of the files that it names (where they are from stands in the table's first column).
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pyarrow.compute as pc

from eidola.schemas import Trace

SOURCES = {
    "Kineto, 8 x V100, DLRM, all ranks": ["kineto/v100_dlrm_8ranks"],
    "the same with ExecutionTraces": ["kineto/v100_dlrm_8ranks", "execution_trace/v100_dlrm_8ranks"],
    "Kineto, A100, rank 0 of 2": ["kineto/a100_nccl_rank0of2.json.gz"],
    "Kineto, A100, 2 sampled ranks of 128": ["kineto/a100_2of128ranks"],
    "Kineto, MI300X, rank 0 of 8": ["kineto/mi300x_resnet_rank0of8.json.gz"],
    "Nsight Systems 3.25, 2 GPUs": ["nsys/sm90_2gpu_training.sqlite"],
    "rocprofv3 JSON, MI350X": ["rocprofv3/mi350x_results.json.gz"],
    "Chakra, one rank": ["chakra/rank0.et"],
}


def main(traces: Path) -> None:
    """Print the table."""
    print("| source | found | collectives | bytes | communicators | not told | time | peak |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, paths) in enumerate(SOURCES.items()):
            output = Path(folder) / f"{number}.eidola"
            seconds, peak = convert([str(traces / path) for path in paths], output)
            cells = [name, *described(Trace(output)), f"{seconds:.1f} s", f"{peak:.0f} MiB"]
            print(f"| {' | '.join(cells)} |")


def convert(paths: list[str], output: Path) -> tuple[float, float]:
    """Return the processor time in seconds and the peak memory in MiB of the whole command."""
    command = [sys.executable, "-c", "from eidola.cli.main import main; main()", "convert", "auto", *paths]
    process = subprocess.Popen([*command, "-o", str(output), "--quiet", "--jobs", "1"])
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def described(trace: Trace) -> list[str]:
    """Return the cells of a trace: what was found, collectives, bytes, communicators, and what was not told."""
    kinds = Counter(trace.read("spans", ["kind"])["kind"].to_pylist())
    parts = trace.read("collectives", ["operation", "size_bytes", "dtype", "launch_ns"])
    operations = Counter(parts["operation"].to_pylist())
    total = pc.sum(parts["size_bytes"]).as_py() or 0
    names = sorted(set(trace.read("communicators", ["communicator"])["communicator"].to_pylist()))
    found = ", ".join(f"{kinds[kind]:,} {plural}" for kind, plural in PLURALS.items() if kinds[kind])
    missing = [f"{what} of {parts[column].null_count} of {parts.num_rows}" for column, what in COLUMNS.items()
               if parts[column].null_count]  # fmt: skip
    return [
        f"{len(trace.ranks())} ranks, {found}" if len(trace.ranks()) > 1 else found,
        ", ".join(f"{count} {kind}" for kind, count in sorted(operations.items())) or "none",
        f"{total:,}",
        f"{len(names)}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}" if names else "0",
        ", ".join([*missing, *more(trace)]) or "-",
    ]


PLURALS = {
    "kernel": "kernels", "copy": "copies and sets", "host_call": "calls", "annotation": "ranges", "phase": "phases",
}  # fmt: skip
COLUMNS = {"size_bytes": "sizes", "dtype": "types", "launch_ns": "launches"}


def more(trace: Trace) -> list[str]:
    """Return what the ranks' rows and the report say is missing."""
    absent = len(trace.notes.get("missing_ranks", []))
    unnamed = trace.read("ranks", ["model"])["model"].null_count
    inferred = sum("size and places are inferred" in note for note in trace.notes.get("notes", []))
    unordered = sum("do not tell its rank" in note or "not told" in note or "does not tell its rank" in note
                    for note in trace.notes.get("notes", []))  # fmt: skip
    return [
        *([f"{absent} ranks without a file"] if absent else []),
        *(["the rank"] if unordered else []),
        *([f"members of {inferred} communicators"] if inferred else []),
        *(["the GPU's model"] if unnamed else []),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))

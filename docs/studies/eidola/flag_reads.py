"""Flag reads of one GPU against its peers' wake-up time: spinning, monitor, mwait. The tables of flag_reads.md.

    python docs/studies/eidola/flag_reads.py [--quick] [--out FOLDER]

Eidola's experiment: a fused GEMV + AllReduce in two phases, one target in detail, three peers as timed writes that
reach it without a fabric. All peers start late by the wake-up time.
"""

import argparse
import tempfile
from pathlib import Path

from figures import line, plot, table
from late import LatePeers, trace

from eidola.replay import lower, parse_wait, run
from eidola.replay.presets import preset

POLICIES = {
    "spin": "spin 100ns",
    "back-off": "backoff 100ns cap 1600ns",
    "monitor": "monitor wake 50ns arm 10ns",
    "mwait, 8 flags a line": "monitor wake 50ns arm 10ns line 8",
}


def measure(folder: Path, rows: int, late_us: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the target's flag reads by policy, and its other memory traffic."""
    kernel = LatePeers(gpus=4, rows=rows, late_ns=late_us * 1000)
    fabric = preset("ideal", 4)
    program = lower(trace(folder, kernel), fabric, mode="target", targets=(0,)).program
    reads = {}
    for name, words in POLICIES.items():
        memory = run(program, fabric, wait=parse_wait(words)).tables()["memory"]
        found = zip(
            memory["rank"], memory["traffic"], memory["operations"], memory["size_bytes"], strict=True
        )
        of = {traffic: (operations, size) for rank, traffic, operations, size in found if rank == 0}
        reads[name] = of[words.split()[0]][0]
        other = {"reads": kernel.other_reads(), "writes": of["received"][0], "bytes": of["received"][1]}
    return reads, other


def main() -> None:
    """Measure all points, print the tables, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    sizes = (1024,) if args.quick else (1024, 4096, 8192, 16384, 24576)
    lates = (0, 20, 40) if args.quick else tuple(range(0, 45, 5))
    with tempfile.TemporaryDirectory() as folder:
        found = {(m, late): measure(Path(folder), m, late) for m in sizes for late in lates}
    rows = [
        (f"{m:,}", name, *(f"{found[m, late][0][name]:,}" for late in lates))
        for m in sizes
        for name in POLICIES
    ]
    print(table(("M", "policy", *(f"{late} us" for late in lates)), rows))
    fits = []
    for m in sizes:
        slope, start, r2 = line([(late, found[m, late][0]["spin"]) for late in lates])
        other = found[m, lates[-1]][1]
        same = all(found[m, late][1] == other for late in lates)
        line_of = (f"{slope:.1f}", f"{start:,.0f}", f"{r2:.6f}")
        fits.append((f"{m:,}", *line_of, *(f"{n:,}" for n in other.values()), "yes" if same else "no"))
    names = (
        "M",
        "spin: reads a us",
        "at 0",
        "r2",
        "other reads, 64 B",
        "writes received",
        "bytes",
        "same at every wake-up time",
    )
    print("\n" + table(names, fits))
    series = {name: [(late, found[sizes[-1], late][0][name]) for late in lates] for name in POLICIES}
    plot(args.out / "flag_reads.svg", f"Flag reads of the target, M = {sizes[-1]:,}", "peers' wake-up time, us",
         "flag reads", series)  # fmt: skip


if __name__ == "__main__":
    main()

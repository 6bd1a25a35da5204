"""How long a simulation takes against M and against the number of eidolons. The tables of simulation_time.md.

    python docs/studies/eidola/simulation_time.py [--quick] [--out FOLDER]

The fused GEMV + AllReduce with a write a row; GPU 0 in detail, the others as eidolons. M grows with 3 eidolons;
the number of eidolons grows with 96 rows a GPU, which is what each of 256 GPUs has at M = 24,576. Processor time,
the best of several runs in one process after compilation: of the run alone (checks and engine), and with lowering.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from figures import line, plot, table
from late import LatePeers, trace

from eidola.replay import lower, run, spin
from eidola.replay.presets import preset

T = TypeVar("T")


def best(repeats: int, function: Callable[[], T]) -> tuple[T, float]:
    """Return what the function returns, and its shortest processor time in seconds."""
    times, result = [], function()
    for _ in range(repeats):
        begin = time.process_time()
        result = function()
        times.append(time.process_time() - begin)
    return result, min(times)


ROWS_A_GPU = 96


def measure(folder: Path, eidolons: int, rows: int, repeats: int) -> dict[str, float]:
    """Return seconds of the run and of all, and the eidolons' writes."""
    gpus = eidolons + 1
    kernel = LatePeers(gpus=gpus, rows=rows, columns=8192, tile_rows=1, late_ns=20_000)
    written, fabric = trace(folder, kernel), preset("ideal", gpus)
    lowered, lowering = best(1, lambda: lower(written, fabric, mode="target", targets=(0,)).program)
    outcome, running = best(repeats, lambda: run(lowered, fabric, wait=spin(100), record="none"))
    owner = lowered.message_rows()["source"]
    return {"run": running, "all": lowering + running, "writes": int((owner != 0).sum()), "reads": int(
        outcome.final.agents["polls"].sum())}  # fmt: skip


def main() -> None:
    """Measure, print the tables, draw the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument(
        "--most", type=int, default=4095, help="eidolons; writing and lowering 4,096 ranks takes minutes"
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    sizes = (1024, 2048) if args.quick else (1024, 2048, 4096, 8192, 12288, 16384, 20480, 24576)
    counts = (3, 7) if args.quick else (3, 7, 15, 31, 63, 127, 255, 511, 1023, 2047, 4095)
    counts = tuple(count for count in counts if count <= args.most)
    repeats = 1 if args.quick else args.repeats
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), 3, 1024, 1)  # compiles
        by_size = {m: measure(Path(folder), 3, m, repeats) for m in sizes}
        by_count = {n: measure(Path(folder), n, ROWS_A_GPU * (n + 1), repeats) for n in counts}
    for what, found in (("M, 3 eidolons", by_size), ("eidolons", by_count)):
        rows = []
        for x, v in found.items():
            each = v["run"] / v["writes"] * 1e9
            counts_of = (f"{x:,}", f"{v['writes']:,}", f"{v['reads']:,}")
            rows.append((*counts_of, f"{v['run'] * 1e3:.2f}", f"{each:.0f}", f"{v['all'] * 1e3:.0f}"))
        print(
            table(
                (what, "eidolons' writes", "flag reads", "run ms", "ns a write", "lowering and run ms"), rows
            )
        )
        for name, most in (("all", max(found)), ("up to 255", 255)):
            points = [(x, v["run"]) for x, v in found.items() if x <= most]
            if len(points) > 1 and (name == "all" or len(points) < len(found)):
                slope, start, r2 = line(points)
                print(f"\nrun time, {name}: {slope * 1e6:.2f} us each + {start * 1e3:.2f} ms, r2 {r2:.4f}")
        print()
    plot(args.out / "time_by_m.svg", "Simulation time, 3 eidolons", "M", "run, ms",
         {"run": [(x, v["run"] * 1e3) for x, v in by_size.items()]})  # fmt: skip
    plot(args.out / "time_by_eidolons.svg", "Simulation time, 96 rows a GPU", "eidolons", "run, ms",
         {"run": [(x, v["run"] * 1e3) for x, v in by_count.items()]}, log_x=True, log_y=True)  # fmt: skip


if __name__ == "__main__":
    main()

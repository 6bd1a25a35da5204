"""What Eidola leaves as future work: fabrics, other kernels, random traffic, unequal sides.

python docs/studies/eidola/beyond.py [--quick] [--out FOLDER]

The tables of beyond.md.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from figures import bars, plot, table

from eidola.replay import IDEAL, Fabric, lower, run, spin
from eidola.replay.generate import (
    EmbeddingAllToAll,
    GemmAllToAll,
    GemvAllReduce,
    Pattern,
    Patterns,
    generate,
)
from eidola.replay.generate.kernel import Kernel
from eidola.replay.outcome import Outcome
from eidola.replay.presets import preset

Points = dict[str, list[tuple[float, float]]]
Groups = dict[str, dict[str, float]]
LINK_MB_PER_S, SIZE_BYTES, MESSAGES = 50_000, 65536, 256


def kernels(gpus: int) -> dict[str, Kernel]:
    """Return the fused kernels, their sizes a GPU the same at every number of GPUs."""
    return {
        "GEMV + AllReduce": GemvAllReduce(gpus=gpus, rows=gpus * 256, columns=8192),
        "embedding + All-to-All": EmbeddingAllToAll(gpus=gpus, batch=gpus * 128, tables=8),
        "GEMM + All-to-All": GemmAllToAll(gpus=gpus, rows=gpus * 128, columns=1024, inner=1024),
    }


def fabrics(gpus: int) -> dict[str, Fabric]:
    """Return no fabric, one switch, boxes on a network, a 2D torus."""
    side = round(gpus**0.5)
    return {
        "ideal": preset("ideal", gpus),
        "star, 50 GB/s": preset("star", gpus),
        "HGX H100 boxes, rail-optimised 400G": preset("hgx-h100", gpus),
        f"2D torus {side} x {gpus // side}": preset("torus-2d", gpus),
    }


def fused(gpus: int, folder: Path) -> tuple[str, Groups]:
    """Return how long each kernel takes on each fabric, how its flags fare, and which link is busiest."""
    rows, groups = [], {name: {} for name in kernels(gpus)}
    for name, kernel in kernels(gpus).items():
        trace = generate(kernel, folder / "k.eidola", overwrite=True)
        alone = 0.0
        for label, fabric in fabrics(gpus).items():
            program = lower(trace, fabric).program
            outcome = run(program, fabric, wait=spin(100))
            end = outcome.makespan_ps / 1e6
            alone = alone or end
            gpu = outcome.tables()["gpus"]
            busiest = outcome.final.queues["busy_ps"][: fabric.links].max(initial=0) / outcome.makespan_ps
            queued = outcome.final.rows.messages["queued_ps"]
            groups[name][label] = end / alone
            rows.append((name, label, f"{end:.1f}", f"{end / alone:.2f}", f"{gpu['exposed_ps'].mean() / 1e6:.1f}",
                         f"{gpu['flag_reads'].mean():,.0f}", f"{busiest:.0%}",
                         f"{np.percentile(queued, 99) / 1e6:.1f}"))  # fmt: skip
    names = ("kernel", "fabric", "end us", "of ideal", "exposed us", "flag reads a GPU", "busiest link",
             "99 % queue less than us")  # fmt: skip
    return table(names, rows), groups


def latency(outcome: Outcome) -> np.ndarray:
    """Return (data messages,) microseconds from post to landing."""
    rows = outcome.final.rows.messages
    data = outcome.program.message_rows()["size_bytes"] > 8
    return (rows["arrival_ps"] - rows["post_ps"])[data] / 1e6


def random_traffic(gpus: int, loads: tuple[float, ...], folder: Path) -> tuple[str, Points]:
    """Return latencies of Poisson traffic to random GPUs, by load and fabric."""
    rows, points = [], {}
    for label, fabric in list(fabrics(gpus).items())[1:]:
        for load in loads:
            rate = load * LINK_MB_PER_S * 1e6 / SIZE_BYTES
            pattern = Pattern(arrivals="poisson", rate_per_s=rate, size_bytes=(SIZE_BYTES,), duration_ns=400_000,
                              flags="none")  # fmt: skip
            trace = generate(Patterns(gpus=gpus, patterns=(pattern,)), folder / "p.eidola", overwrite=True)
            found = latency(run(lower(trace, fabric).program, fabric))
            half, most = np.percentile(found, (50, 99))
            rows.append((label, f"{load:.0%}", f"{len(found):,}", f"{half:.2f}", f"{most:.2f}"))
            points.setdefault(label, []).append((100 * load, most))
    return table(("fabric", "load of a 50 GB/s link", "writes", "median us", "99 % us"), rows), points


def unequal(gpus: int, splits: tuple[tuple[int, int], ...], folder: Path) -> tuple[str, Groups]:
    """Return how long producers take to hand 16 MiB each to fewer or more consumers."""
    rows, groups = [], {}
    for producers, consumers in splits:
        pattern = Pattern(senders=tuple(range(producers)), messages=MESSAGES, size_bytes=(SIZE_BYTES,),
                          peers=tuple(range(gpus - consumers, gpus)), flags="last")  # fmt: skip
        trace = generate(Patterns(gpus=gpus, patterns=(pattern,)), folder / "u.eidola", overwrite=True)
        for label, fabric in list(fabrics(gpus).items())[1:]:
            program = lower(trace, fabric).program
            outcome = run(program, fabric, wait=spin(100))
            least = SIZE_BYTES * MESSAGES * max(1.0, producers / consumers) / LINK_MB_PER_S
            reads = outcome.tables()["gpus"]["flag_reads"][gpus - consumers :].sum()
            alone = run(program, fabric, wait=IDEAL).makespan_ps / 1e6
            groups.setdefault(f"{producers} to {consumers}", {})[label] = outcome.makespan_ps / 1e6
            rows.append((f"{producers} to {consumers}", label, f"{outcome.makespan_ps / 1e6:,.0f}", f"{alone:,.0f}",
                         f"{least:,.0f}", f"{reads:,}"))  # fmt: skip
    names = ("producers to consumers", "fabric", "end us", "without polls", "50 GB/s at the busier side us",
             "consumers' flag reads")  # fmt: skip
    return table(names, rows), groups


def main() -> None:
    """Print the tables, draw the plot."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    gpus = 16 if args.quick else args.gpus
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told, slower = fused(gpus, folder)
        print(f"## Fused kernels on fabrics, {gpus} GPUs\n\n{told}")
        told, points = random_traffic(gpus, (0.3,) if args.quick else (0.1, 0.3, 0.5, 0.7, 0.9), folder)
        print(f"\n## Poisson traffic\n\n{told}")
        half = gpus // 2
        splits = ((half, 1),) if args.quick else ((half, 1), (half, 8), (half, half), (8, half), (1, half))
        sides, ends = unequal(gpus, splits, folder)
        print(f"\n## Unequal sides\n\n{sides}")
    bars(
        args.out / "fused.svg",
        f"Fused kernels on fabrics, {gpus} GPUs",
        "end over that without links",
        slower,
    )
    bars(args.out / "unequal.svg", "16 MiB from each producer to random consumers", "end, us", ends)
    plot(args.out / "poisson.svg", f"Poisson traffic of 64 KiB writes, {gpus} GPUs", "load, % of 50 GB/s",
         "99 % of writes take less than, us", points, log_y=True)  # fmt: skip


if __name__ == "__main__":
    main()

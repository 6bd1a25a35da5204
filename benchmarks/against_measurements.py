"""Replay published collective measurements, and print how far off the replay is, by table and size.

    python benchmarks/against_measurements.py measurements.csv [TABLE ...]

The CSV has the columns table_id, ranks, algorithm_or_env, library_version, operation, size_bytes, time_us,
algbw_GBps, busbw_GBps and in_place, in nccl-tests' conventions: a size is the bytes of a rank's whole buffer; of
all_gather and alltoall the total. Every number printed is a median of signed errors: simulated time over measured
time, less one, in percent.
"""

import csv
import sys
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from eidola.replay import Builder, run
from eidola.replay.collectives import Operation, expand, tuning
from eidola.replay.fabric import Fabric
from eidola.replay.presets import preset

OPERATIONS = {"all_reduce": "all_reduce", "all_gather": "all_gather", "reduce_scatter": "reduce_scatter",
              "alltoall": "all_to_all", "sendrecv": "sendrecv", "collective_permute": "sendrecv"}  # fmt: skip
CLASSES = (
    ("to 32 KiB", 2**15),
    ("to 1 MiB", 2**20),
    ("to 32 MiB", 2**25),
    ("to 1 GiB", 2**30),
    ("above", 2**60),
)


@dataclass(frozen=True)
class Table:
    """Which fabric a table was measured on, and which of its rows are meant.

    `contains`, `excludes`: of the column algorithm_or_env; `library`: of library_version. `algorithm`: what the
    rows force. `gpus`: as many ran, in groups side by side.
    """

    fabric: str
    settings: dict[str, Any] = field(default_factory=dict)
    contains: str = ""
    library: str = ""
    excludes: str = "\0"
    algorithm: str | None = None
    gpus: int = 0


TABLES: dict[str, Table] = {
    "STAS_A100x8": Table("hgx-a100"),
    "OCI_A100_8": Table("hgx-a100"),
    "A100x8_sendrecv": Table("hgx-a100"),
    "LOCAL_dgxa100_4": Table("hgx-a100"),
    "STAS_H200x8": Table("hgx-h100"),
    "STAS_H200_nvls_ramp:default": Table("hgx-h100", contains="default"),
    "STAS_H200_nvls_ramp:ring": Table("hgx-h100", contains="NVLS_ENABLE=0", algorithm="ring"),
    "STAS_H200x8_16G:NVLS": Table("hgx-h100", contains="NVLS", algorithm="nvls", excludes="=0"),
    "STAS_H200x8_16G:ring": Table("hgx-h100", contains="Ring", algorithm="ring"),
    "H100_tritondist57": Table("hgx-h100", contains="default"),
    "XLA_H100_all_reduce": Table("hgx-h100", gpus=8),
    "XLA_H100_all_gather": Table("hgx-h100", gpus=8),
    "XLA_H100_reduce_scatter": Table("hgx-h100", gpus=8),
    "XLA_H100_alltoall": Table("hgx-h100", gpus=8),
    "XLA_H100_collective_permute": Table("hgx-h100", gpus=8, contains="ring"),
    "OCI_H100_16": Table("hgx-h100"),
    "P5x2_aws": Table("hgx-h100"),
    "STAS_P5ENx4:ring": Table("hgx-h100", contains=":ring", algorithm="ring"),
    "STAS_P5ENx4:nvlstree": Table("hgx-h100", contains="nvlstree", algorithm="nvls_tree"),
    "CW_A100_sharp_32:sharp": Table("hgx-a100", {"sharp": True}, algorithm="sharp", gpus=32),
    "QR_MI300X:RCCL": Table("mi300x", contains="RCCL"),
    "QR_MI300X:two-shot": Table("mi300x", contains="QR-FP16", algorithm="direct"),
    "STAS_MI300X": Table("mi300x"),
    "MI300_car_sgl6619": Table("mi300x", library="custom", algorithm="two_shot_get"),
    "MI300Xx16_aac10": Table("mi300x"),
    "VULTR_B200_8_all_reduce": Table("hgx-b200"),
    "VULTR_B200_8_all_gather": Table("hgx-b200"),
    "VULTR_B200_8_reduce_scatter": Table("hgx-b200"),
    "VULTR_B200_8_alltoall": Table("hgx-b200"),
    "STAS_P6B200": Table("hgx-b200"),
    "LAMBDAx2_dstack": Table("hgx-b200"),
    "A4x2_ar_dstack": Table("hgx-b200"),
    "OCI_GB200_4": Table("gb200-nvl72"),
    "OCI_GB200_8_a2a": Table("gb200-nvl72"),
    "OCI_MI355X_P_8": Table("mi355x"),
    "OCI_MI355X_P_8_a2a": Table("mi355x"),
    "OCI_MI355X_P_16": Table("mi355x"),
    "OCI_MI355X_P_32": Table("mi355x"),
    "MI355Xx16_aac14": Table("mi355x"),
    "XLA_MI355X_all_reduce": Table("mi355x", gpus=8),
}
"""Tables on fabrics that there is a preset for; a name's part after a colon tells selections of one table apart."""


def measured_us(row: dict[str, str], ranks: int) -> float:
    """Return a row's time, from its bandwidth where it has no time; 0 where it has neither."""
    if row["time_us"]:
        return float(row["time_us"])
    size = int(row["size_bytes"])
    if row["algbw_GBps"]:
        return size / float(row["algbw_GBps"] or 1) / 1000 if float(row["algbw_GBps"]) else 0
    turns = {"all_reduce": 2 * (ranks - 1) / ranks}.get(row["operation"], (ranks - 1) / ranks)
    return size * turns / float(row["busbw_GBps"]) / 1000 if row["busbw_GBps"] else 0


def simulated_us(fabric: Fabric, ranks: int, operation: str, size_bytes: int, table: Table) -> float:
    """Replay one operation with all GPUs of the fabric in groups of `ranks`; return the time of the slowest."""
    builder = Builder(fabric.gpus)
    for first in range(0, fabric.gpus - ranks + 1, ranks):
        members = list(range(first, first + ranks))
        agents = [builder.agent(m, "stream") for m in members]
        for group, op in _pairs(members, operation, size_bytes, ranks):
            how = tuning(fabric, op, group, table.algorithm)
            calls = expand(builder, fabric, group, op, how, f"group {group[0]} {group[-1]}").calls
            for member, made in zip(group, calls, strict=True):
                for call in made:
                    builder.call(agents[members.index(member)], **call)
    return run(builder.build(), fabric, record="none").makespan_ps / 1e6


def _pairs(
    members: list[int], operation: str, size_bytes: int, ranks: int
) -> list[tuple[list[int], Operation]]:
    """Return the groups and operations that a row means; a shift to the next rank is one all-to-allv."""
    if operation == "sendrecv":
        import numpy as np

        split = np.zeros((ranks, ranks), np.int64)
        split[range(ranks), [(p + 1) % ranks for p in range(ranks)]] = size_bytes
        return [(members, Operation("all_to_allv", size_bytes, split))]
    if operation == "all_gather":
        size_bytes //= ranks
    return [(members, Operation(operation, size_bytes, element_bytes=1))]


def errors(name: str, table: Table, rows: list[dict[str, str]]) -> dict[str, list[float]]:
    """Return the signed errors of a table's rows by size class."""
    found: dict[str, list[float]] = {}
    known: dict[tuple[int, str, int], float] = {}
    for row in rows:
        ranks = int(row["ranks"] or table.gpus)
        if row["in_place"] == "1" or row["operation"] not in OPERATIONS or not row["size_bytes"]:
            continue
        if table.contains not in row["algorithm_or_env"] or table.library not in row["library_version"]:
            continue
        if table.excludes in row["algorithm_or_env"]:
            continue
        took, size = measured_us(row, ranks), int(row["size_bytes"])
        if not took:
            continue
        key = ranks, OPERATIONS[row["operation"]], size
        if key not in known:
            fabric = preset(table.fabric, max(table.gpus, ranks), **table.settings)
            known[key] = simulated_us(fabric, *key, table)
        where = next(label for label, most in CLASSES if size <= most)
        found.setdefault(where, []).append(100 * (known[key] / took - 1))
        if "-v" in sys.argv:
            print(f"    {name} {key}: {known[key]:.1f} us, measured {took:.1f}")
    return found


def main() -> None:
    """Print a row a table."""
    chosen = [name for name in sys.argv[2:] if name != "-v"]
    by_table: dict[str, list[dict[str, str]]] = {}
    with open(sys.argv[1], newline="") as file:  # noqa: PTH123  a script's argument
        for row in csv.DictReader(file):
            by_table.setdefault(row["table_id"], []).append(row)
    print(f"{'median signed error, %':32}" + "".join(f"{label:>12}" for label, _ in CLASSES))
    for name, table in TABLES.items():
        rows = by_table.get(name.partition(":")[0], [])
        if (chosen and name.partition(":")[0] not in chosen) or not rows:
            continue
        found = errors(name, table, rows)
        cells = (f"{median(found[label]):+.0f}" if label in found else "" for label, _ in CLASSES)
        print(f"{name:32}" + "".join(f"{cell:>12}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

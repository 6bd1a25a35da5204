"""How fast the compiled engine runs, and in how much memory, beside the reference engine in SimPy."""

from collections.abc import Iterator

from figure import REPEATS, Figure, measure, median

GPUS = 1024
CASES = [("ring", "none"), ("ring", "written"), ("all_to_all", "none"), ("all_to_all", "written")]
TITLES = {"ring": "ring all-reduce", "all_to_all": "all-to-all posted at once"}
ROWS = {"none": "", "written": ", message rows, tables, Parquet and hash included"}
REFERENCE = "the SimPy engine, ring of 64"


def figures() -> Iterator[Figure]:
    runs: dict[tuple[str, str], list[dict]] = {}
    for _ in range(REPEATS):  # interleaved, so that a slow minute of the machine meets all of them
        runs.setdefault(("reference", ""), []).append(measure("one_run.py", "ring", 64, "reference", "none"))
        for kind, rows in CASES:
            runs.setdefault((kind, rows), []).append(measure("one_run.py", kind, GPUS, "compiled", rows))
    reference = median(runs["reference", ""], "messages_per_s")
    for kind, rows in CASES:
        found = runs[kind, rows]
        title = f"{TITLES[kind]}, star of {GPUS:,}, {found[0]['messages']:,} messages{ROWS[rows]}"
        yield Figure(f"{title}: time", median(found, "seconds"), "s")
        yield Figure(f"{title}: rate", median(found, "messages_per_s"), "messages/s", reference, REFERENCE)
        yield Figure(f"{title}: peak memory of the process", median(found, "peak_mib"), "MiB")

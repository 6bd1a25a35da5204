"""Measure, print, and write results.json: `python benchmarks/run.py [--long] [NAME ...]`, modules below.

Every entry of results.json: name, value, unit, baseline, baseline_name, ratio (value / baseline), machine,
versions. Medians of three, interleaved with their baselines, each in a process of its own. With names, only those
are measured, and the other entries stay. With `--long` also what takes minutes, once.
"""

import json
import sys

import capture_overhead
import conversion
import databases
import engines
import large_files
import permutation
import startup
import training_step
from figure import HERE, machine

BENCHMARKS = {
    "engines": engines,
    "permutation": permutation,
    "startup": startup,
    "conversion": conversion,
    "databases": databases,
}
LONG = {
    "training_step": training_step,
    "capture_overhead": capture_overhead,
    "large_files": large_files,
}


def main(names: list[str]) -> None:
    long, names = "--long" in names, [name for name in names if name != "--long"]
    known = BENCHMARKS | LONG
    if unknown := set(names) - set(known):
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(f"{machine()['cpu']}, {machine()['cores']} cores, {machine()['memory_mib']} MiB")
    entries = []
    for name in names or (known if long else BENCHMARKS):
        for figure in known[name].figures():
            print(figure.line(), flush=True)
            entries.append(figure.entry())
    results = HERE / "results.json"
    if names and results.is_file():  # what was measured now takes the place of the same before
        fresh = {entry["name"] for entry in entries}
        entries = [old for old in json.loads(results.read_text()) if old["name"] not in fresh] + entries
    results.write_text(json.dumps(entries, indent=1) + "\n")
    print(f"wrote {results}")


if __name__ == "__main__":
    main(sys.argv[1:])

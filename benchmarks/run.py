"""Measure, print, and write results.json: `python benchmarks/run.py [NAME ...]`, names of the modules below.

Every entry of results.json: name, value, unit, baseline, baseline_name, ratio (value / baseline), machine,
versions. Medians of three, interleaved with their baselines, each in a process of its own.
"""

import json
import sys

import conversion
import engines
import startup
from figure import HERE, machine

BENCHMARKS = {"engines": engines, "startup": startup, "conversion": conversion}


def main(names: list[str]) -> None:
    if unknown := set(names) - set(BENCHMARKS):
        raise SystemExit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(f"{machine()['cpu']}, {machine()['cores']} cores, {machine()['memory_mib']} MiB")
    entries = []
    for name in names or BENCHMARKS:
        for figure in BENCHMARKS[name].figures():
            print(figure.line(), flush=True)
            entries.append(figure.entry())
    if not names:
        (HERE / "results.json").write_text(json.dumps(entries, indent=1) + "\n")
        print(f"wrote {HERE / 'results.json'}")


if __name__ == "__main__":
    main(sys.argv[1:])

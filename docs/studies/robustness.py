"""Damage small files of every format in many ways, convert them, and count how that ends.

    python docs/studies/robustness.py              # 10,000 mutations a format; writes docs/robustness.md
    python docs/studies/robustness.py -n 200 kineto nsys

A conversion may end in a trace that keeps the schema, or in an error of this project that leaves nothing behind.
Everything else is a failure: another exception, a trace that breaks the schema, files left behind or written
elsewhere, a truncated file whose missing rows nothing tells of, more than LIMIT_S seconds, or more memory than
LIMIT_BYTES allows.
"""

import argparse
import json
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from robustness_mutations import bomb
from robustness_seeds import SEEDS, Seed

LIMIT_S = 60
LIMIT_BYTES = 2 << 30
"""Of address space, beyond what the process takes once everything is imported."""
BOMBS = 5
TOLD = ("dropped_events", "truncated_ranks", "missing_ranks", "unmatched", "truncated", "gaps", "notes")
GOOD = ("converted", "converted, loss told", "refused")
PAGE = Path(__file__).resolve().parents[1] / "robustness.md"


@dataclass
class Outcome:
    """How the mutations of one format ended: counts by mutation and end, and the failures with their case."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    longest_s: float = 0
    most_bytes: int = 0


def study(name: str, cases: Sequence[int], bombs: int = BOMBS) -> Outcome:
    """Convert one mutation of format `name` a case, and `bombs` gzip bombs, in processes that are watched."""
    outcome = Outcome()
    waiting = [*cases, *range(-bombs if _takes_bombs(SEEDS[name]) else 0, 0)]
    with tempfile.TemporaryDirectory() as folder:
        while waiting:
            for told in _batch(name, waiting, Path(folder) / "work"):
                waiting.remove(told["case"])
                end, what = told["end"], f"{name}, case {told['case']}, {told['mutation']}"
                outcome.counts[told["mutation"], end] += 1
                outcome.longest_s = max(outcome.longest_s, told["seconds"])
                outcome.most_bytes = max(outcome.most_bytes, told["bytes"])
                if end not in GOOD:
                    outcome.failures.append(f"{what}: {end}: {told['detail']}")
    return outcome


def _takes_bombs(seed: Seed) -> bool:
    return "gzip truncated" in seed.mutations


def _batch(name: str, cases: Sequence[int], work: Path) -> Iterator[dict[str, Any]]:
    """Yield what a process tells of its cases; one that hangs or dies costs the case that it was at."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    command = [sys.executable, __file__, "--worker", name, str(work)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as at:
        assert at.stdin
        assert at.stderr
        at.stdin.write("\n".join(map(str, cases)) + "\n")
        at.stdin.close()
        begun: dict[str, Any] = {}
        started = time.monotonic()
        for line in _lines(at, LIMIT_S * 2):
            told = json.loads(line)
            if "end" in told:
                yield told
                begun = {}
            else:
                begun, started = told, time.monotonic()
        at.kill()
        if begun:
            end = "hung" if time.monotonic() - started > LIMIT_S else f"died: {at.stderr.read()[-300:]}"
            yield {
                **begun,
                "end": end.split(":")[0],
                "detail": end,
                "seconds": time.monotonic() - started,
                "bytes": 0,
            }
        elif at.wait() > 0:
            raise RuntimeError(at.stderr.read()[-2000:])


def _lines(process: "subprocess.Popen[str]", limit_s: float) -> Iterator[str]:
    """Yield lines of a process until it ends or says nothing for `limit_s`."""
    assert process.stdout
    while select.select([process.stdout], [], [], limit_s)[0]:
        if not (line := process.stdout.readline()):
            return
        yield line


def worker(name: str, work: Path) -> None:
    """Convert the cases that stdin lists; print a line before and after each."""
    from eidola.convert import captured, convert, find_format, kineto  # noqa: F401  (imported before the limit)
    from eidola.schemas import check  # noqa: F401

    seed, clean = SEEDS[name], work / "clean"
    clean.mkdir()
    seed.make(clean)
    whole = _convert(name, seed, clean, work / "case" / "in", work / "case" / "out", None)
    if whole["end"] != "converted":
        raise SystemExit(f"the seed of {name} does not convert: {whole}")
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES,) * 2)
    for case in map(int, sys.stdin):
        rng = Random(f"{name} {case}")
        kind = rng.choice(list(seed.mutations)) if case >= 0 else "gzip bomb"
        _tell({"case": case, "mutation": kind})
        mutate = seed.mutations[kind] if case >= 0 else bomb
        _tell({"case": case, "mutation": kind} | _one(name, seed, work, mutate, kind, rng, whole))


def _one(
    name: str, seed: Seed, work: Path, mutate: Any, kind: str, rng: Random, whole: dict[str, Any]
) -> dict[str, Any]:
    """Convert one mutation in a fresh folder, and say how it ended."""
    case, clean = work / "case", work / "clean"
    shutil.rmtree(case, ignore_errors=True)
    began = time.process_time()
    victim = rng.choice(sorted(clean.glob(seed.files)))
    damaged = mutate(victim.read_bytes(), rng)
    found = _convert(name, seed, clean, case / "in", case / "out", (victim.name, damaged))
    elsewhere = {p.name for p in work.iterdir()} - {"case", "clean"} | {p.name for p in case.iterdir()} - {
        "in",
        "out",
    }
    if elsewhere or Path("/tmp/escaped").exists() or (found["end"] == "refused" and (case / "out").exists()):
        found |= {"end": "left behind", "detail": f"{sorted(elsewhere)}"}
    if found["end"] == "converted" and found.pop("told") != whole["told"]:
        found |= {"end": "converted, loss told"}
    elif found["end"] == "converted" and "truncated" in kind and found["rows"] < whole["rows"]:
        tellable = kind != "truncated" or not seed.whole(damaged)
        found |= (
            {"end": "loss not told", "detail": f"{found['rows']} rows of {whole['rows']}"} if tellable else {}
        )
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {**found, "seconds": time.process_time() - began, "bytes": most}


def _convert(
    name: str, seed: Seed, clean: Path, source: Path, out: Path, damage: tuple[str, bytes] | None
) -> dict[str, Any]:
    from eidola.convert import captured, convert, find_format
    from eidola.schemas import EidolaError, Trace, check

    shutil.copytree(clean, source)
    if damage:
        (source / damage[0]).write_bytes(damage[1])
    try:
        if name.startswith("captured"):
            captured(source, out)
        else:
            kind = find_format("kineto" if seed.companions else name.split(",")[0])
            companions = sorted(source.glob(seed.companions)) if seed.companions else []
            files = [p for p in sorted(source.iterdir()) if p not in companions]
            files = files if companions or seed.given else [source]
            convert(kind, files, out, companions=companions)
        problems = [p for p in check(out) if p.severity == "error"]
        trace = Trace(out)
        rows = sum(trace.read(table, ["rank"]).num_rows for table in ("spans", "writes", "waits"))
        told = {key: str(trace.notes.get(key)) for key in TOLD}
    except EidolaError as error:
        line = str(error)
        return {
            "end": "refused" if line and len(line) < 5000 else "error without bounds",
            "detail": line[:300],
        }
    except BaseException:  # noqa: BLE001  whatever comes through is what this study looks for
        return {"end": "traceback", "detail": traceback.format_exc()[-1500:]}
    if problems:
        return {"end": "breaks the schema", "detail": str(problems[0])[:500]}
    return {"end": "converted", "detail": "", "rows": rows, "told": told}


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def page(found: dict[str, Outcome]) -> str:
    """Return docs/robustness.md."""
    head = PAGE.read_text().split("<!-- table -->")[0] if PAGE.exists() else ""
    ends = [*GOOD, "failures"]
    lines = [
        f"| format | mutations | {' | '.join(ends)} | longest, s of processor time | peak memory, MiB |",
        "|---|" + "---:|" * 7,
    ]
    for name, outcome in found.items():
        total = Counter[str]()
        for (_, end), count in outcome.counts.items():
            total[end if end in GOOD else "failures"] += count
        figures = [sum(total.values()), *(total[end] for end in ends)]
        bounds = f"{outcome.longest_s:.1f} | {outcome.most_bytes >> 20:,}"
        lines.append(f"| {name} | {' | '.join(f'{n:,}' for n in figures)} | {bounds} |")
    kinds = sorted({kind for outcome in found.values() for kind, _ in outcome.counts})
    lines += ["", f"| mutation | {' | '.join(ends)} |", "|---|" + "---:|" * 4]
    for kind in kinds:
        total = Counter[str]()
        for outcome in found.values():
            for (own, end), count in outcome.counts.items():
                total[end if end in GOOD else "failures"] += count if own == kind else 0
        lines.append(f"| {kind} | {' | '.join(f'{total[end]:,}' for end in ends)} |")
    return head + "<!-- table -->\n\n" + "\n".join(lines) + "\n"


def main() -> None:
    """Run the study for the formats given, or for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", help=f"of: {', '.join(SEEDS)}")
    parser.add_argument("-n", type=int, default=10_000, help="mutations a format")
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}, as without formats and -n")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.worker[0], Path(arguments.worker[1]))
    found = {}
    for name in arguments.formats or SEEDS:
        cases = range(arguments.n) if arguments.case is None else [arguments.case]
        found[name] = study(name, cases, BOMBS if arguments.case is None else 0)
        ends = Counter(end for (_, end), count in found[name].counts.items() for _ in range(count))
        print(
            f"{name}: {dict(ends)}; {found[name].longest_s:.1f} s, {found[name].most_bytes >> 20} MiB",
            flush=True,
        )
        for line in found[name].failures[:10]:
            print(line, flush=True)
    if arguments.write or not (arguments.formats or arguments.case is not None):
        PAGE.write_text(page(found))
    sys.exit(any(outcome.failures for outcome in found.values()))


if __name__ == "__main__":
    main()

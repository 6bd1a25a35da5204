"""Damage small files of every format in many ways, convert them, and count how that ends.

    python docs/studies/robustness.py                      # 10,000 mutations a format; writes docs/robustness.md
    python docs/studies/robustness.py -n 200 kineto nsys
    python docs/studies/robustness.py kineto --case 17     # this one alone

A conversion may end in a trace that keeps the schema, or in an error of this project that leaves nothing behind.
Everything else is a failure: another exception, a trace that breaks the schema, files left behind or written
elsewhere, a truncated file whose missing rows nothing tells of, another trace from a file that says the same, a
change to a rank whose file was not touched, more than LIMIT_S seconds, or more memory than allowed. What ended is
kept in `--results`, so that a run that was stopped goes on.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

sys.path.insert(0, str(Path(__file__).parent))
from robustness_case import read_lines
from robustness_page import GOOD, Outcome, page
from robustness_seeds import SEEDS, SHARES

LIMIT_S = 60
"""Of processor time, or WAIT_S by the clock of a machine that does other things."""
WAIT_S = 900
BOMBS = 3
ROUNDS = (0.05, 0.25, 0.5, 0.75, 1)
"""Shares after which the next format has its turn, so that a run that is stopped has tried all of them."""
PAGE = Path(__file__).resolve().parents[1] / "robustness.md"
FAST = Path("/dev/shm")


def run(name: str, results: Path, wanted: int, shard: tuple[int, int] = (0, 1)) -> None:
    """Convert mutations of format `name` until `wanted` different ones of a shard have ended."""
    file = results_file(results, name, shard)
    while (lines := read_lines(file)) is not None:
        done = sum(line["end"] != "again" for line in lines if line["case"] >= 0)
        if done >= wanted:
            return
        start = max((line["case"] + shard[1] for line in lines if line["case"] >= 0), default=shard[0])
        _round(name, file, wanted - done, start, shard[1])


def run_cases(name: str, file: Path, cases: Sequence[int]) -> None:
    """Convert these mutations, or gzip bombs where a number is negative, that `file` has no line of."""
    while missing := sorted({*cases} - {line["case"] for line in read_lines(file)}):
        _round(name, file, len(missing) + 1, cases=missing)


def mend(name: str, file: Path) -> None:
    """Convert again what ended badly."""
    lines = read_lines(file)
    bad = [line["case"] for line in lines if line["end"] not in (*GOOD, "again")]
    kept = [json.dumps(line) + "\n" for line in lines if line["case"] not in bad]
    file.write_text("".join(kept))
    run_cases(name, file, bad)


def results_file(results: Path, name: str, shard: tuple[int, int] = (0, 1)) -> Path:
    """Return the file that holds what ended of a format and shard."""
    results.mkdir(parents=True, exist_ok=True)
    return results / f"{name.replace(', ', '_').replace(' ', '_')}.{shard[0]}of{shard[1]}.jsonl"


def takes_bombs(name: str) -> bool:
    """Tell whether the reader of `name` unpacks gzip."""
    return "gzip truncated" in SEEDS[name].mutations


def _round(
    name: str, file: Path, wanted: int, start: int = 0, step: int = 1, cases: Sequence[int] = ()
) -> None:
    """Append what a process tells of its cases; one that hangs or dies costs the case that it was at."""
    if file.exists():
        whole = file.read_bytes()
        os.truncate(file, whole.rfind(b"\n") + 1)  # the last line of a run that was killed
    with tempfile.TemporaryDirectory(dir=FAST if FAST.is_dir() else None) as held, file.open("a") as out:
        work = Path(held) / "work"
        work.mkdir()
        worker = str(Path(__file__).with_name("robustness_case.py"))
        numbers = map(str, (start, step, wanted, *cases))
        command = [sys.executable, worker, name, work, file.resolve(), *numbers]
        with (Path(held) / "errors").open("w+") as errors:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, bufsize=0) as process:
                begun, hung = _copied(process, out)
                process.kill()
            errors.seek(0)
            said = errors.read()[-1000:]
        if begun is not None:
            told = {
                "case": begun,
                "mutation": "",
                "digest": "",
                "end": "hung" if hung else "died",
                "detail": said,
            }
            out.write(json.dumps(told) + "\n")
        elif process.returncode > 0:
            raise RuntimeError(said)


def _copied(process: "subprocess.Popen[bytes]", out: IO[str]) -> tuple[int | None, bool]:
    """Write the lines of finished cases to `out`; return the case that did not end, if any, and whether it hung."""
    assert process.stdout
    begun, rest = None, b""
    since, used_s = time.monotonic(), 0.0
    while time.monotonic() - since < WAIT_S and _used_s(process.pid) - used_s < LIMIT_S:
        if not select.select([process.stdout], [], [], 1)[0]:
            continue
        if not (read := process.stdout.read(1 << 16)):
            return begun, False
        since, used_s = time.monotonic(), _used_s(process.pid)
        *lines, rest = (rest + read).split(b"\n")
        for line in lines:
            told = json.loads(line)
            begun = None if "end" in told else told["case"]
            if "end" in told:
                out.write(line.decode() + "\n")
        out.flush()
    return begun, True


def _used_s(pid: int) -> float:
    """Return the processor time that a process has used: `utime` and `stime` of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def outcome(results: Path, name: str) -> Outcome:
    """Return what the files of results say of format `name`, of all shards."""
    found = Outcome()
    for file in sorted(results.glob(results_file(results, name).name.replace("0of1", "*of*"))):
        for line in read_lines(file):
            found.add(line)
    return found


def main() -> None:
    """Run the study for the formats given, or for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", help=f"of: {', '.join(SEEDS)}")
    parser.add_argument("-n", type=int, default=10_000, help="mutations a format")
    parser.add_argument("--case", type=int, help="this case alone")
    parser.add_argument("--shard", default="0/1", metavar="K/N", help="every Nth case, from the Kth")
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "eidola-robustness")
    parser.add_argument("--mend", action="store_true", help="convert again what ended badly")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and do nothing else")
    arguments = parser.parse_args()
    names = arguments.formats or list(SEEDS)
    shard = first, of = tuple(map(int, arguments.shard.split("/")))
    if arguments.case is not None:
        for name in names:
            (file := results_file(arguments.results / "one", name)).unlink(missing_ok=True)
            run_cases(name, file, [arguments.case])
            print(file.read_text(), end="")
        return
    for share in [] if arguments.write else ROUNDS:
        for name in names:
            file = results_file(arguments.results, name, shard)
            if arguments.mend:
                mend(name, file)
            run(name, arguments.results, int(arguments.n * share) // SHARES.get(name, 1) // of, shard)
            if takes_bombs(name) and first == 0:
                run_cases(name, file, range(-BOMBS, 0))
            print(f"{name}: {outcome(arguments.results, name).line()}", flush=True)
    found = {name: outcome(arguments.results, name) for name in SEEDS}
    if arguments.write or not arguments.formats:
        PAGE.write_text(page(PAGE.read_text(), found))
    for name in names:
        for line in found[name].failures[:20]:
            print(f"{name}: {json.dumps(line)}", flush=True)
    sys.exit(any(one.failures for one in found.values()))


if __name__ == "__main__":
    main()

"""Kill conversions at random moments, as `kill -9` does, and look at what they leave.

    python docs/studies/robustness_kills.py -n 200
    python docs/studies/robustness_kills.py -n 20 kineto nsys

Every other kill comes at a random step in the file system (a file opened, a folder made, renamed or removed), the
others after a random part of the processor time that the conversion takes. In a third of the cases a trace is
there already, and is to be replaced. Then nothing may lie under the output's name, or a trace that is whole, byte
for byte as it would have been; and the same command must end in the new trace, without reading again what was
read, and leave nothing beside it.
"""

import argparse
import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from robustness_seeds import SEEDS

from eidola.convert import captured, convert, find_format

STEPS = {
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.listdir",
    "os.scandir",
    "shutil.rmtree",
}
FORMATS = [name for name in SEEDS if "," not in name]


class Victim:
    """One format's job in a folder, and what its conversion makes of it when nobody kills it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.seed, self.folder = name, SEEDS[name], folder
        self.source, self.out = folder / "in", folder / "job.eidola"
        self.source.mkdir()
        self.seed.make(self.source)
        self.convert(overwrite=False)  # here, so that no process has to import and load anything
        shutil.rmtree(self.out)
        self.old = self._reference(lambda: self.convert(overwrite=False, only_first=True))
        self.steps, self.seconds = 0, 0.0
        self.whole = self._reference(self._counted)
        steps, seconds = (folder / "counted").read_text().split()
        (folder / "counted").unlink()
        self.steps, self.seconds = int(steps), float(seconds)

    def _reference(self, make: Callable[[], None]) -> dict[str, str]:
        if forked(make) != 0:
            raise SystemExit(f"the seed of {self.name} does not convert")
        found = content(self.out)
        shutil.rmtree(self.out)
        return found

    def _counted(self) -> None:
        """Convert, and note how many steps and how much processor time that takes."""
        steps = [0]
        sys.addaudithook(lambda event, _: steps.__setitem__(0, steps[0] + (event in STEPS)))
        began = time.process_time()
        self.convert(overwrite=False)
        (self.folder / "counted").write_text(f"{steps[0]} {time.process_time() - began}")

    def convert(self, *, overwrite: bool, only_first: bool = False) -> None:
        """Convert as the command line does; of files that are given one by one the first, for an older trace."""
        if self.name.startswith("captured"):
            captured(self.source, self.out, overwrite=overwrite)
            return
        kind = find_format("kineto" if self.seed.companions else self.name)
        companions = sorted(self.source.glob(self.seed.companions)) if self.seed.companions else []
        files = [path for path in sorted(self.source.iterdir()) if path not in companions]
        single = only_first and self.seed.small is not None and self.name not in ("npkit", "nsys")
        paths = files[:1] if single else files if companions else [self.source]

        def tell(what: str, done: int, total: int) -> None:
            if what.startswith("reading"):
                with (self.folder / "read").open("a") as file:
                    file.write(f"{done} ")

        convert(kind, paths, self.out, companions=companions, overwrite=overwrite, progress=tell)

    def kill(self, rng: Random, by_step: bool, replaces: bool) -> str:
        """Kill one conversion; return what it left. Raises AssertionError where that is neither of the two."""
        if replaces:
            assert forked(lambda: self.convert(overwrite=False, only_first=True)) == 0
        at = rng.randrange(1, self.steps + 1) if by_step else rng.random() * self.seconds
        ended = forked(lambda: self._mortal(at, by_step, replaces))
        found = content(self.out) if self.out.exists() else None
        wanted = [None, self.whole, *([self.old] if replaces else [])]
        assert found in wanted, f"{self.name}: killed at {at}: {sorted(found or ())}"
        kept = self.folder / f".{self.out.name}.ranks"
        finished = sum(not p.name.startswith(".") for p in kept.iterdir()) if kept.exists() else 0
        left = "old" if replaces and found == self.old else "nothing" if found is None else "whole"
        (self.folder / "read").unlink(missing_ok=True)
        if left != "whole":
            assert forked(lambda: self.convert(overwrite=True)) == 0
            told = (self.folder / "read").read_text().split() if (self.folder / "read").exists() else ["0"]
            assert int(told[0]) == finished, f"{self.name}: {finished} ranks were read, {told[0]} kept"
        else:
            assert forked(lambda: self.convert(overwrite=True)) == 0  # which clears what lies beside it
        assert content(self.out) == self.whole, f"{self.name}: killed at {at}: another trace"
        beside = {p.name for p in self.folder.iterdir()} - {"in", "read", self.out.name}
        assert not beside, f"{self.name}: killed at {at}: {beside}"
        shutil.rmtree(self.out)
        return f"{left}{', a rank or more to go on with' if finished else ''}" if ended else "too quick"

    def _mortal(self, at: float, by_step: bool, replaces: bool) -> None:
        """Convert in a process that dies at step `at`, or after `at` seconds of processor time."""
        left = [int(at)]

        def hear(event: str, arguments: tuple[Any, ...]) -> None:
            if event in STEPS:
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

        if by_step:
            sys.addaudithook(hear)
        else:
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # which ends a process as suddenly
            signal.setitimer(signal.ITIMER_PROF, max(at, 1e-4))
        self.convert(overwrite=replaces)


def forked(work: Callable[[], None]) -> int:
    """Do `work` in a process of its own; return its exit status as wait(2) gives it."""
    if child := os.fork():
        return os.waitpid(child, 0)[1]
    try:
        work()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001  whatever it is, the parent tells of it
        print(repr(error)[:500], file=sys.stderr, flush=True)
        os._exit(1)


def content(folder: Path) -> dict[str, str]:
    """Return the digests of all files of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def study(name: str, kills: int) -> Counter[str]:
    """Kill conversions of one format; return how often they left what."""
    left = Counter[str]()
    with tempfile.TemporaryDirectory() as held:
        victim = Victim(name, Path(held))
        for number in range(kills):
            rng = Random(f"{name} {number}")
            left[victim.kill(rng, number % 2 == 0, number % 3 == 0)] += 1
    return left


def main() -> None:
    """Run the study for the formats given, or for all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", help=f"of: {', '.join(FORMATS)}")
    parser.add_argument("-n", type=int, default=200, help="kills a format")
    arguments = parser.parse_args()
    for name in arguments.formats or FORMATS:
        left = study(name, arguments.n)
        print(f"{name}: {', '.join(f'{count} {what}' for what, count in sorted(left.items()))}", flush=True)


if __name__ == "__main__":
    main()

"""How long it takes before anything happens: compiling once, loading what was compiled, and the command line."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figure import REPEATS, Figure, measure, median

EIDOLA = Path(sys.executable).with_name("eidola")


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as cache:
        env = {"NUMBA_CACHE_DIR": cache}
        first = measure("first_run.py", env=env)
        later = [measure("first_run.py", env=env) for _ in range(REPEATS)]
    yield Figure("first run, engine compiled", first["seconds"], "s")
    name = "the first"
    yield Figure("first run of the next process", median(later, "seconds"), "s", first["seconds"], name)
    commands = {"help": [str(EIDOLA), "--help"], "bare": [sys.executable, "-c", "pass"]}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append({"seconds": time.perf_counter() - begin})
    bare = median(times["bare"], "seconds")
    yield Figure("eidola --help", median(times["help"], "seconds"), "s", bare, "python -c pass")

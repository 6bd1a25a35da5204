"""How long it takes before anything happens: compiling once, loading what was compiled, and the command line."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from figure import HERE, REPEATS, Figure, measure, median

EIDOLA = Path(sys.executable).with_name("eidola")


def figures() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as cache:
        env = {
            "NUMBA_CACHE_DIR": cache,
            "PYTHONPYCACHEPREFIX": f"{cache}/bytecode",
            "PYTHONDONTWRITEBYTECODE": "",
        }
        # pip leaves an installation's modules as bytecode; other installers, and some machines, do not
        loaded = [sys.executable, "-c", "import one_run, eidola.replay.engine.compiled"]
        subprocess.run(loaded, cwd=HERE, env=os.environ | env, check=True)
        first = measure("first_run.py", env=env)
        later = [measure("first_run.py", env=env) for _ in range(REPEATS)]
    for key, what in (("seconds", ""), ("cpu_seconds", ", processor time")):
        yield Figure(f"first run, engine compiled{what}", first[key], "s")
        name = f"first run of the next process{what}"
        yield Figure(name, median(later, key), "s", first[key], "the first")
    commands = {"help": [str(EIDOLA), "--help"], "bare": [sys.executable, "-c", "pass"]}
    times: dict[str, list[dict[str, float]]] = {name: [] for name in commands}
    for _ in range(REPEATS):
        for name, command in commands.items():
            begin = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
            times[name].append({"seconds": time.perf_counter() - begin})
    bare = median(times["bare"], "seconds")
    yield Figure("eidola --help", median(times["help"], "seconds"), "s", bare, "python -c pass")

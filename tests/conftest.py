"""What all tests share."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # machines are shared, and first calls compile
settings.load_profile("untimed")

# Where a shell started the tests in the background, they and their children would ignore Ctrl-C, which some test.
signal.signal(signal.SIGINT, signal.default_int_handler)

CACHE = os.environ.get("XDG_CACHE_HOME")


@pytest.fixture(scope="session")
def capture_run():
    """A function that runs `eidola capture run -o raw OPTIONS -- COMMAND` in a folder, as a user would.

    The recorder is built once into the user's own cache, whatever other tests do with theirs.
    """

    def run(folder, *command, options=(), environment=None):
        own = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        if "XDG_CACHE_HOME" not in (environment or {}):
            own.pop("XDG_CACHE_HOME", None)
            own |= {"XDG_CACHE_HOME": CACHE} if CACHE else {}
        code = "from eidola.cli.main import main; main()"
        capture = ["capture", "run", "-o", "raw", "--anonymous", *options, "--", *map(str, command)]
        return subprocess.run(
            [sys.executable, "-c", code, *capture],
            cwd=folder, env=own, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip

    return run


def pytest_addoption(parser):
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write the golden files of the current schema version again, from their JSON",
    )
    parser.addoption(
        "--refresh-pictures",
        action="store_true",
        help="write the pictures in docs/ again, from a report in a browser",
    )

"""Sample what the GPUs say of themselves (clocks, power, link counters) from a thread, and what that costs.

The file is JSON lines: the first has the source, the GPUs and their links; each further one a sample,
`{"time_ns": Unix time, "readings": [[gpu, name, value], ...], "cpu_ns": the thread's own processor time so far,
"took_ns": how long the sample took}`. Lines are written whole, so that a killed job leaves a readable file.
`eidola.convert.telemetry` reads it.
"""

import json
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ..schemas.errors import CaptureError, UsageError
from .gpus import Backend, find_backend

FORMAT = 1


class Sampler:
    """Samples into `path` every `interval_s` seconds from entering to leaving its `with`.

    Without a GPU the file says so and holds no reading, only the thread's own cost. A disk that fills up stops
    the sampling, not the job: `failed` then has the reason. Raises UsageError for an interval of zero or less,
    CaptureError where `path` cannot be written.
    """

    def __init__(
        self, path: Path, interval_s: float = 0.1, open_backend: Callable[[], Backend] = find_backend
    ) -> None:
        if interval_s <= 0:
            raise UsageError(f"a sampling interval of {interval_s} s: give more than zero")
        self.path, self.interval_s = path, interval_s
        self.samples = 0
        self.cpu_ns = 0
        self.failed: str | None = None
        self._backend = open_backend()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="eidola telemetry", daemon=True)

    def __enter__(self) -> "Sampler":
        self._file = self._open()
        self._line(self._header())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(OSError):  # what a full disk refused before
            self._file.close()
        self._backend.close()

    def _open(self) -> IO[str]:
        try:
            return self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise CaptureError(f"telemetry cannot be written to {self.path} ({error})") from error

    def _header(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "source": self._backend.name,
            "missing": self._backend.missing,
            "interval_s": self.interval_s,
            "gpus": [asdict(gpu) for gpu in self._backend.gpus()],
            "links": [asdict(link) for link in self._backend.links()],
        }

    def _run(self) -> None:
        following = time.monotonic()
        while True:
            if not self._sample():
                return
            following += self.interval_s
            if self._stop.wait(max(0.0, following - time.monotonic())):
                self._sample()  # the state at the end
                return
            following = max(
                following, time.monotonic() - self.interval_s
            )  # late: skip, never catch up in bursts

    def _sample(self) -> bool:
        began, time_ns = time.perf_counter_ns(), time.time_ns()
        readings = [[r.gpu, r.name, r.value] for r in self._backend.readings()]
        took_ns = time.perf_counter_ns() - began
        self.cpu_ns = time.thread_time_ns()
        try:
            self._line({"time_ns": time_ns, "readings": readings, "cpu_ns": self.cpu_ns, "took_ns": took_ns})
        except OSError as error:
            self.failed = str(error)
            return False
        self.samples += 1
        return True

    def _line(self, content: dict[str, Any]) -> None:
        self._file.write(json.dumps(content, separators=(",", ":")) + "\n")
        self._file.flush()

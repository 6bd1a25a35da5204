"""Profiler windows of a few steps, spaced so that what they cost stays within a share of the run's time."""

import mmap
import os
import platform
import struct
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from . import torch_private as private

FIRST_COST_NS = 200_000_000
"""What the first window is taken to cost, beside its steps, which are taken to last three times as long: more than
was measured (benchmarks/capture_overhead.py). The next one may cost twice as much as the dearest so far."""

_LOOK_EVERY_NS = 50_000_000
"""How often it is asked whether a window fits: asking costs more than the rest of a step's work here."""

_SLOTS = 256
"""Ranks of a host whose costs are told; further ones share the last place."""


class Windows:
    """Opens and seals the profiler windows of one rank.

    `mode`: `off`; `spaced` within `budget` (a share of wall time); `all`, one after the other. `operators`:
    with CPU operators, and the first with an ExecutionTrace; otherwise GPU work only, and none where no GPU is
    in use. A window is sealed by renaming its files. `on_others` is called with whether a profiler of the script
    shows Python's calls, and with False when it has stopped; `on_failure` with what went wrong meanwhile.
    """

    def __init__(
        self,
        folder: Path,
        stem: str,
        mode: str,
        *,
        operators: bool,
        steps: int,
        budget: float,
        local_rank: int,
        on_others: Callable[[bool], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.sealed: list[dict[str, Any]] = []
        self.gaps: list[dict[str, Any]] = []
        self._folder, self._stem, self._mode = folder, stem, mode
        self._operators, self._steps, self._budget = operators, steps, budget
        self._on_others, self._on_failure = on_others, on_failure
        self._began_ns = self._look_ns = time.time_ns()
        self._profiler: Any = None
        self._observer: Any = None
        self._window: dict[str, Any] = {}
        self._usual: deque[int] = deque(maxlen=32)
        self._others: str | None = None
        self._watch: private.OthersProfilers | None = None
        self._plan = _Plan(folder, local_rank) if mode == "spaced" else None

    def start(self, *, at_once: bool) -> None:
        """Watch for other profilers, and with `at_once` open the first window."""
        if not private.profilers_tell():
            self._mode = "off"
            self._note_others("no profiler windows: this PyTorch does not tell of the script's own profilers")
            return
        self._watch = private.OthersProfilers(self._give_way, self._resume)
        if private.profiler_active():
            self._note_others("the script's own profiler was active when the rank attached")
        elif at_once:
            try:
                self._open(0)
            except Exception as error:  # noqa: BLE001  (the rings go on without windows)
                self._on_failure(f"{type(error).__name__}: {error}")

    @property
    def cost_ns(self) -> int:
        """What all sealed windows cost: start, slowdown, stop and save."""
        return sum(window["cost_ns"] for window in self.sealed)

    def step(self, number: int, duration_ns: int) -> bool:
        """Note that step `number` ended; open or seal a window. Return whether one was sealed."""
        if self._mode == "off":
            return False
        if self._profiler is None:
            self._usual.append(duration_ns)
            if self._others is None and self._possible() and self._due(number):
                self._open(number + 1)
            return False
        self._window["durations_ns"].append(duration_ns)
        if len(self._window["durations_ns"]) < self._steps:
            return False
        self.seal(f"{self._steps} steps")
        if self._mode == "all" and self._others is None:
            self._open(number + 1)
        return True

    def _possible(self) -> bool:
        return self._operators or private.gpu_in_use()

    def seal(self, reason: str) -> None:
        """Stop and save the open window, if there is one."""
        if self._profiler is None or self._watch is None:
            return
        profiler, self._profiler = self._profiler, None
        window, self._window = self._window, {}
        name = f"{self._stem}.{len(self.sealed):04d}.kineto.json"
        partial = self._folder / f".partial.{name}"
        window["end_ns"] = time.time_ns()
        self._watch.ours = True
        try:
            profiler.stop()
            window["stop_ns"] = time.time_ns() - window["end_ns"]
            saving_ns = time.time_ns()
            profiler.save(str(partial))
            partial.rename(self._folder / name)
            window["execution_trace"] = self._seal_observer(name)
        finally:
            self._watch.ours = False
        window |= {"trace": name, "closed": reason, "save_ns": time.time_ns() - saving_ns}
        usual = int(median(self._usual)) if self._usual else None
        slower = [d - usual for d in window["durations_ns"]] if usual is not None else []
        window["slowdown_ns"] = max(0, sum(slower)) if usual is not None else None
        costs = ("open_ns", "stop_ns", "save_ns", "slowdown_ns")
        window["cost_ns"] = sum(window[cost] or 0 for cost in costs)
        self.sealed.append(window)
        if self._plan is not None:
            self._plan.tell(self.cost_ns, max(window["cost_ns"] for window in self.sealed))

    def abandon(self) -> None:
        """Open no more windows; drop the one that is open."""
        self._mode, profiler, self._profiler = "off", self._profiler, None
        if profiler is not None and self._watch is not None:
            self._watch.ours = True
            profiler.stop()
            self._watch.ours = False

    def close(self, reason: str) -> None:
        """Seal for the last time."""
        self.seal(reason)
        self._end_gap()
        self._mode = "off"

    def _due(self, number: int) -> bool:
        """Say whether a window opens after step `number`: ranks of a host open theirs after the same one."""
        if self._mode == "all" or self._plan is None:
            return self._mode == "all"
        planned = self._plan.read()
        if planned > number:
            return False
        if planned == number:
            return True
        if self._plan.owner and time.time_ns() >= self._look_ns:
            self._look_ns = time.time_ns() + _LOOK_EVERY_NS
            spent, dearest = self._plan.costs()
            expected = 2 * dearest or FIRST_COST_NS + 2 * self._steps * int(median(self._usual))
            if spent + expected <= self._budget * (time.time_ns() - self._began_ns):
                self._plan.write(number + 2)  # the others may be a step ahead
        return False

    def _open(self, first_step: int) -> None:
        if self._watch is None:
            return
        start_ns = time.time_ns()
        self._watch.ours = True
        try:
            if self._operators and not self.sealed:
                self._observer = self._new_observer()
            self._profiler = private.Profiler(operators=self._operators, observer=self._observer)
            self._profiler.start()
        except BaseException:
            self._profiler = self._observer = None
            raise
        finally:
            self._watch.ours = False
        opened_ns = time.time_ns()
        self._window = {"first_step": first_step, "start_ns": opened_ns, "open_ns": opened_ns - start_ns}
        self._window["durations_ns"] = []

    def _new_observer(self) -> Any:
        """Return an ExecutionTraceObserver, or None where the script has one.

        Only the first window has one: an event that began under an observer and ends under its successor
        crashes the process (execution_trace_observer.cpp, onFunctionExit: it pops an empty stack; seen on 2.13).
        """
        from torch.profiler import ExecutionTraceObserver

        observer = ExecutionTraceObserver()
        observer.register_callback(str(self._folder / f".partial.{self._stem}.et.json"))
        return observer if getattr(observer, "is_registered", False) else None

    def _seal_observer(self, name: str) -> str | None:
        observer, self._observer = self._observer, None
        if observer is None:
            return None
        observer.unregister_callback()
        saved = name.replace(".kineto.", ".et.")
        (self._folder / f".partial.{self._stem}.et.json").rename(self._folder / saved)
        return saved

    def _give_way(self, stacks: bool) -> None:
        try:
            self.seal("the script's own profiler")
        except Exception as error:  # noqa: BLE001  (a capture that fails must not fail the script's profiler)
            self._on_failure(f"{type(error).__name__}: {error}")
        self._note_others("the script started a profiler of its own")
        self._on_others(stacks)

    def _note_others(self, reason: str) -> None:
        if self._others is None and self._possible():
            self.gaps.append({"start_ns": time.time_ns(), "end_ns": None, "reason": reason})
        self._others = reason

    def _resume(self) -> None:
        self._end_gap()
        self._others = None
        self._on_others(False)

    def _end_gap(self) -> None:
        if self.gaps and self.gaps[-1]["end_ns"] is None:
            self.gaps[-1]["end_ns"] = time.time_ns()


class _Plan:
    """What the ranks of a host share, in a file: after which step all open their next window, and their costs.

    The first rank of the host decides, two steps ahead, by the rank whose windows have cost most: the others wait
    for that one at their next collective.
    """

    def __init__(self, folder: Path, local_rank: int) -> None:
        self.owner = local_rank == 0
        self._at = 8 + 16 * min(local_rank, _SLOTS - 1)
        size = 8 + 16 * _SLOTS
        file = os.open(folder / f"claim-windows-{platform.node()}", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(file, size)
            self._map = mmap.mmap(file, size)
        finally:
            os.close(file)
        self.tell(0, 0)  # where a rank before this one, or a killed session, has left something
        if self.owner:
            self.write(-1)

    def read(self) -> int:
        """Return the planned step; -1: none yet."""
        return int(struct.unpack_from("<q", self._map)[0]) - 1

    def write(self, step: int) -> None:
        """Plan for `step`."""
        struct.pack_into("<q", self._map, 0, step + 1)

    def tell(self, spent_ns: int, dearest_ns: int) -> None:
        """Note what this rank's windows have cost so far, together and at most."""
        struct.pack_into("<qq", self._map, self._at, spent_ns, dearest_ns)

    def costs(self) -> tuple[int, int]:
        """Return the most that any rank's windows have cost, together and each."""
        told = struct.unpack_from(f"<{2 * _SLOTS}q", self._map, 8)
        return max(told[::2]), max(told[1::2])

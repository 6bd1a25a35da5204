"""One rank of a PyTorch job, recorded at one of two levels.

`light`: collectives and user-scope events in a ring, steps and phases in another, GPU kernels in spaced windows.
`detail`: also windows with CPU operators and an ExecutionTrace. Without the C++ recorder there are windows only.
"""

import contextlib
import functools
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec

from ..schemas.errors import EidolaError, UsageError
from . import torch_private as private
from .recorder import build, place
from .recorder.ring import Marks, create
from .torch_windows import Windows

RECORD_VERSION = 2
MARKS = 16384
"""Steps and phases kept: 2 MiB."""
NAMES = 1024
RECORDS_A_MIB = 8192

Detail = Literal["off", "spaced", "all"]


@dataclass(frozen=True)
class Options:
    """How much to record.

    `detail`: `off` is the light level, `spaced` adds windows of `window_steps` steps that cost at most `budget`
    of the run's time, `all` has one window after the other. `ring_mib`: memory for collectives, of 8,192
    records a MiB; when it is full the oldest go.
    """

    detail: Detail = "off"
    window_steps: int = 3
    budget: float = 0.01
    ring_mib: int = 32

    def __post_init__(self) -> None:
        if self.detail not in ("off", "spaced", "all"):
            raise UsageError(f"detail is {self.detail!r}; it is off, spaced or all")
        if self.window_steps < 1:
            raise UsageError(f"window_steps is {self.window_steps}; a window needs at least 1")
        if not 0 < self.budget <= 1:
            raise UsageError(
                f"budget is {self.budget}; it is a share of the run's time, above 0 and at most 1"
            )
        if not 1 <= self.ring_mib <= 65536:
            raise UsageError(f"ring_mib is {self.ring_mib}; choose 1 to 65536")

    @property
    def ring_bytes(self) -> int:
        """Memory of one rank: for collectives, for steps and phases, and for NCCL's records."""
        return (self.ring_mib + 2 + 16) << 20

    def as_json(self) -> str:
        """Return the options as text for an environment variable."""
        return json.dumps(asdict(self))


def note_failure(folder: Path, text: str) -> None:
    """Leave `text` for the run to tell; a full disk loses it, and the script goes on."""
    with contextlib.suppress(OSError):
        (folder / f"failed-{os.getpid()}.txt").write_text(text, encoding="utf-8")


_P = ParamSpec("_P")
_Method = Callable[Concatenate["TorchRank", _P], None]


def guarded(method: _Method[_P]) -> _Method[_P]:
    """Keep what goes wrong in `method` from the script: it is noted, and no more windows open."""

    @functools.wraps(method)
    def wrapped(rank: "TorchRank", /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(rank, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  (a capture that fails must not fail the training)
            rank.give_up(f"rank {rank.record['rank']}: {type(error).__name__}: {error}")

    return wrapped


class TorchRank:
    """Records one rank into `folder`; `start`, then `step` and `phase` as wanted, then `seal`."""

    def __init__(
        self, folder: Path, rank: int, world_size: int, *, restart: int = 0, options: Options | None = None
    ) -> None:
        self.folder = folder
        self.pid = os.getpid()
        self.options = options or Options()
        self.stem = f"rank{rank:05d}.{restart}"
        self.record: dict[str, Any] = {
            "version": RECORD_VERSION,
            "rank": rank,
            "world_size": world_size,
            "restart": restart,
            "options": asdict(self.options),
            "host": platform.node(),
            "pid": self.pid,
            "attached_ns": time.time_ns(),
            "sealed_ns": None,
            "sealed": None,
            "recorder": None,
            "calls": None,
            "marks": None,
            "flight": None,
            "device": None,
            "groups": [],
            "windows": [],
            "gaps": [],
        }
        self._windows: Windows
        self._marks: Marks
        self._recorder: Any = None
        self._hook: Any = None
        self._own_steps = False
        self._optimizer: Any = None
        self._number = self._groups = 0
        self._step_start_ns = self._began_ns = 0

    def start(self) -> None:
        """Begin to record. Raises CaptureError where the ring cannot be allocated; nothing is then hooked."""
        import torch

        self.record["versions"] = {"torch": torch.__version__}
        marks, rings = f"{self.stem}.marks.ring", place.home(self.folder)
        self._marks = Marks(rings / marks, MARKS)
        self.record["marks"] = marks
        self._start_recorder(rings / f"{self.stem}.calls.ring")
        self._start_windows()
        os.register_at_fork(after_in_child=self._forget)
        self._step_start_ns = self._began_ns = time.time_ns()
        self._count_optimizer_steps()
        self.record["attach_ns"] = self._began_ns - self.record["attached_ns"]
        self._note_state()

    @guarded
    def step(self) -> None:
        """End a step here; from the first call on, optimizer steps no longer count, nor those before it."""
        if self.record["sealed"] or os.getpid() != self.pid:
            return
        if not self._own_steps:
            self._own_steps = True
            self._number, self._step_start_ns = 0, self._began_ns
        self._count_step("own_step")

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark the work inside as a phase of the script."""
        start_ns = time.time_ns()
        try:
            yield
        finally:
            if os.getpid() == self.pid:
                self._marks.write("phase", start_ns, time.time_ns(), text=name)

    def give_up(self, reason: str) -> None:
        """Open no more windows, because of `reason`; what is recorded without them goes on."""
        note_failure(self.folder, reason)
        self._windows.abandon()

    def note_groups(self) -> None:
        """Note the process groups that exist now."""
        known = {group["name"] for group in self.record["groups"]}
        self.record["groups"] += [g for g in private.process_groups() if g["name"] not in known]
        self._groups = private.group_count()

    def seal(self, reason: str) -> None:
        """Seal the open window, if there is one, and close the record."""
        if self._hook is not None:
            self._hook.remove()
        self.note_groups()
        self._windows.close(reason)
        if self._recorder is not None:
            self._recorder.eidola_recorder_switch(0)
        elif (flights := private.flight_records()) is not None:
            self.record["flight"] = f"{self.stem}.flight.json"
            (self.folder / self.record["flight"]).write_bytes(flights)
        self.record |= {"sealed": reason, "sealed_ns": time.time_ns(), "steps": self._number}
        self._note_state()

    def _start_recorder(self, ring: Path) -> None:
        layout = create(ring, self.options.ring_mib * RECORDS_A_MIB, NAMES)
        try:
            self._recorder = build.start(ring, layout)
        except EidolaError as error:
            self.record["recorder"] = str(error)
            ring.unlink()
            return
        self.record["calls"] = ring.name

    def _start_windows(self) -> None:
        """Choose the windows: where there is no recorder they are all that there is, and one opens at once."""
        alone = self._recorder is None
        detail = self.options.detail
        self._windows = Windows(
            self.folder,
            self.stem,
            "spaced" if detail == "off" else detail,
            operators=alone or detail != "off",
            steps=self.options.window_steps,
            budget=self.options.budget,
            local_rank=int(local)
            if (local := os.environ.get("LOCAL_RANK", "")).isdigit()
            else self.record["rank"],
            on_others=self._others_profile,
            on_failure=self.give_up,
        )
        self._windows.start(at_once=alone or detail == "all")

    def _count_optimizer_steps(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self._hook = register_optimizer_step_post_hook(self._optimizer_stepped)

    def _others_profile(self, stacks: bool) -> None:
        """Keep our hook out of a trace of the script's own that shows Python's calls."""
        if self.record["sealed"]:
            return
        if stacks and self._hook is not None:
            self._hook.remove()
            self._hook = None
        elif not stacks and self._hook is None:
            self._count_optimizer_steps()

    @guarded
    def _optimizer_stepped(self, optimizer: Any, *_: Any) -> None:
        if self._optimizer is None:
            self._optimizer = optimizer
        if optimizer is self._optimizer and not self._own_steps and os.getpid() == self.pid:
            self._count_step("step")

    def _count_step(self, kind: str) -> None:
        now_ns = time.time_ns()
        self._marks.write(kind, self._step_start_ns, now_ns, number=self._number)
        sealed = self._windows.step(self._number, now_ns - self._step_start_ns)
        self._number += 1
        if sealed or self._number == 1 or private.group_count() != self._groups:
            self._note_state()
        self._step_start_ns = time.time_ns()

    def _note_state(self) -> None:
        """Write what is known so far: what a killed process leaves."""
        self.note_groups()
        self._note_device()
        self.record |= {"windows": self._windows.sealed, "gaps": self._windows.gaps}
        partial = self.folder / f".partial.{self.stem}.json"
        partial.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        partial.rename(self.folder / f"{self.stem}.json")

    def _note_device(self) -> None:
        """Note the GPU, once the script has chosen one: asking earlier would make a context on the first."""
        import torch

        if self.record["device"] is not None or not torch.cuda.is_initialized():
            return
        index = torch.cuda.current_device()
        properties = torch.cuda.get_device_properties(index)
        uuid = getattr(properties, "uuid", None)
        pci = [getattr(properties, f"pci_{part}_id", None) for part in ("domain", "bus", "device")]
        self.record["device"] = {
            "device": index,
            "vendor": "amd" if torch.version.hip else "nvidia",
            "model": properties.name,
            "uuid": None if uuid is None else str(uuid),
            "pci": None if None in pci else pci,
            "compute_units": properties.multi_processor_count,
            "memory_bytes": properties.total_memory,
        }

    def _forget(self) -> None:
        """In a forked child: record nothing more."""
        if self._hook is not None:
            self._hook.remove()

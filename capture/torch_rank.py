"""One rank of a PyTorch job: a profiler window, process groups, steps and phases, kept as raw records.

The window opens when the rank attaches and closes after `steps` optimizer steps (or calls of `step`), when
the script starts a profiler of its own, or at exit. Private names of torch are used in this file only.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class TorchRank:
    """Records one rank into `folder`; `start`, then `step` and `phase` as wanted, then `seal`."""

    def __init__(
        self, folder: Path, rank: int, world_size: int, *, restart: int = 0, steps: int = 20
    ) -> None:
        self.folder = folder
        self.pid = os.getpid()
        self.steps = steps
        self.stem = f"rank{rank:05d}.{restart}"
        self.record: dict[str, Any] = {
            "rank": rank,
            "world_size": world_size,
            "restart": restart,
            "sealed": None,
            "trace": None,
            "gap": None,
            "window_ns": None,
            "groups": [],
            "steps": [],
            "phases": [],
        }
        self._profiler: Any = None
        self._own_steps = False
        self._optimizer: Any = None
        self._hook: Any = None
        self._began_ns = self._step_start_ns = 0

    def start(self) -> None:
        """Open the window, unless a profiler is active already: two at once empty each other."""
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.record["versions"] = {"torch": torch.__version__}
        self._began_ns = self._step_start_ns = time.time_ns()
        self.note_groups()
        if torch.autograd._profiler_enabled():
            self.record["gap"] = "the script's own profiler was active when the rank attached"
        else:
            self._start_profiler()
        self._hook = register_optimizer_step_post_hook(self._optimizer_stepped)
        self._write()

    def step(self) -> None:
        """End a step here; from the first call on, optimizer steps no longer count, nor those before it."""
        if not self._own_steps:
            self._own_steps = True
            self.record["steps"].clear()
            self._step_start_ns = self._began_ns
        self._count_step()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Mark the work inside as a phase of the script."""
        start_ns = time.time_ns()
        try:
            yield
        finally:
            self.record["phases"].append({"name": name, "start_ns": start_ns, "end_ns": time.time_ns()})

    def note_groups(self) -> None:
        """Note the process groups that exist now: name, ranks, backend, description."""
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return
        known = {group["name"] for group in self.record["groups"]}
        world = list(range(dist.get_world_size()))
        for config in getattr(dist.distributed_c10d._world, "pg_config_info", []):
            if config["pg_name"] not in known:
                group = {"name": config["pg_name"], "description": config.get("pg_desc")}
                group |= {"ranks": config.get("ranks") or world, "backend": config.get("backend_config")}
                self.record["groups"].append(group)

    def seal(self, reason: str) -> None:
        """Close the window, if it is open, save what it saw, and write the record."""
        if self._hook is not None:
            self._hook.remove()
        self.note_groups()
        if self._profiler is not None:
            self._stop_profiler(reason)
        self.record["sealed"] = reason
        self._write()

    def _start_profiler(self) -> None:
        import torch

        activities = [torch.profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities, record_shapes=True)
        self.record["window_ns"] = [time.time_ns(), None]
        self._profiler.start()
        self._give_way()

    def _stop_profiler(self, reason: str) -> None:
        profiler, self._profiler = self._profiler, None
        profiler.stop()
        self.record["window_ns"][1] = time.time_ns()
        self.record["window_closed"] = reason
        name = f"{self.stem}.kineto.json.gz"
        partial = self.folder / f".partial.{name}"
        profiler.export_chrome_trace(str(partial))
        partial.rename(self.folder / name)
        self.record["trace"] = name

    def _give_way(self) -> None:
        """Seal our window before any other profiler prepares, and not again."""
        from torch.autograd.profiler import profile

        prepare = getattr(profile, "_prepare_trace", None)
        if prepare is None:
            return
        rank = self

        def prepare_other(other: Any, *args: Any, **kwargs: Any) -> Any:
            profile._prepare_trace = prepare
            if rank._profiler is not None and os.getpid() == rank.pid:
                rank.record["gap"] = "the script started a profiler of its own"
                rank._stop_profiler("script's profiler")
            return prepare(other, *args, **kwargs)

        profile._prepare_trace = prepare_other

    def _optimizer_stepped(self, optimizer: Any, *_: Any) -> None:
        if self._optimizer is None:
            self._optimizer = optimizer
        if optimizer is self._optimizer and not self._own_steps and os.getpid() == self.pid:
            self._count_step()

    def _count_step(self) -> None:
        now_ns = time.time_ns()
        number = len(self.record["steps"])
        if number >= self.steps:
            return
        self.record["steps"].append({"step": number, "start_ns": self._step_start_ns, "end_ns": now_ns})
        self._step_start_ns = now_ns
        if number + 1 == self.steps and self._profiler is not None:
            self._stop_profiler(f"{self.steps} steps")
            self._write()

    def _write(self) -> None:
        partial = self.folder / f".partial.{self.stem}.json"
        partial.write_text(json.dumps(self.record, indent=1) + "\n", encoding="utf-8")
        partial.rename(self.folder / f"{self.stem}.json")

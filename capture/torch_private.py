"""Names of PyTorch that are not public, all in this file; where one is missing, the capture does without.

Checked against PyTorch 2.11 and 2.13: torch/distributed/distributed_c10d.py (_world.pg_config_info),
torch/autograd/profiler.py (profile._prepare_trace, _run_on_profiler_stop), torch/profiler/profiler.py
(ExecutionTraceObserver), torch._C._autograd._profiler_enabled, torch._C._distributed_c10d._dump_fr_trace_json.
"""

import os
from collections.abc import Callable
from typing import Any


def process_groups() -> list[dict[str, Any]]:
    """Return the process groups that exist: name, description, ranks, backend; [] where torch does not say."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return []
    world = list(range(dist.get_world_size()))
    configs = getattr(getattr(dist.distributed_c10d, "_world", None), "pg_config_info", None) or []
    return [
        {
            "name": config["pg_name"],
            "description": config.get("pg_desc"),
            "ranks": config.get("ranks") or world,
            "backend": config.get("backend_config"),
        }
        for config in configs
    ]


def group_count() -> int:
    """Return how many process groups there are: cheap enough for every step."""
    import torch.distributed as dist

    return len(getattr(getattr(dist.distributed_c10d, "_world", None), "pg_map", ()))


def flight_records() -> bytes | None:
    """Return the flight recorder's ring as JSON: the last collectives, with group and place; None without one."""
    import torch

    dump = getattr(getattr(torch._C, "_distributed_c10d", None), "_dump_fr_trace_json", None)
    if dump is None:
        return None
    text = dump(True, False)  # all collectives, not only those under way
    return text if isinstance(text, bytes) else str(text).encode()


def profiler_active() -> bool:
    """Say whether a profiler records in this process."""
    import torch

    return bool(torch.autograd._profiler_enabled())


class Profiler:
    """A profiler that records CPU operators with shapes (`operators`), and GPU work where a GPU is in use.

    torch.profiler.profile would do, but it imports torch._inductor, which takes seconds of processor time (2.13,
    _KinetoProfile.prepare_trace), and environment variables add to it.
    """

    def __init__(self, *, operators: bool, observer: Any) -> None:
        from torch.autograd.profiler import profile

        gpu = "cuda" if gpu_in_use() else None
        self._profile = profile(use_cpu=operators, use_device=gpu, record_shapes=operators, use_kineto=True)
        self._observer = observer

    def start(self) -> None:
        """Begin to record."""
        if self._observer is not None:
            self._observer.start()
        self._profile.__enter__()

    def stop(self) -> None:
        """Stop recording."""
        if self._observer is not None:
            self._observer.stop()
        self._profile.__exit__(None, None, None)

    def save(self, path: str) -> None:
        """Write what was recorded as Kineto's JSON."""
        self._profile.export_chrome_trace(path)


def gpu_in_use() -> bool:
    """Say whether this process has a CUDA or ROCm context; never makes one."""
    import torch

    return bool(torch.cuda.is_initialized())


def profilers_tell() -> bool:
    """Say whether this PyTorch has what tells us of other profilers: without it, none of ours may start."""
    import torch
    from torch.autograd import profiler
    from torch.profiler import ExecutionTraceObserver

    return (
        hasattr(torch.autograd, "_profiler_enabled")
        and hasattr(profiler.profile, "_prepare_trace")
        and hasattr(profiler, "_run_on_profiler_stop")
        and hasattr(ExecutionTraceObserver, "register_callback")
        and hasattr(ExecutionTraceObserver, "unregister_callback")
    )


class OthersProfilers:
    """Tells when a profiler or an ExecutionTraceObserver that is not ours starts and stops.

    `before(stacks)` is called before another's prepares (`stacks`: it shows Python's calls), `after()` when
    the last has stopped; `ours` is true while we start or stop our own.
    """

    def __init__(self, before: Callable[[bool], None], after: Callable[[], None]) -> None:
        from torch.autograd import profiler
        from torch.profiler import ExecutionTraceObserver

        self.ours = False
        self._pid = os.getpid()
        self._before, self._after = before, after
        self._open: set[int] = set()
        self._wrap(profiler.profile, "_prepare_trace", self._began, before=True)
        # Called when the other has stopped recording, so that its trace does not show this call.
        self._wrap(profiler, "_run_on_profiler_stop", self._ended, before=False)
        self._wrap(ExecutionTraceObserver, "register_callback", self._began, before=True)
        self._wrap(ExecutionTraceObserver, "unregister_callback", self._ended, before=False)

    def _wrap(self, home: Any, name: str, action: Callable[..., None], *, before: bool) -> None:
        function = getattr(home, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            others = not self.ours and os.getpid() == self._pid
            if before and others:
                action(*args)
            result = function(*args, **kwargs)
            if not before and others:
                action(*args)
            return result

        setattr(home, name, wrapped)

    def _began(self, other: Any, *_: Any) -> None:
        self._open.add(self._key(other))
        self._before(bool(getattr(other, "with_stack", False)))

    def _ended(self, other: Any = None, *_: Any) -> None:
        was = bool(self._open)
        self._open.discard(self._key(other))
        if was and not self._open:
            self._after()

    @staticmethod
    def _key(other: Any) -> int:
        """Tell observers apart, as one that is destroyed unregisters again; only one profiler records at a time."""
        return id(other) if hasattr(other, "register_callback") else 0

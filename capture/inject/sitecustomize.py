"""Put on PYTHONPATH by `eidola capture run`: attach to the first process group that this process joins.

Standard library only, and never an import of torch: a process that does not use torch.distributed pays one
look at a module's name an import. The sitecustomize that this one shadows is run as if it were not there.
"""

import atexit
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_TARGET = "torch.distributed.distributed_c10d"
_HERE = Path(__file__).resolve().parent


class _Finder:
    """Hook torch's process groups right after their module has run; then look at nothing more."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _TARGET:
            return None
        sys.meta_path.remove(_Finder)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _hook(module: ModuleType) -> None:
    try:
        from eidola.capture.attach import hook
    except ImportError as error:
        folder = Path(os.environ["EIDOLA_CAPTURE_FOLDER"])
        (folder / f"failed-{os.getpid()}.txt").write_text(f"eidola cannot be imported: {error}")
        return
    hook(module)


def _at_exit() -> None:
    attach = sys.modules.get("eidola.capture.attach")
    if attach is not None:
        attach.finish()


def _run_shadowed() -> None:
    others = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is None or spec.loader is None:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


if "EIDOLA_CAPTURE_FOLDER" in os.environ:
    sys.meta_path.insert(0, _Finder)
    # Registered before torch is imported, so that it runs after torch's own handlers.
    atexit.register(_at_exit)
_run_shadowed()

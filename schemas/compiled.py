"""Numba's compiler with its results kept in the user's cache folder, a folder for each set of sources.

A cache's name holds a hash of all its sources, because Numba looks for changes only in the file of the function
that it loads, not in those that it calls.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import platformdirs
from numba import _dynfunc
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

Decorator = Callable[[Callable[..., Any]], Any]
_OPTIONS = {"error_model": "numpy", "boundscheck": False}


@dataclass(frozen=True)
class Compiler:
    """Compiles functions and keeps the result in `cache` ($NUMBA_CACHE_DIR where that is set)."""

    cache: Path

    def is_compiled(self) -> bool:
        """Whether an earlier process has left compiled code for these sources."""
        return any(self.cache.rglob("*.nbi"))

    def jit(self, **options: Any) -> Decorator:
        """Return a decorator that compiles with `options` of `numba.njit`."""

        def decorate(function: Callable[..., Any]) -> Any:
            # A function finds its cache when it is decorated, by a setting that is global.
            before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, str(self.cache)
            try:
                return numba.njit(cache=True, **_OPTIONS, **options)(function)
            finally:
                numba.config.CACHE_DIR = before

        return decorate


def compiler(name: str, sources: Iterable[Path]) -> Compiler:
    """Return the compiler for the functions in the files `sources`, which share the cache `name`."""
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Compiler(Path(given))
    digest = hashlib.sha256()
    for file in sorted(sources):
        digest.update(file.read_bytes())
    return Compiler(Path(platformdirs.user_cache_dir("eidola")) / f"{name}-{digest.hexdigest()[:16]}")


def part(**options: Any) -> Decorator:
    """Return a decorator for a function that only compiled functions call; `options` are those of `numba.njit`.

    Numba makes machine code and Python's wrappers of each function with all that it calls, once for itself and once
    more for every caller. Of a part nothing is made but what its callers take over, whose optimiser sees it all at
    once: the same code in less than half the time. Called from Python it does nothing but crash.
    """
    how = {"pipeline_class": _Part, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    decorate: Decorator = numba.njit(**_OPTIONS, **how, **options)
    return decorate


@register_pass(mutates_CFG=True, analysis_only=False)
class _Lowering(NativeLowering):  # type: ignore[misc]
    """Numba's lowering to LLVM, which goes no further; its own ends with `CPUContext.get_executable`."""

    _name = "eidola_part_lowering"

    def run_pass(self, state: Any) -> bool:
        library = state.targetctx.codegen().create_library(state.func_id.func_qualname)
        library.enable_object_caching()
        library._optimize_final_module = lambda: None
        library._finalize_final_module = lambda: setattr(library, "_finalized", True)
        state.library, state.flags.no_compile = library, True
        super().run_pass(state)
        lowered = state["cr"]
        described = lowered.fndesc
        # What names the function among its callers; address 0, since there is no code to call.
        entry = _dynfunc.make_function(
            described.lookup_module(), described.qualname, "", 0, lowered.env, (library,)
        )
        state.targetctx.insert_user_function(entry, described, [library])
        state["cr"] = lowered._replace(cfunc=entry)
        return True


class _Part(CompilerBase):  # type: ignore[misc]
    """Numba's passes, with a lowering of our own."""

    def define_pipelines(self) -> list[Any]:
        passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
        passes.add_pass_after(_Lowering, NativeLowering)
        passes.passes = [step for step in passes.passes if step[0] is not NativeLowering]
        passes.finalize()
        return [passes]

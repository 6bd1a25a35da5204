"""The compiler of the engine's functions."""

from pathlib import Path

from ...schemas.compiled import compiler, part

_COMPILER = compiler("engine", Path(__file__).parent.glob("*.py"))
CACHE, is_compiled = _COMPILER.cache, _COMPILER.is_compiled

# What Python calls; kept in the cache with all that it calls. Nothing here allocates, so reference counting is off.
# Others run meanwhile: nothing of Python's is touched.
entry = _COMPILER.jit(_nrt=False, no_cfunc_wrapper=True, nogil=True)

# What entries call; passes dozens of arrays, so everything is inlined.
jit = part(_nrt=False, forceinline=True)

# What runs where options ask for it, or would be inlined in several places: called, so that it costs the rest
# neither time nor compilation.
cold = part(_nrt=False)

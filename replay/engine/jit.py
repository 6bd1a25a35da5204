"""The compiler of the engine's functions."""

from pathlib import Path

from ...schemas.compiled import compiler

_COMPILER = compiler("engine", Path(__file__).parent.glob("*.py"))
CACHE, is_compiled = _COMPILER.cache, _COMPILER.is_compiled

# Nothing here allocates, so reference counting is off; calls pass dozens of arrays, so everything is inlined.
jit = _COMPILER.jit(forceinline=True, _nrt=False)

# What runs where options ask for it, or would be inlined in several places: called, so that it costs the rest
# neither time nor compilation.
cold = _COMPILER.jit(_nrt=False)

"""Probes for Triton kernels: the records of `eidola_probe.h`, written by one thread of each program.

A program is a workgroup. Its buffer is `capacity` records of four 64-bit words, its count two words (emitted,
kept); give int64 tensors, cleared, of shape (programs, capacity, 4) and (programs, 2), and hand both to
`eidola.capture.write_probes` afterwards. Triton has no state to keep, so that each probe takes the number of
records so far and returns the next:

    @triton.jit
    def kernel(..., records, counts, capacity):
        program = tl.program_id(0)
        probe = probes.buffer(records, program, capacity)
        n = probes.begin(probe, counts, program, capacity)
        n = probes.phase_begin(probe, capacity, n, 0, 1)
        ...
        n = probes.phase_end(probe, capacity, n, 0, 1)
        probes.end(probe, counts, program, capacity, n)

The instructions read are those of the header: %clock64, %globaltimer and %smid on NVIDIA; s_memtime, s_memrealtime
and HW_ID on AMD (gfx9). Needs triton 3.4 or newer (compiled with 3.4, 3.6 and 3.9 for sm_90, and with 3.6 and 3.9
for gfx942; run in Triton's interpreter, not yet on a GPU).
"""

from typing import Any

import triton
import triton.language as tl
from triton.language import core

PHASE_BEGIN = tl.constexpr(1)
PHASE_END = tl.constexpr(2)
DATA_WRITE = tl.constexpr(3)
FLAG_WRITE = tl.constexpr(4)
WAIT_BEGIN = tl.constexpr(5)
WAIT_END = tl.constexpr(6)
ANCHOR = tl.constexpr(7)
NO_PEER = tl.constexpr(0xFFFF)
NO_FLAG = tl.constexpr(0xFFFFFFFF)
WORDS = tl.constexpr(4)  # of a record

# Instruction and constraint a backend. AMD's counters come through scalar memory, hence the wait.
_TIME = {
    "cuda": ("mov.u64 $0, %clock64;", "=l"),
    "hip": ("s_memtime $0\n s_waitcnt lgkmcnt(0)", "=s"),
}
_REAL_TIME = {
    "cuda": ("mov.u64 $0, %globaltimer;", "=l"),
    "hip": ("s_memrealtime $0\n s_waitcnt lgkmcnt(0)", "=s"),
}
_UNIT = {
    "cuda": ("mov.u32 $0, %smid;", "=r"),
    "hip": ("s_getreg_b32 $0, hwreg(HW_REG_HW_ID, 8, 8)", "=s"),
}


def _read(table: dict[str, tuple[str, str]], dtype: Any, semantic: Any) -> Any:
    """Return what the backend's instruction reads, once a use: the compiler must not merge two of them."""
    assembly, constraint = table[semantic.builder.options.backend_name]
    return core.inline_asm_elementwise(
        assembly, constraint, [], dtype=dtype, is_pure=False, pack=1, _semantic=semantic
    )


@core.extern
def time(_semantic: Any = None) -> Any:
    """Return the cycle counter."""
    return _read(_TIME, core.int64, _semantic)


@core.extern
def real_time(_semantic: Any = None) -> Any:
    """Return the GPU's real time: ns on NVIDIA, ticks on AMD."""
    return _read(_REAL_TIME, core.int64, _semantic)


@core.extern
def unit(_semantic: Any = None) -> Any:
    """Return the compute unit that the program runs on."""
    return _read(_UNIT, core.int32, _semantic)


@triton.jit
def buffer(records, program, capacity):
    """Return where the program's records lie."""
    return records + program.to(tl.int64) * capacity * WORDS


@triton.jit
def _store(slot, time, what, value, extra):
    tl.store(slot, time)
    tl.store(slot + 1, what)
    tl.store(slot + 2, value)
    tl.store(slot + 3, extra)


@triton.jit
def note(probe, capacity, n, kind, name, peer, flag, value, extra):
    """Record one event, now; the last place is kept for the last anchor. Return the next number."""
    if n + 1 < capacity:
        low = tl.cast(kind, tl.int64) | (tl.cast(name, tl.int64) << 8) | (tl.cast(peer, tl.int64) << 16)
        _store(probe + n * WORDS, time(), low | (tl.cast(flag, tl.int64) << 32), value, extra)
    return n + 1


@triton.jit
def begin(probe, counts, program, capacity):
    """Begin, at a launch's start. Return the number of the first record after the anchor."""
    n = tl.load(counts + program * 2)
    now = real_time()
    return note(probe, capacity, n, ANCHOR, 0, NO_PEER, NO_FLAG, now, unit().to(tl.int64))


@triton.jit
def end(probe, counts, program, capacity, n):
    """End, before the program returns: the last anchor, and the counts."""
    before = tl.load(counts + program * 2)
    kept = tl.load(counts + program * 2 + 1)
    now = real_time()
    if before + 1 < capacity:  # the first anchor was kept, so that the last one has its place
        kept = tl.minimum(n, capacity - 1)
        what = ANCHOR | (tl.cast(NO_PEER, tl.int64) << 16) | (tl.cast(NO_FLAG, tl.int64) << 32)
        _store(probe + kept * WORDS, time(), what, now, unit().to(tl.int64))
        kept += 1
    tl.debug_barrier()
    tl.store(counts + program * 2, n + 1)
    tl.store(counts + program * 2 + 1, kept)


@triton.jit
def phase_begin(probe, capacity, n, phase, value):
    """Record a phase's begin."""
    return note(probe, capacity, n, PHASE_BEGIN, phase, NO_PEER, NO_FLAG, value, 0)


@triton.jit
def phase_end(probe, capacity, n, phase, value):
    """Record a phase's end."""
    return note(probe, capacity, n, PHASE_END, phase, NO_PEER, NO_FLAG, value, 0)


@triton.jit
def data_write(probe, capacity, n, region, peer, size, offset):
    """Record `size` bytes stored to `peer`, at `offset` (bytes) of `region`, once all threads issued them."""
    tl.debug_barrier()
    return note(probe, capacity, n, DATA_WRITE, region, peer, NO_FLAG, size, offset)


@triton.jit
def flag_write(probe, capacity, n, peer, flag, value):
    """Record, before the store, that `peer`'s `flag` is set to `value`."""
    return note(probe, capacity, n, FLAG_WRITE, 0, peer, flag, value, 0)


@triton.jit
def wait_begin(probe, capacity, n, flag, expected):
    """Record, before the first poll, a wait for `expected` in `flag`."""
    return note(probe, capacity, n, WAIT_BEGIN, 0, NO_PEER, flag, expected, 0)


@triton.jit
def wait_end(probe, capacity, n, flag, expected, polls):
    """Record, after poll number `polls` saw it, the end of a wait."""
    return note(probe, capacity, n, WAIT_END, 0, NO_PEER, flag, expected, polls)

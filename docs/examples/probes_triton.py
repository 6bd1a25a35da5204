"""A Triton kernel with probes: programs of one GPU write to a peer and raise a flag; their peer waits for it.

`python probes_triton.py` compiles it for sm_90 and gfx942, without a GPU, and says which timers it reads. To
run it, give symmetric memory (torch.distributed._symmetric_memory) as `peer_results`, `peer_flags` and `flags`,
and hand `records` and `counts` to `eidola.capture.write_probes`, as probes_own_kernel.py does.
"""

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from eidola.capture import triton_probes as probes


@triton.jit
def scale_to_peer(
    source, peer_results, peer_flags, flags, peer, epoch, records, counts, capacity, BLOCK: tl.constexpr
):
    program = tl.program_id(0)
    probe = probes.buffer(records, program, capacity)
    n = probes.begin(probe, counts, program, capacity)
    n = probes.phase_begin(probe, capacity, n, 0, epoch)
    here = program * BLOCK + tl.arange(0, BLOCK)
    tl.store(peer_results + here, tl.load(source + here) * 2)
    n = probes.data_write(probe, capacity, n, 0, peer, BLOCK * 4, program * BLOCK * 4)
    n = probes.flag_write(probe, capacity, n, peer, program, epoch)
    tl.atomic_xchg(peer_flags + program, epoch, sem="release", scope="sys")
    n = probes.phase_end(probe, capacity, n, 0, epoch)
    n = probes.phase_begin(probe, capacity, n, 1, epoch)
    n = probes.wait_begin(probe, capacity, n, program, epoch)
    polls = 1
    while tl.atomic_add(flags + program, 0, sem="acquire", scope="sys") < epoch:
        polls += 1
    n = probes.wait_end(probe, capacity, n, program, epoch, polls)
    n = probes.phase_end(probe, capacity, n, 1, epoch)
    probes.end(probe, counts, program, capacity, n)


def assembly(target: GPUTarget) -> str:
    """Return what the kernel compiles to for `target`."""
    floats, words = ("source", "peer_results"), ("peer_flags", "flags", "records", "counts")
    signature = dict.fromkeys(scale_to_peer.arg_names, "i32")
    signature |= dict.fromkeys(floats, "*fp32") | dict.fromkeys(words, "*i64") | {"BLOCK": "constexpr"}
    built = triton.compile(ASTSource(scale_to_peer, signature, constexprs={"BLOCK": 256}), target=target)
    return built.asm["ptx" if target.backend == "cuda" else "amdgcn"]


if __name__ == "__main__":
    timers = ("%clock64", "%globaltimer", "%smid", "s_memtime", "s_memrealtime", "s_getreg_b32")
    for target in (GPUTarget("cuda", 90, 32), GPUTarget("hip", "gfx942", 64)):
        text = assembly(target)
        print(target.arch, {timer: text.count(timer) for timer in timers if timer in text})

"""What names say: which operation a record, call or kernel is, and a kernel's algorithm and protocol."""

import re

from .scanner import BACKENDS

COLLECTIVE_NAME = f"^({'|'.join(BACKENDS)})"
KERNEL_NAME = r"(?i)^(void )?(nccl|rccl|msccl)|\b_?(multimem|one_shot|two_shot)_[a-z_]*_kernel(_inplace)?\b"
"""Which kernels are collectives: those of NCCL and RCCL, and of symmetric memory."""
SYMMETRIC = "symm_mem::"
"""Begins the names of PyTorch's records of symmetric memory."""

_OPERATIONS = {
    # Keys: names of PyTorch (c10d records, nccl: annotations) and of NCCL's kernels, in lower case, without
    # underscores, digits' bases and the suffixes that say how buffers are laid out.
    "allreduce": "all_reduce",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "broadcast": "broadcast",
    "bcast": "broadcast",
    "reduce": "reduce",
    "alltoall": "all_to_all",
    "alltoallv": "all_to_allv",
    "gather": "gather",
    "scatter": "scatter",
    "send": "send",
    "recv": "recv",
    "barrier": "barrier",
    "allreducebarrier": "barrier",
}
_LAYOUT = re.compile(r"base|coalesced|intotensor|tensor|single|oop|sparse|withbias|pivot|gda")
_SHOTS = r"(?:multimem_|one_shot_|two_shot_)"
_BEGINNING = re.compile(rf"{COLLECTIVE_NAME}|^{SYMMETRIC}{_SHOTS}*")

_LIBRARY_KERNEL = re.compile(r"(?i)(?:nccl|rccl)(?:symk?)?(?:dev)?kernel_(?P<operation>[A-Za-z]+)_")
"""ncclKernel_ (NCCL 2.8 and newer), ncclDevKernel_ (2.19), ncclSymDevKernel_ (2.27), ncclSymkDevKernel_ (2.28)."""
_OLD_KERNEL = re.compile(
    r"^nccl(?P<operation>[A-Z][A-Za-z]+?)(?P<how>Ring|Tree|CollNet)(?P<what>LL128|LL|)Kernel_"
)
"""NCCL before 2.8, such as ncclAllReduceRingLLKernel_sum_f32."""
_SYMMETRIC_KERNEL = re.compile(
    rf"\b_?{_SHOTS}+(?P<operation>all_reduce|all_gather|reduce_scatter|reduce)_kernel(?:_inplace)?\b"
)
"""Kernels of symmetric memory: PyTorch's (CUDASymmetricMemoryOps.cu), and Megatron's in Triton."""
_TWO_SHOT = re.compile(r"\btwo_shot_all_reduce_kernel(?P<arguments><[^>]*>)?(?:\(|$)")
_SCATTERS = re.compile(r"<[^,>]+,[^,>]+,[^,>]+, *(?:true|\(bool\)1)")
"""PyTorch's reduce_scatter is the two-shot kernel of all_reduce with a fourth argument that says so."""
_ALGORITHM = re.compile(r"_(RING|TREE|NVLS_TREE|NVLS|COLLNET_DIRECT|COLLNET_CHAIN|PAT)(?=_|\(|$)")
_PROTOCOL = re.compile(r"_(LL128|LL|SIMPLE)(?=_|\(|$)")


def operation_of(name: str) -> str:
    """Return the schema's operation for a name that PyTorch or NCCL gives, `wait`, or `unknown`."""
    text = _BEGINNING.sub("", name).split(" ")[0].lower()
    if text == "wait":
        return "wait"
    return _OPERATIONS.get(_LAYOUT.sub("", text.replace("_", "")), "unknown")


def kernel_operation(name: str) -> str | None:
    """Return a name of the operation that a kernel's name tells, as `operation_of` takes it, or None."""
    if two_shot := _TWO_SHOT.search(name):
        if two_shot["arguments"] is None:
            return None
        return "reduce_scatter" if _SCATTERS.match(two_shot["arguments"]) else "all_reduce"
    match = _LIBRARY_KERNEL.search(name) or _OLD_KERNEL.search(name) or _SYMMETRIC_KERNEL.search(name)
    return match["operation"] if match and operation_of(match["operation"]) != "unknown" else None


def algorithm_of(kernel: str) -> str | None:
    """Return NCCL's algorithm where a kernel's name tells it; that of sends and receives means nothing."""
    if "sendrecv" in kernel.lower():
        return None
    if old := _OLD_KERNEL.search(kernel):
        return str(old["how"]).lower() if old["how"] != "CollNet" else None
    found = _ALGORITHM.search(kernel)
    return found[1].lower() if found else None


def protocol_of(kernel: str) -> str | None:
    """Return NCCL's protocol where a kernel's name tells it."""
    if old := _OLD_KERNEL.search(kernel):
        return str(old["what"]).lower() or "simple"
    found = _PROTOCOL.search(kernel)
    return found[1].lower() if found else None

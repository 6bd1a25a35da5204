"""What the kernels of collectives cost, by GPU generation: inside the kernel, not before it starts.

A kernel passes `kernel_us` once: from its start to its first send, and from its last arrival to its end. A step
(receive, reduce or copy, send) takes its protocol's latency, and the time that channels need for the bytes beyond
one pass of their threads. What starts a kernel (the launch, its way to the GPU) is no part of this: a trace's
collectives start where their kernels did, and benchmarks' launches are in `replay.scoring.launch`.

Constants are those of NCCL's and RCCL's own source where named, otherwise "calibrated": on tables of the published
measurements that docs/validation.md lists, shared by every table of a generation.
"""

from dataclasses import dataclass, replace

US = 1_000_000


@dataclass(frozen=True)
class Protocol:
    """One protocol: latency of a step in the box (path included) and over the network (path not included).

    A channel moves `channel_gb_per_s` of payload; the first `pass_bytes` of a step are its latency: one access by
    each thread.
    """

    step_us: float
    network_us: float
    channel_gb_per_s: float
    pass_bytes: int = 0


@dataclass(frozen=True)
class Costs:
    """Costs of one generation.

    `channels` that rings use at most, and sends and receives (`p2p_channels`; `peer_channels` for one peer). Each
    peer of an all-to-all costs `peer_us`, one over the network `network_peer_us`. NVLS passes `nvls_us` once,
    and reduces at most `nvls_gb_per_s` of the buffer; a hop of an NVLS tree between boxes takes
    `nvls_tree_network_us` (hwLat of NET in NCCL's src/graph/tuning.cc); every chunk that it receives or sends takes
    `proxy_us` of the one thread that serves a GPU's NIC (src/proxy.cc; calibrated on TOGETHER_B200_scale at 32 and
    64 GPUs). A channel of Simple has `simple_threads`: NCCL_SIMPLE_MAX_NTHREADS in NCCL's and RCCL's
    src/include/device.h.
    """

    protocols: dict[str, Protocol]
    channels: int
    p2p_channels: int
    peer_channels: int
    kernel_us: float = 4.5
    peer_us: float = 0.2
    network_peer_us: float = 2.6
    nvls_us: float = 25.0
    nvls_gb_per_s: float = 0.0
    nvls_tree_network_us: float = 14.0
    proxy_us: float = 0.95
    simple_threads: int = 512


def _protocols(
    steps: tuple[float, float, float],
    rates: tuple[float, float, float],
    network: tuple[float, float, float],
    passes: tuple[int, int, int] = (512 * 8, 640 * 15, 0),
) -> dict[str, Protocol]:
    """Return LL, LL128, Simple.

    A pass is 512 threads of 8 B (LL), 640 threads of 16 B less LL128's flags: NCCL_LL_MAX_NTHREADS and
    NCCL_LL128_MAX_NTHREADS in NCCL's src/include/device.h.
    """
    names = "ll", "ll128", "simple"
    return {
        name: Protocol(step, net, rate, size)
        for name, step, net, rate, size in zip(names, steps, network, rates, passes, strict=True)
    }


NETWORK_US = 4.5, 5.5, 14.0
"""A step over the network, path not included: NCCL's hwLat of NET is 5.0, 8.5, 14 for trees, 2.7, 4.0, 14 for rings
(src/graph/tuning.cc); LL and LL128 calibrated on LAMBDAx2, A4_1x2node, VULTR_B200_16 (InfiniBand and RoCE)."""

_AMPERE = Costs(_protocols((1.0, 3.9, 8.0), (1.5, 5.1, 13.0), NETWORK_US), 24, 32, 16)
_CDNA3 = Costs(_protocols((0.8, 1.9, 2.1), (1.5, 10.0, 13.0), NETWORK_US), 56, 64, 8, simple_threads=256)
COSTS = {
    "volta": Costs(_protocols((1.25, 1.9, 3.4), (3.2, 5.1, 13.0), NETWORK_US, (0, 0, 0)), 12, 16, 16),
    "ampere": _AMPERE,
    "hopper": Costs(
        _protocols((0.95, 1.9, 5.0), (4.5, 16.0, 18.5), NETWORK_US), 24, 32, 16, nvls_us=30, nvls_gb_per_s=280
    ),
    "blackwell": Costs(
        _protocols((1.15, 1.9, 3.6), (6.0, 20.0, 22.5), NETWORK_US), 32, 32, 32, nvls_us=45, nvls_gb_per_s=450
    ),
    "cdna2": _CDNA3,
    "cdna3": _CDNA3,
    "cdna4": replace(_CDNA3),
}
"""By generation; one that is not known costs what Ampere does."""


def costs(generation: str) -> Costs:
    """Return the costs of a generation of GPUs."""
    return COSTS.get(generation, _AMPERE)

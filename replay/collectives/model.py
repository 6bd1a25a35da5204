"""How long NCCL thinks that an operation takes, by which it chooses algorithm and protocol.

From nccl 2.28.3, src/graph/tuning.cc (ncclTopoTuneModel, ncclTopoGetAlgoTime) and src/graph/search.cc (the speeds
that it tries). Latencies in us, bandwidths in GB/s, by protocol LL, LL128, Simple. Generations that NCCL does not
know (AMD's) are taken as Ampere; RCCL's own tables are not used.
"""

from dataclasses import dataclass

PROTOCOLS = ("ll", "ll128", "simple")
GENERATIONS = ("volta", "ampere", "hopper", "blackwell")

BASE_US = {"tree": (6.8, 14.0, 8.4), "ring": (6.6, 14.0, 8.4)}
NVLINK_US = {"tree": (0.6, 1.25, 4.0), "ring": (0.6, 1.9, 3.4), "nvls": (0, 0, 25), "nvls_tree": (0, 0, 25)}
NETWORK_US = {"tree": (5.0, 8.5, 14), "ring": (2.7, 4.0, 14.0), "nvls_tree": (0, 0, 14), "sharp": (0, 0, 31)}
OVERHEAD_US = (1.0, 1.0, 3.0)
"""A step of a ring that spans boxes takes at least this: getNetOverhead on Intel hosts, three times for Simple."""

LL_GB_PER_S = {"volta": 39.0, "ampere": 87.7, "hopper": 141.0, "blackwell": 282.0}
LL_NETWORK_GB_PER_S = (39.0, 20.4)
"""Two boxes, and more; of Intel hosts."""
RING_LL128_GB_PER_S = {"volta": 20.0, "ampere": 20.0, "hopper": 36.7, "blackwell": 73.4}
"""A channel."""
TREE_LL128_GB_PER_S = {
    "volta": (20.0,) * 3, "ampere": (20.0,) * 3, "hopper": (36.7, 36.7, 29.0), "blackwell": (55.6, 31.67, 20.0)
}  # fmt: skip
"""A channel; one box, two, more."""
TREE_GB_PER_S = {
    "volta": (26.5, 18.5, 10.0), "ampere": (24.0, 23.6, 17.8), "hopper": (38.7, 41.4, 36.0),
    "blackwell": (70.0, 42.8, 24.0),
}  # fmt: skip
NVLS_TREE_GB_PER_S = {"hopper": (0.0, 57.7, 45.5), "blackwell": (0.0, 96.0, 43.1)}
NVLS_EFFICIENCY = {"hopper": 0.85, "blackwell": 0.74}
NVLS_SPEEDS = {
    "hopper": (60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3),
    "blackwell": (90, 80, 70, 60, 50, 40, 30, 24, 20, 19, 18),
}
"""A channel, one of which each GPU heads: sm90SpeedArrayIntra, sm100SpeedArrayIntra (src/graph/search.cc)."""
NVLS_MOST = 32
"""Channels that the search finds at most (NCCL_MAX_NVLS_ARITY, src/include/device.h)."""
NVLS_FROM = {"hopper": 5, "blackwell": 6}
"""Members from which NCCL 2.27.7 was seen to take NVLS for large all-reduces (H200, B200). For Hopper the model
says so too: with 4 its search finds 4 channels of 60 GB/s where a ring has 360. For Blackwell the model says 7."""

INTER_SPEEDS = {
    "hopper": (48, 45, 42, 40, 30, 24, 22, 20, 17.5, 15, 12, 6, 3),
    "blackwell": (96, 48, 45.1, 42, 40, 30, 24, 22, 20, 17.5, 15, 12, 6, 3),
}
"""GB/s a channel that the search tries between boxes: sm90SpeedArrayInter, sm100SpeedArrayInter."""
OLDER_INTER_SPEEDS = (48, 30, 28, 24, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3)
"""The same before Hopper: speedArrayInter."""
SEARCH_SLACK = 1.1
"""The search counts a NIC's nominal rate, PCIe's at most; what it carries is up to so much less."""

_TREE_TENTHS = (
    (10, 10, 10, 10, 9, 8, 7, 7, 7, 7, 6, 5, 4, 4, 5, 6, 7, 8, 9, 10, 10, 10, 10),
    (10, 10, 10, 10, 10, 9, 8, 8, 8, 7, 6, 6, 6, 6, 6, 6, 8, 9, 9, 9, 9, 10, 10),
    (9, 9, 9, 9, 9, 9, 9, 8, 7, 6, 6, 5, 5, 5, 5, 6, 7, 8, 7, 7, 8, 9, 9),
)
"""Trees fall short of the model at medium sizes: by protocol, powers of two from 64 B (treeCorrectionFactor)."""


@dataclass(frozen=True)
class Group:
    """What the model looks at.

    Ranks, the boxes that they stand in, the GPUs' generation, channels, and GB/s of the rings together and of a
    GPU's links to its switch (0 where no switch reduces). Of several boxes: `rails`, NICs a box, and GB/s of a ring
    inside of one.
    """

    ranks: int
    boxes: int
    generation: str
    channels: int
    ring_gb_per_s: float
    switch_gb_per_s: float = 0
    rails: int = 0
    inside_gb_per_s: float = 0


def time_us(group: Group, operation: str, algorithm: str, protocol: str, size_bytes: int) -> float:
    """Return what NCCL expects; infinity for a pair that it never takes. `size_bytes` as NCCL counts them."""
    gb_per_s = _gb_per_s(group, operation, algorithm, PROTOCOLS.index(protocol))
    if not gb_per_s:
        return float("inf")
    latency = _latency_us(group, operation, algorithm, PROTOCOLS.index(protocol))
    many = size_bytes // (group.channels * group.ranks) >= 64
    if (
        algorithm == "ring"
        and protocol == "simple"
        and group.boxes > 1
        and operation == "all_reduce"
        and many
    ):
        latency *= 1.9 if group.generation == "volta" else 1.4  # NCCL: plateau effect of the ring
    if algorithm == "tree" and 0 <= (power := (size_bytes >> 6).bit_length() - 1) < len(_TREE_TENTHS[0]):
        gb_per_s *= _TREE_TENTHS[PROTOCOLS.index(protocol)][power] / 10
    return latency + size_bytes / (1000 * gb_per_s)


def _steps(group: Group, operation: str) -> int:
    return {"all_reduce": 2 * (group.ranks - 1), "all_gather": group.ranks - 1,
            "reduce_scatter": group.ranks - 1}.get(operation, group.ranks)  # fmt: skip


def _known(generation: str) -> str:
    return generation if generation in GENERATIONS else "ampere"


def _gb_per_s(group: Group, operation: str, algorithm: str, p: int) -> float:
    """Return bytes of the buffer a nanosecond."""
    generation, span = _known(group.generation), min(group.boxes, 3) - 1
    bus, ratio = group.ring_gb_per_s, group.ranks / _steps(group, operation)
    ll = LL_GB_PER_S[generation] if group.boxes == 1 else LL_NETWORK_GB_PER_S[span - 1]
    if algorithm == "ring":
        limit = (min(ll, bus * 0.5), min(bus * 0.92, group.channels * RING_LL128_GB_PER_S[generation]), bus)
        return limit[p] * ratio
    if algorithm == "tree":
        channels = tree_channels(group)
        bus = group.rails * _tree_speed(group) or bus
        bus = min(bus * 0.92, channels * TREE_GB_PER_S[generation][span])
        part = 7 / 9 if group.boxes == 1 else 120 / 128
        return min(bus / 3.8, ll) / 2 if p == 0 else (
            min(bus * part, channels * TREE_LL128_GB_PER_S[generation][span]) / 2 if p == 1 else bus / 2
        )  # fmt: skip
    if algorithm in ("nvls", "nvls_tree") and p == 2:
        return _nvls_gb_per_s(group, operation, algorithm, span) * (ratio if operation == "all_reduce" else 1)
    return 0


def _tree_speed(group: Group) -> float:
    """Return GB/s of a NIC's trees; over two boxes the search raises it up to twice what the NIC has."""
    if not group.rails:
        return 0
    between = group.ring_gb_per_s / group.rails
    if group.boxes > 2:
        return between
    most = max(between, min(2 * between, group.inside_gb_per_s / group.rails))
    return _searched(_known(group.generation), most)


def tree_channels(group: Group) -> int:
    """Return the channels of trees: one a NIC, two where they are fast (ncclTopoDupChannels in search.cc)."""
    speed = _tree_speed(group)
    newer = _known(group.generation) in INTER_SPEEDS and group.rails > 4
    return group.rails * (2 if speed >= (50 if newer else 25) else 1) or group.channels


def tree_limit_gb_per_s(group: Group, protocol: str) -> float:
    """Return bytes of the buffer a nanosecond that the channels of a tree between boxes move; 0: not known."""
    limits = {"simple": TREE_GB_PER_S, "ll128": TREE_LL128_GB_PER_S}.get(protocol, {}).get(group.generation)
    return tree_channels(group) * limits[min(group.boxes, 3) - 1] / 2 if limits and group.boxes > 1 else 0


def searched_gb_per_s(generation: str, usable_gb_per_s: float) -> float:
    """Return the speed of a channel that NCCL's search finds for a NIC that carries `usable_gb_per_s`."""
    return _searched(_known(generation), usable_gb_per_s * SEARCH_SLACK)


def _searched(generation: str, gb_per_s: float) -> float:
    speeds = INTER_SPEEDS.get(generation, OLDER_INTER_SPEEDS)
    return next((float(speed) for speed in speeds if speed <= gb_per_s), gb_per_s)


def _nvls_gb_per_s(group: Group, operation: str, algorithm: str, span: int) -> float:
    heads = group.ranks // group.boxes
    if (
        group.generation not in NVLS_EFFICIENCY
        or heads < NVLS_FROM[group.generation]
        or not group.switch_gb_per_s
    ):
        return 0
    if (algorithm == "nvls") != (group.boxes == 1):
        return 0
    channels = min(heads, NVLS_MOST)
    fits = [s for s in NVLS_SPEEDS[group.generation] if s * channels <= group.switch_gb_per_s]
    inside = (fits[0] if fits else 0) * channels * NVLS_EFFICIENCY[group.generation] * (heads - 1) / heads
    inside *= 2 if operation == "all_reduce" else (heads - 1) / heads
    if algorithm == "nvls":
        return inside
    across = group.ring_gb_per_s * (2 if group.boxes == 2 else 1)
    return min(inside, across, channels * NVLS_TREE_GB_PER_S[group.generation][span])


def _latency_us(group: Group, operation: str, algorithm: str, p: int) -> float:
    inside = NVLINK_US[algorithm][p]
    alone = group.ranks == group.boxes
    across = NETWORK_US["tree" if alone else algorithm][p] if group.boxes > 1 else 0
    levels = group.boxes.bit_length() - 1
    if operation in ("broadcast", "reduce"):
        return BASE_US["ring"][p] + (across if group.boxes > 1 else inside)
    if algorithm == "ring":
        steps = _steps(group, operation)
        hops = {"all_reduce": 2 * (group.boxes - 1)}.get(operation, group.boxes - 1)
        inside = max(inside, OVERHEAD_US[p]) if group.boxes > 1 else inside
        return BASE_US["ring"][p] + (steps - hops) * inside + hops * across
    if algorithm == "tree":
        return BASE_US["tree"][p] + 2 * ((group.ranks // group.boxes - 1) * inside + levels * across)
    return inside + 2 * levels * across

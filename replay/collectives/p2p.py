"""How many channels a send or an exchange has, and what they need: NCCL's rules for point-to-point operations.

nccl 2.22 to 2.28, src/enqueue.cc (calcP2pChunkSize, scheduleP2pTasksToPlan) and src/graph/paths.cc
(ncclTopoComputeP2pChannels): a peer has as many channels as leave one for every rank, and more, in powers of two,
while a channel's part is larger than the largest chunk. Small messages go by LL.
"""

from dataclasses import dataclass

from .costs import Costs

LARGEST_PART_BYTES = 32 * 512 * 1024
"""Of a channel before there are more: 32 steps of NCCL_P2P_NVL_CHUNKSIZE."""
LL_BYTES = 16 * 1024
"""A channel's, up to which LL is taken: NCCL_P2P_LL_THRESHOLD."""
NETWORK_CHANNELS = 4
"""For a peer over the network, fewer where there are many ranks (NCCL_NCHANNELS_PER_NET_PEER sets it)."""
NETWORK_CHANNEL_GB_PER_S = 10.0
"""Of one peer. Calibrated on VULTR_B200_16_sendrecv (2 and 4 channels: 20 and 36 GB/s); so is the number of
channels, with TOGETHER_B200_scale_sendrecv (43 GB/s for 16 and 32 ranks, 25 for 64)."""
SHARE = 0.92
"""Of a channel's rate that sends and receives get, which it does side by side. Calibrated on VULTR_B200_8_sendrecv,
A100x8_sendrecv."""
BATCH_PEERS = 8
"""So many peers of one box share their channels: NCCL_MAX_DEV_WORK_P2P_PER_BATCH (src/include/device.h,
ncclP2pChannelBaseForRound in src/include/channel.h). A channel moves no more for all of them than for a ring."""


@dataclass(frozen=True)
class Exchange:
    """What one member sends in the box and over the network: bytes to the largest peer, bytes in all, peers.

    Over the network peers come in batches, up to `BATCH_PEERS` of a box.
    """

    largest_bytes: int
    all_bytes: int
    peers: int
    network_largest_bytes: int = 0
    network_peers: int = 0
    network_bytes: int = 0
    network_batches: int = 0


def protocol_of(costs: Costs, exchange: Exchange) -> str:
    """Return LL for small messages, Simple otherwise."""
    largest = max(exchange.largest_bytes, exchange.network_largest_bytes)
    if exchange.network_peers:
        return "ll" if largest <= LL_BYTES else "simple"
    return "ll" if largest <= LL_BYTES * costs.peer_channels else "simple"


def channels_of(costs: Costs, ranks: int, size_bytes: int) -> int:
    """Return how many channels a message of this size to one of `ranks` peers in the box has."""
    count = costs.peer_channels
    while count * ranks > costs.p2p_channels and count > 1:
        count //= 2
    while size_bytes > count * LARGEST_PART_BYTES and count < costs.peer_channels:
        count *= 2
    return count


def network_channels_of(costs: Costs, ranks: int) -> int:
    """Return how many channels a peer over the network has: no channel gets more than four peers."""
    count = NETWORK_CHANNELS
    while count * ranks > 4 * costs.p2p_channels and count > 1:
        count //= 2
    return count


def busy_ps(
    costs: Costs, ranks: int, exchange: Exchange, protocol: str, network_channels: int | None = None
) -> int:
    """Return how long the channels of one member are busy, in picoseconds: those of its largest peer, or all."""
    rate = costs.protocols[protocol].channel_gb_per_s * SHARE
    count = channels_of(costs, ranks, exchange.largest_bytes)
    beyond = max(0, exchange.largest_bytes - costs.protocols[protocol].pass_bytes * count)
    alone = beyond / (count * rate)
    shared = exchange.all_bytes / (costs.p2p_channels * rate)
    far = network_channels or network_channels_of(costs, ranks)
    across = exchange.network_largest_bytes / (far * NETWORK_CHANNEL_GB_PER_S)
    width = min(far * exchange.network_batches, costs.p2p_channels)
    batched = exchange.network_bytes / (width * rate) if width else 0.0
    return round(1000 * max(alone, shared, across, batched))

"""A box without NVLink: GPUs under PCIe switches under the root complexes of two sockets.

Two GPUs and a NIC share a switch, two switches a socket, as in common servers of eight PCIe cards.
"""

from collections.abc import Callable

from ..fabric import FabricBuilder
from .wires import SOCKETS, Wire

_UNDER_SWITCH = 2
_UNDER_SOCKET = 4


def pcie(wire: Wire, *, staged: bool) -> Callable[[FabricBuilder, int, int], list[tuple[int, int]]]:
    """Connect GPUs by PCIe; `wire` is every link from switch to GPU, NIC and root complex.

    Peer to peer, a switch passes on what is for its own GPUs, and the root complex what is for other switches.
    `staged`: all that leaves a GPU or a NIC lands in the memory of the socket first, a segment at a time, and
    again in the other socket's if it is for there. A switch then is two nodes, one for either direction, since
    what comes from below always goes up.
    """

    def connect(builder: FabricBuilder, first: int, gpus: int) -> list[tuple[int, int]]:
        box, end = first // builder.box_gpus, builder.endpoints
        sockets: list[int] = []
        to_nic: list[tuple[int, int]] = []
        for low in range(0, gpus, _UNDER_SOCKET):
            socket = builder.node(f"socket {box}.{len(sockets)}", store_and_forward=staged)
            sockets.append(socket)
            below = []
            for under in range(low, min(low + _UNDER_SOCKET, gpus), _UNDER_SWITCH):
                up, down = _switch(builder, f"{box}.{under // _UNDER_SWITCH}", staged)
                count = min(_UNDER_SWITCH, gpus - under)
                _hang(builder, wire, (up, down), first + under, count)
                rising, falling = (
                    builder.link(*ends, *wire.args()) for ends in ((up, socket), (socket, down))
                )
                builder.rule(up, *((0, end) if staged else (first, first + gpus)), [[rising]])
                builder.rule(socket, first + under, first + under + count, [[falling]])
                below.append(falling)
                to_nic += [(down, up)] * count
            if staged:  # what is for other boxes goes down again, to a NIC
                builder.rule(socket, 0, first, [below])
                builder.rule(socket, first + gpus, end, [below])
        if len(sockets) == 2:
            there, back = builder.duplex(*sockets, *SOCKETS.args())
            builder.rule(sockets[0], first + _UNDER_SOCKET, first + gpus, [[there]])
            builder.rule(sockets[1], first, first + _UNDER_SOCKET, [[back]])
        return to_nic

    return connect


def _switch(builder: FabricBuilder, place: str, staged: bool) -> tuple[int, int]:
    """Return the node that takes what goes up, and the one that takes what comes down."""
    if not staged:
        return (switch := builder.node(f"pcie switch {place}")), switch
    return builder.node(f"pcie up {place}"), builder.node(f"pcie down {place}")


def _hang(builder: FabricBuilder, wire: Wire, switch: tuple[int, int], first: int, count: int) -> None:
    """Hang `count` GPUs under a switch."""
    up, down = switch
    ways = []
    for gpu in range(first, first + count):
        builder.rule(gpu, 0, builder.endpoints, [[builder.link(gpu, up, *wire.args())]])
        ways.append([builder.link(down, gpu, *wire.args())])
    builder.rule(down, first, first + count, ways, stride=1)

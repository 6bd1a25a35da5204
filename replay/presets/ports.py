"""What a network connects: the NICs of boxes, or bare GPUs, in the order of the GPUs that they serve."""

from dataclasses import dataclass

from ..fabric import FabricBuilder
from .boxes import Box
from .scaleout import rack
from .wires import Wire


@dataclass
class Ports:
    """`nodes[p]` serves the GPUs from `p * per` on, at most `per` of them, over the wire `net`. None: one box."""

    builder: FabricBuilder
    nodes: list[int]
    per: int
    net: Wire

    @property
    def gpus(self) -> int:
        """GPUs of the whole fabric."""
        return self.builder.endpoints

    def span(self, low: int, high: int) -> tuple[int, int]:
        """Return the first GPU of port `low`, and the one after the last of port `high` - 1."""
        return min(low * self.per, self.gpus), min(high * self.per, self.gpus)

    def hang(self, switch: int, low: int, high: int, wire: Wire | None = None) -> None:
        """Connect ports `low` to `high` - 1 to a switch, and route to and from them."""
        down = []
        for node in self.nodes[low:high]:
            out, back = self.builder.duplex(node, switch, *(wire or self.net).args())
            self.builder.rule(node, 0, self.gpus, [[out]])
            down.append([back])
        if down:
            self.builder.rule(switch, *self.span(low, high), down, stride=self.per)


def ports(name: str, box: Box, gpus: int) -> Ports:
    """Wire the boxes inside and return their NICs; bare GPUs are ports themselves; one box has none."""
    hosts = rack(name, box, gpus)
    if not box.nics:
        return Ports(hosts.builder, list(range(gpus)) if gpus > 1 else [], 1, box.net)
    nodes = [nic for nics in hosts.nics for nic in nics]
    return Ports(hosts.builder, nodes, box.gpus // box.nics, box.net)

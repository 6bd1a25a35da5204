"""How one of several links towards a destination is chosen, and the integer draws that hashing needs.

Draws are by index (node, endpoints, flow, message, segment), never by order of execution.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ..schemas import UsageError
from .fabric import Fabric

_BITS = 31
_MASK = (1 << _BITS) - 1
_MIX = 0x45D9F3B  # multiplier of a well-mixing 32-bit integer hash (T. Mueller); products stay below 2^58


class Routing(IntEnum):
    """STATIC: destination modulo the choices. ECMP: a hash of node, endpoints and flow. SPRAY: of the segment.

    LEAST_LOADED: the link that is free first when the segment is eligible; on a tie the one that SPRAY would take,
    or the next such after it, so that no link is preferred.
    A message leaves its GPU over one link, which its first segment chooses; further on each segment chooses.
    """

    STATIC = 0
    ECMP = 1
    SPRAY = 2
    LEAST_LOADED = 3


NAMES = {
    "static": Routing.STATIC,
    "ecmp": Routing.ECMP,
    "spray": Routing.SPRAY,
    "least-loaded": Routing.LEAST_LOADED,
}


@dataclass(frozen=True)
class RoutingPolicy:
    """A way to choose among links, and the seed of its hash."""

    kind: Routing = Routing.STATIC
    seed: int = 0

    @property
    def reorders(self) -> bool:
        """Whether segments of one flow may take different paths, and so overtake each other."""
        return self.kind in (Routing.SPRAY, Routing.LEAST_LOADED)

    def check(self, fabric: Fabric) -> None:
        """Raise UsageError where this policy would choose among links that are not alike.

        When a segment is eligible must not depend on the choice that is made then.
        """
        if self.kind is Routing.STATIC:
            return
        size = np.diff(fabric.choice_first)
        first = np.repeat(fabric.choices[np.minimum(fabric.choice_first[:-1], len(fabric.choices) - 1)], size)
        for column in ("rate_mb_per_s", "latency_ps", "header_bytes", "payload_bytes"):
            values = getattr(fabric, column)
            if len(bad := np.flatnonzero(values[fabric.choices] != values[first])):
                a, b = fabric.link_name(int(first[bad[0]])), fabric.link_name(int(fabric.choices[bad[0]]))
                raise UsageError(
                    f"--routing {self.kind.name.lower()}: {a} and {b} are choices of one rule and differ in "
                    f"{column}; make them alike, or use static routing"
                )


STATIC = RoutingPolicy()


def routing(name: str, seed: int = 0) -> RoutingPolicy:
    """Return the routing policy `static`, `ecmp`, `spray` or `least-loaded`. Raises UsageError for another name."""
    if name not in NAMES:
        raise UsageError(f"no routing {name!r}; use {', '.join(NAMES)}")
    return RoutingPolicy(NAMES[name], seed)


def mix(hashed: int, value: int) -> int:
    """Return a 31-bit hash of a 31-bit hash and a value of up to 62 bits. The same code runs compiled."""
    hashed = ((hashed ^ (value & _MASK)) * _MIX) & _MASK
    hashed = ((hashed ^ (hashed >> 15) ^ (value >> _BITS)) * _MIX) & _MASK
    return hashed ^ (hashed >> 16)

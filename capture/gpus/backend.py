"""The interface that NVML and amdsmi are reduced to, and the device that is not there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ...schemas.errors import MissingError


@dataclass(frozen=True)
class Gpu:
    """One GPU: its ordinal in the library's order (by PCI address, which CUDA_VISIBLE_DEVICES may not follow)."""

    index: int
    vendor: str
    model: str
    uuid: str
    pci: str
    driver: str


@dataclass(frozen=True)
class Link:
    """The bundle of links from one GPU to a peer; `peer` None: a switch, or a GPU that is not visible here.

    `rate_bytes_per_s` is one link's, one direction; None where the library does not say. `access` is whether the
    GPU may write the peer's memory; None where there is no peer.
    """

    gpu: int
    peer: int | None
    kind: str
    count: int
    rate_bytes_per_s: int | None
    access: bool | None


@dataclass(frozen=True)
class Reading:
    """One counter of one GPU, unit in the name."""

    gpu: int
    name: str
    value: float


class Backend(Protocol):
    """A library that knows the GPUs. What a device does not support is left out, never guessed.

    `missing` says why there is no GPU; None where there is one.
    """

    name: str
    missing: str | None

    def gpus(self) -> list[Gpu]:
        """Return the GPUs."""

    def links(self) -> list[Link]:
        """Return the links between them, and to switches."""

    def readings(self) -> list[Reading]:
        """Return clocks, power and link counters, now."""

    def close(self) -> None:
        """Let go of the library."""


class NullBackend:
    """No device, and why."""

    name = "none"

    def __init__(self, missing: str) -> None:
        self.missing: str | None = missing

    def gpus(self) -> list[Gpu]:
        """Return nothing."""
        return []

    def links(self) -> list[Link]:
        """Return nothing."""
        return []

    def readings(self) -> list[Reading]:
        """Return nothing."""
        return []

    def close(self) -> None:
        """Do nothing."""


def _nvml() -> Backend:
    from .nvml import Nvml

    return Nvml()


def _amdsmi() -> Backend:
    from .amdsmi import AmdSmi

    return AmdSmi()


OPENERS: tuple[Callable[[], Backend], ...] = (_nvml, _amdsmi)


def find_backend() -> Backend:
    """Return the first backend with a GPU, else the null device with each library's reason."""
    reasons = []
    for opener in OPENERS:
        try:
            return opener()
        except MissingError as error:
            reasons.append(str(error))
    return NullBackend("; ".join(reasons))

"""From a row of measurements to what is simulated: a case. Equal cases are simulated once."""

from dataclasses import dataclass

from .machine import Machine, machine_of
from .measurements import Measurement
from .method import LARGE_BYTES, Method, method_of

NIC_LATENCY_US = 0.25
"""Of a preset's link from a NIC to its switch (replay/presets/wires.py)."""
ONE_SHOT_BYTES = 512 * 1024, 256 * 1024
"""Up to this size vLLM's custom all-reduce takes one shot: of at most 4 GPUs, and of more
(csrc/custom_all_reduce.cuh)."""


@dataclass(frozen=True)
class Case:
    """One operation of `groups` groups of `ranks` GPUs, side by side, on a machine."""

    machine: Machine
    method: Method
    ranks: int
    groups: int
    size_bytes: int

    @property
    def algorithm(self) -> str:
        """The algorithm that ran, where the row says so; empty: the library's choice."""
        found = self.method.forced or (self.method.seen if self.size_bytes >= LARGE_BYTES else "")
        if found == "nvls" and self.machine.boxes > 1:
            return (
                ""  # between boxes NVLS needs SHARP in the network; without, libraries choose something else
            )
        if found == "sharp" and self.machine.boxes == 1:
            return ""
        if found == "custom":
            small = self.ranks == 2 or self.size_bytes <= ONE_SHOT_BYTES[self.ranks > 4]
            return "one_shot_get" if small else "two_shot_get"
        return found

    @property
    def without(self) -> tuple[str, ...]:
        """Algorithms and protocols that never run: switched off by the row, or over the machine's network."""
        off = self.machine.network.without if self.machine.boxes > 1 else ()
        return tuple(dict.fromkeys((*self.method.without, *off)))

    @property
    def fabric(self) -> str:
        """The preset and its settings, as `eidola replay run` takes them."""
        settings = (f"{key}={value:g}" for key, value in self.settings.items())
        return " ".join([self.machine.preset, *settings])

    @property
    def settings(self) -> dict[str, float]:
        """Settings of the preset."""
        m = self.machine
        found: dict[str, float] = {}
        if m.boxes > 1 and m.gpus_a_box != m.whole:
            found["box_gpus"] = m.gpus_a_box
        if m.boxes > 1 and m.nics:
            found["nics"] = m.nics
        if m.boxes > 1 and m.nic_gb_per_s:
            found["nic_gb_per_s"] = round(m.nic_gb_per_s * m.carries, 3)
        if m.boxes > 1 and m.network.latency_us:
            found["nic_latency_us"] = round(NIC_LATENCY_US + m.network.latency_us, 3)
        if self.algorithm == "sharp":
            found["sharp"] = True
        return found


def case_of(row: Measurement) -> Case | str:
    """Return what a row asks for, or the reason why it cannot be replayed. Only its describing columns are read."""
    method = method_of(row.text("operation"), row.text("library_version"), row.text("algorithm_or_env"))
    if isinstance(method, str):
        return method
    if not row.size_bytes:
        return "no size is given"
    ranks = method.group_ranks or int(row.number("ranks"))
    if not ranks:
        return "the number of ranks is not stated"
    if ranks < 2:
        return "one rank sends nothing"
    machine = machine_of(
        row.text("system"), row.text("interconnect"), ranks * method.groups, row.text("algorithm_or_env")
    )
    if isinstance(machine, str):
        return machine
    return Case(machine, method, ranks, method.groups, row.size_bytes)

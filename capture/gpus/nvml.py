"""NVIDIA GPUs through nvidia-ml-py. Field numbers and units: nvml.h, as in that package's pynvml.py 13.615.

Tested on a library with NVML's interface; docs/support.md says whether on a GPU.
"""

from typing import Any

from ...schemas.errors import MissingError
from .backend import Gpu, Link, Reading

# (field, name). Per link (scope: the link): data without protocol, in KiB; then bytes, on parts that dropped those.
_LINK_FIELDS = (
    ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX", "tx_kib"),  # 138
    ("NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX", "rx_kib"),  # 139
    ("NVML_FI_DEV_NVLINK_COUNT_XMIT_BYTES", "tx_bytes"),  # 202
    ("NVML_FI_DEV_NVLINK_COUNT_RCV_BYTES", "rx_bytes"),  # 204
)
_DEVICE_FIELDS = (
    ("NVML_FI_DEV_PCIE_COUNT_TX_BYTES", "pcie_tx_bytes"),  # 197
    ("NVML_FI_DEV_PCIE_COUNT_RX_BYTES", "pcie_rx_bytes"),  # 198
)
_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")  # by NVML_VALUE_TYPE


class Nvml:
    """All GPUs that NVML sees. Raises MissingError without the package, the driver or a GPU."""

    name = "nvml"
    missing: str | None = None

    def __init__(self) -> None:
        try:
            import pynvml
        except ImportError as error:
            raise MissingError("NVML: nvidia-ml-py is not installed (pip install nvidia-ml-py)") from error
        self._nvml: Any = pynvml
        self._error: type[Exception] = pynvml.NVMLError
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise MissingError(f"NVML: {error}; install NVIDIA's driver") from error
        count = pynvml.nvmlDeviceGetCount()
        if not count:
            self.close()
            raise MissingError("NVML: the driver sees no GPU")
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
        self._pci = [_text(pynvml.nvmlDeviceGetPciInfo(h).busId).lower() for h in self._handles]
        self._active = [self._active_links(h) for h in self._handles]
        self._fields = [self._supported(i) for i in range(count)]

    def gpus(self) -> list[Gpu]:
        """Return the GPUs."""
        n = self._nvml
        driver = _text(n.nvmlSystemGetDriverVersion())
        return [
            Gpu(
                i,
                "nvidia",
                _text(n.nvmlDeviceGetName(h)),
                _text(n.nvmlDeviceGetUUID(h)),
                self._pci[i],
                driver,
            )
            for i, h in enumerate(self._handles)
        ]

    def links(self) -> list[Link]:
        """Return NVLinks, bundled by peer (None: a switch); PCIe to the GPUs that no NVLink reaches."""
        found = []
        for i, handle in enumerate(self._handles):
            peers: dict[int | None, int] = {}
            for link in self._active[i]:
                peer = self._peer(handle, link)
                peers[peer] = peers.get(peer, 0) + 1
            rate = self._rate(handle)
            found += [
                Link(i, peer, "nvlink", count, rate, None if peer is None else self._access(i, peer))
                for peer, count in sorted(peers.items(), key=lambda item: (item[0] is None, item[0]))
            ]
            others = [j for j in range(len(self._handles)) if j != i and j not in peers]
            found += [
                Link(i, j, "pcie", 1, None, self._access(i, j)) for j in others if not self._nvlinked(i, j)
            ]
        return found

    def readings(self) -> list[Reading]:
        """Return clocks, power, energy and counters of links and PCIe, as far as each GPU supports them."""
        return [reading for i in range(len(self._handles)) for reading in self._of(i)]

    def close(self) -> None:
        """Shut NVML down."""
        self._nvml.nvmlShutdown()

    def _of(self, index: int) -> list[Reading]:
        n, handle = self._nvml, self._handles[index]
        values = {
            "sm_clock_mhz": self._try(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_SM),
            "memory_clock_mhz": self._try(n.nvmlDeviceGetClockInfo, handle, n.NVML_CLOCK_MEM),
            "power_mw": self._try(n.nvmlDeviceGetPowerUsage, handle),
            "energy_mj": self._try(n.nvmlDeviceGetTotalEnergyConsumption, handle),
        }
        named = self._fields[index]
        fields = (
            self._try(n.nvmlDeviceGetFieldValues, handle, [field for field, _ in named]) if named else None
        )
        for value, (_, name) in zip(fields or (), named, strict=False):
            values[name] = self._value(value)
        return [Reading(index, name, float(value)) for name, value in values.items() if value is not None]

    def _supported(self, index: int) -> list[tuple[tuple[int, int], str]]:
        """Return the fields that this GPU answers: ((number, scope), name)."""
        links = [(getattr(self._nvml, f), link, f"nvlink{link}_{n}") for f, n in _LINK_FIELDS
                 for link in self._active[index]]  # fmt: skip
        wanted = [*links, *((getattr(self._nvml, f), 0, n) for f, n in _DEVICE_FIELDS)]
        asked = self._try(
            self._nvml.nvmlDeviceGetFieldValues, self._handles[index], [(f, s) for f, s, _ in wanted]
        )
        return [
            ((field, scope), name)
            for (field, scope, name), value in zip(wanted, asked or (), strict=False)
            if self._value(value) is not None
        ]

    def _value(self, field: Any) -> float | None:
        if field.nvmlReturn != self._nvml.NVML_SUCCESS or field.valueType >= len(_VALUES):
            return None
        return float(getattr(field.value, _VALUES[field.valueType]))

    def _active_links(self, handle: Any) -> list[int]:
        return [
            link
            for link in range(self._nvml.NVML_NVLINK_MAX_LINKS)
            if self._try(self._nvml.nvmlDeviceGetNvLinkState, handle, link) == self._nvml.NVML_FEATURE_ENABLED
        ]

    def _peer(self, handle: Any, link: int) -> int | None:
        """Return the GPU at the link's other end; None for a switch or one that is not visible here."""
        info = self._try(self._nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
        remote = None if info is None else _text(info.busId).lower()
        return self._pci.index(remote) if remote in self._pci else None

    def _rate(self, handle: Any) -> int | None:
        """Return one link's rate; nvml.h counts it in MB/s ("Common NVLink Speed in MBps for active links")."""
        fields = self._try(
            self._nvml.nvmlDeviceGetFieldValues, handle, [self._nvml.NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON]
        )
        value = self._value(fields[0]) if fields else None
        return int(value * 1e6) if value else None

    def _access(self, gpu: int, peer: int) -> bool:
        return self._p2p(gpu, peer, self._nvml.NVML_P2P_CAPS_INDEX_WRITE)

    def _nvlinked(self, gpu: int, peer: int) -> bool:
        return self._p2p(gpu, peer, self._nvml.NVML_P2P_CAPS_INDEX_NVLINK)

    def _p2p(self, gpu: int, peer: int, capability: int) -> bool:
        asked = self._try(
            self._nvml.nvmlDeviceGetP2PStatus, self._handles[gpu], self._handles[peer], capability
        )
        return bool(asked == self._nvml.NVML_P2P_STATUS_OK)

    def _try(self, call: Any, *arguments: Any) -> Any:
        """Return what `call` says, None where the GPU or driver does not support it."""
        try:
            return call(*arguments)
        except self._error:
            return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)

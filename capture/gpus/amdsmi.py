"""AMD GPUs through amdsmi. Names and units: amdsmi 7.0.2's amdsmi_interface.py and amdsmi.h (link data in KB).

Written against that package; tried with that package over a library of stubs;
docs/support.md says whether on a GPU.
"""

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from ...schemas.errors import MissingError
from .backend import Gpu, Link, Reading

_ABSENT = "N/A"  # what amdsmi returns for a value that the device lacks


class AmdSmi:
    """All GPUs that amdsmi sees. Raises MissingError without the package, ROCm or a GPU."""

    name = "amdsmi"
    missing: str | None = None

    def __init__(self) -> None:
        try:
            with redirect_stdout(StringIO()):  # it prints where its library is missing
                import amdsmi
        except ImportError as error:
            raise MissingError("amdsmi: not installed (it comes with ROCm: pip install amdsmi)") from error
        except (KeyError, OSError) as error:  # so it fails where libamd_smi.so is not there
            raise MissingError(f"amdsmi: its library cannot be loaded ({error}); install ROCm") from error
        self._smi: Any = amdsmi
        self._error: type[Exception] = amdsmi.AmdSmiException
        try:
            amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_AMD_GPUS)
            self._handles = list(amdsmi.amdsmi_get_processor_handles())
        except amdsmi.AmdSmiException as error:
            raise MissingError(f"amdsmi: {error}; is the amdgpu driver loaded?") from error
        if not self._handles:
            self.close()
            raise MissingError("amdsmi: the driver sees no GPU")
        self._pci = [str(amdsmi.amdsmi_get_gpu_device_bdf(h)).lower() for h in self._handles]

    def gpus(self) -> list[Gpu]:
        """Return the GPUs."""
        smi, found = self._smi, []
        for i, handle in enumerate(self._handles):
            model = self._try(smi.amdsmi_get_gpu_asic_info, handle) or {}
            driver = self._try(smi.amdsmi_get_gpu_driver_info, handle) or {}
            uuid = self._try(smi.amdsmi_get_gpu_device_uuid, handle) or ""
            found.append(
                Gpu(
                    i,
                    "amd",
                    model.get("market_name", ""),
                    uuid,
                    self._pci[i],
                    driver.get("driver_version", ""),
                )
            )
        return found

    def links(self) -> list[Link]:
        """Return the link between every two GPUs; `count` is 1, for the library tells hops, not links, a pair."""
        smi, found = self._smi, []
        kinds = {
            int(smi.AmdSmiLinkType.AMDSMI_LINK_TYPE_XGMI): "xgmi",
            int(smi.AmdSmiLinkType.AMDSMI_LINK_TYPE_PCIE): "pcie",
        }
        for i, source in enumerate(self._handles):
            rates = {link["bdf"].lower(): link["max_bandwidth"] for link in self._links(source)}
            for j, target in enumerate(self._handles):
                if i == j:
                    continue
                seen = self._try(smi.amdsmi_topo_get_link_type, source, target)
                if seen is None or seen["type"] not in kinds:
                    continue
                rate = rates.get(self._pci[j])
                access = self._try(smi.amdsmi_is_P2P_accessible, source, target)
                bytes_per_s = (
                    rate * 10**9 // 8 if rate else None
                )  # amdsmi.h: Gb/s of the link; its bit_rate is a lane's
                found.append(Link(i, j, kinds[seen["type"]], 1, bytes_per_s, access))
        return found

    def readings(self) -> list[Reading]:
        """Return clocks, power and counters of the links to other GPUs, as far as each GPU supports them."""
        return [reading for i in range(len(self._handles)) for reading in self._of(i)]

    def close(self) -> None:
        """Shut amdsmi down."""
        self._smi.amdsmi_shut_down()

    def _of(self, index: int) -> list[Reading]:
        smi, handle = self._smi, self._handles[index]
        power = self._try(smi.amdsmi_get_power_info, handle) or {}
        watts = [power.get(name) for name in ("current_socket_power", "average_socket_power")]
        values: dict[str, Any] = {
            "gfx_clock_mhz": self._clock(handle, smi.AmdSmiClkType.GFX),
            "memory_clock_mhz": self._clock(handle, smi.AmdSmiClkType.MEM),
            "power_w": next((w for w in watts if w not in (None, _ABSENT)), None),
        }
        for i, link in enumerate(self._links(handle)):
            values[f"xgmi{i}_rx_kb"] = link["read"]
            values[f"xgmi{i}_tx_kb"] = link["write"]
        return [
            Reading(index, name, float(value))
            for name, value in values.items()
            if value not in (None, _ABSENT)
        ]

    def _links(self, handle: Any) -> list[dict[str, Any]]:
        metrics = self._try(self._smi.amdsmi_get_link_metrics, handle)
        return [] if metrics is None else metrics["links"][: metrics["num_links"]]

    def _clock(self, handle: Any, kind: Any) -> Any:
        info = self._try(self._smi.amdsmi_get_clock_info, handle, kind)
        return None if info is None else info["clk"]

    def _try(self, call: Any, *arguments: Any) -> Any:
        """Return what `call` says, None where the GPU or driver does not support it."""
        try:
            return call(*arguments)
        except self._error:
            return None

"""What a Kineto file says of the device, driver and libraries that a rank ran on."""

import json
from typing import Any

from .events import Events
from .work import Work

_VERSIONS = (
    "cuda_driver_version",
    "cuda_runtime_version",
    "hip_driver_version",
    "hip_runtime_version",
    "roctracer_version",
    "cupti_version",
    "pytorch_version",
)


def rank_columns(events: Events, work: Work) -> dict[str, Any]:
    """Return the row of `ranks`: the device that ran most of the rank's GPU work, as the file has it."""
    metadata = events.metadata
    device = work.main_device
    given = metadata.get("deviceProperties")
    listed = [d for d in (given if isinstance(given, list) else []) if isinstance(d, dict)]
    properties = next((d for d in listed if d.get("id") == device), {}) if device is not None else {}
    model = properties.get("name")
    host = metadata.get("host_name")
    return {
        "backend": "gpu" if device is not None else "host",
        "host": host if isinstance(host, str) else None,
        "device": device,
        "vendor": _vendor(str(model or ""), work) if device is not None else None,
        "model": model if isinstance(model, str) else None,
        "compute_units": _count(properties.get("numSms")),
        "memory_bytes": _count(properties.get("totalGlobalMem")),
        "software": _software(metadata),
    }


def _vendor(model: str, work: Work) -> str | None:
    if "AMD" in model or "Instinct" in model or work.matching("^hip").any():
        return "amd"
    return "nvidia" if "NVIDIA" in model or work.matching("^cu(da)?[A-Z]").any() else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value > 0 else None


def _software(metadata: dict[str, Any]) -> str | None:
    found = {key: str(metadata[key]) for key in _VERSIONS if key in metadata}
    info = metadata.get("distributedInfo")
    if isinstance(info, dict):
        found |= {key: str(info[key]) for key in ("nccl_version", "backend") if key in info}
    return json.dumps(found, sort_keys=True) if found else None

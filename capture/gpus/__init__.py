"""What the GPUs of this machine say of themselves: NVML on NVIDIA, amdsmi on AMD, and a null device."""

from .backend import Backend, Gpu, Link, NullBackend, Reading, find_backend

__all__ = ["Backend", "Gpu", "Link", "NullBackend", "Reading", "find_backend"]

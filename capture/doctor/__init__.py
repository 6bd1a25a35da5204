"""What this machine can capture, and what to do about each gap: `eidola capture doctor`."""

from .examination import Finding, Machine, examine

__all__ = ["Finding", "Machine", "examine"]

"""Pictures of traces and results; reads only schemas."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .report import report, report_comparison

__all__ = ["report", "report_comparison"]

__getattr__ = attach(__name__, report="report report_comparison")

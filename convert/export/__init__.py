"""The schema -> what other simulators and viewers eat: one writer a format, behind one registry."""

from typing import TYPE_CHECKING

from ...schemas.lazy import attach

if TYPE_CHECKING:
    from .registry import TITLES, export
    from .report import ExportReport

__all__ = ["TITLES", "ExportReport", "export"]

__getattr__ = attach(__name__, registry="TITLES export", report="ExportReport")

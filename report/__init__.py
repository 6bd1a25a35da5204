"""Pictures of traces and results; reads only schemas."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .report import report

__all__ = ["report"]

__getattr__ = attach(__name__, report="report")

"""Raw records and other tools' traces -> the schema."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .kineto import kineto
    from .report import ConversionReport

__all__ = ["ConversionReport", "kineto"]

__getattr__ = attach(__name__, kineto="kineto", report="ConversionReport")

"""Raw records and other tools' traces -> the schema."""

from typing import TYPE_CHECKING

from ..schemas.lazy import attach

if TYPE_CHECKING:
    from .auto import auto
    from .captured import captured
    from .conversion import convert
    from .formats import Format, Head, find_format, titles
    from .kineto import kineto
    from .rank import RankRecord
    from .report import ConversionReport

__all__ = [
    "ConversionReport",
    "Format",
    "Head",
    "RankRecord",
    "auto",
    "captured",
    "convert",
    "find_format",
    "kineto",
    "titles",
]

__getattr__ = attach(
    __name__,
    auto="auto",
    captured="captured",
    conversion="convert",
    formats="Format Head find_format titles",
    kineto="kineto",
    rank="RankRecord",
    report="ConversionReport",
)

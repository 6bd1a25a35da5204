"""The tables that the stages exchange, and the errors that they raise; knows no stage."""

from typing import TYPE_CHECKING

from .errors import (
    CaptureError,
    EidolaError,
    InputError,
    MissingError,
    SchemaError,
    StallError,
    UsageError,
)
from .lazy import attach

if TYPE_CHECKING:
    from .tables import RESULT_TABLES, RESULT_VERSION, TRACE_TABLES, TRACE_VERSION, Column, Table
    from .trace import Trace, TraceWriter, conform

__all__ = [
    "RESULT_TABLES",
    "RESULT_VERSION",
    "TRACE_TABLES",
    "TRACE_VERSION",
    "CaptureError",
    "Column",
    "EidolaError",
    "InputError",
    "MissingError",
    "SchemaError",
    "StallError",
    "Table",
    "Trace",
    "TraceWriter",
    "UsageError",
    "conform",
]

__getattr__ = attach(
    __name__,
    tables="RESULT_TABLES RESULT_VERSION TRACE_TABLES TRACE_VERSION Column Table",
    trace="Trace TraceWriter conform",
)

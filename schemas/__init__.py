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
    from .checks import check
    from .hashing import results_hash
    from .migrate import migration
    from .problem import Problem
    from .results import Results, ResultsWriter
    from .store import conform
    from .tables import RESULT_TABLES, RESULT_VERSION, TRACE_TABLES, TRACE_VERSION, Column, Table
    from .trace import Trace, TraceWriter

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
    "Problem",
    "Results",
    "ResultsWriter",
    "SchemaError",
    "StallError",
    "Table",
    "Trace",
    "TraceWriter",
    "UsageError",
    "check",
    "conform",
    "migration",
    "results_hash",
]

__getattr__ = attach(
    __name__,
    checks="check",
    hashing="results_hash",
    migrate="migration",
    problem="Problem",
    results="Results ResultsWriter",
    store="conform",
    tables="RESULT_TABLES RESULT_VERSION TRACE_TABLES TRACE_VERSION Column Table",
    trace="Trace TraceWriter",
)

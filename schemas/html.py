"""Small tables in HTML, for what notebooks show; all text is escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a table; None shows as a dash, numbers with thousands separators."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell(value))}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def paragraphs(lines: Iterable[str]) -> str:
    """Return a paragraph a line."""
    return "".join(f"<p>{escape(line)}</p>" for line in lines)


def cell(value: Any) -> str:
    """Return a value as a cell shows it."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)

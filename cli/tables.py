"""Tables on the terminal, as wide as the terminal is; 80 columns where nothing says."""

import json
from collections.abc import Sequence
from typing import Any

import typer

_CELL = 200  # characters of a cell, then it is cut; --json has all
_SHORT = 14  # characters of a text that is not folded
_NUMERIC = "-+.,%0123456789"


def show_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[Any]], top: int | None = None
) -> None:
    """Print a table, its first `top` rows; nothing where it has none. Numbers stay whole, texts are folded."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if not rows:
        return
    shown = rows if top is None else rows[:top]
    more = f" (first {len(shown):,} of {len(rows):,}; --json has all)" if len(shown) < len(rows) else ""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False, show_edge=False)
    texts = [[cell(value) for value in row] for row in shown]
    for at, name in enumerate(header):
        numeric = all(set(row[at]) <= set(_NUMERIC) for row in texts)
        widest = max(len(row[at]) for row in texts)
        words = max(map(len, name.split()), default=0)
        table.add_column(
            escape(plain(name)), justify="right" if numeric else "left", overflow="fold",
            min_width=max(words, widest) if numeric or widest <= _SHORT else words,
        )  # fmt: skip
    for row in texts:
        table.add_row(*(escape(t if len(t) <= _CELL else f"{t[: _CELL - 3]}...") for t in row))
    console = Console(highlight=False)
    console.print(Text(f"\n{plain(title)}{more}", style="bold"))
    console.print(table)


def plain(text: str) -> str:
    """Return a text with its control characters written out: a name may hold what a terminal obeys."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line, or several, of which names are part."""
    typer.echo(plain(text), err=err)


def cell(value: Any) -> str:
    """Return what a cell shows of a value: `-` for unknown, thousands separated."""
    if value is None:
        return "-"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return json.dumps(value) if isinstance(value, dict | list) else plain(str(value)).replace("\n", "\\n")

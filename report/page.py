"""The page: one HTML file that holds its style, its scripts and its data, and may not reach any network."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from ..schemas.store import generator
from .text import short
from .view import Table, View

_STATIC = Path(__file__).parent / "static"
_LONG = 120  # characters of a fact before it is folded


@dataclass(frozen=True)
class Head:
    """What the page says before its views: heading, what was run, warnings, and the whole record as JSON."""

    heading: str
    lead: str
    facts: Sequence[tuple[str, str]]
    warnings: Sequence[str] = ()
    records: dict[str, Any] = field(default_factory=dict)


def page(head: Head, views: Sequence[View]) -> str:
    """Return the report as HTML. Everything from a trace is escaped, in the page and in its data."""
    scripts = {
        "theme_script": _static("theme.js"),
        "plotly": _inline(get_plotlyjs()),
        "script": _static("report.js"),
    }
    return Template(_static("page.html")).substitute(
        policy=_policy(list(scripts.values())),
        title=html.escape(short(head.heading)),
        style=_static("report.css"),
        nav="".join(f'<a href="#{view.key}">{html.escape(view.title)}</a>' for view in views),
        heading=_text(head.heading),
        lead=html.escape(head.lead),
        warnings="".join(f'<p class="warning" role="note">{html.escape(w)}</p>' for w in head.warnings),
        facts="\n".join(f"<div><dt>{html.escape(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in head.facts),
        details=_records(head.records),
        views="\n".join(_section(at, view) for at, view in enumerate(views)),
        footer=html.escape(f"Written by {generator()}."),
        data=_json([view.encode() for view in views]),
        **scripts,
    )


def _static(name: str) -> str:
    return _inline((_STATIC / name).read_text(encoding="utf-8"))


def _inline(source: str) -> str:
    """Return a source with the line ends that a browser hashes."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _policy(scripts: Sequence[str]) -> str:
    """Return a content security policy: these scripts and no others run, and nothing is fetched."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _json(value: Any) -> str:
    """Return JSON that stays inside its script element: no `<`, `>` or `&`, and nothing but ASCII."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(value: str) -> str:
    """Escape a text; a long one is folded, and there whole."""
    if len(value) <= _LONG:
        return html.escape(value)
    return (
        f'<details><summary>{html.escape(short(value, _LONG))}</summary><div class="plain">'
        f"{html.escape(value)}</div></details>"
    )


def _records(records: dict[str, Any]) -> str:
    texts = {
        name: json.dumps(value, indent=1, ensure_ascii=False) for name, value in records.items() if value
    }
    return "".join(
        f"<details><summary>{html.escape(name)}</summary>"
        f'<pre class="plain" tabindex="0">{html.escape(text)}</pre></details>'
        for name, text in texts.items()
    )


def _section(at: int, view: View) -> str:
    charts = "".join(_figure(at, number, view) for number in range(len(view.charts)))
    tables = "".join(_table(at, number, table) for number, table in enumerate(view.tables))
    note = f'<p class="note">{html.escape(view.note)}</p>' if view.note else ""
    return (
        f'<section id="{view.key}" aria-labelledby="{view.key}-title"><h2 id="{view.key}-title">'
        f'{html.escape(view.title)}</h2><p class="finding">{html.escape(view.sentence)}</p>'
        f"{note}{charts}{tables}</section>"
    )


def _table(at: int, number: int, table: Table) -> str:
    opened = " open data-list" if table.opened else ""
    title = html.escape(table.title)
    return f'<details data-table="{at} {number}"{opened}><summary>Table: {title}</summary></details>'


def _figure(at: int, number: int, view: View) -> str:
    chart = view.charts[number]
    name = html.escape(f"{chart.title}. {view.sentence} The tables below hold the data.")
    return (
        f'<h3>{html.escape(chart.title)}</h3><div class="chart" role="img" aria-label="{name}" '
        f'data-chart="{at} {number}" style="min-height:{chart.height}px"></div>'
    )

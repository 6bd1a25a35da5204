"""The report of a comparison: the command writes it, it draws in a browser, its numbers are the comparison's."""

import pytest
from typer.testing import CliRunner

from eidola.cli.main import app
from eidola.replay import compare
from eidola.report import report_comparison

from .runs import HOSTILE, fused, saved, star
from .test_report import held


def compared(folder, names=("gemv", "ready", "workgroup 0", "world", "all_reduce"), node="switch"):
    """Two runs of one program, on a star and on one of one step less; and the page of their comparison."""
    a = saved(fused(4, 2, names), star(4, node), folder / "a")
    b = saved(fused(4, 3, names), star(4, node), folder / "b")
    found = compare(a, b)
    return found, report_comparison(found.as_dict(), folder / "c.html")


def test_the_differences_of_causes_add_up_to_the_whole(tmp_path):
    found, file = compared(tmp_path)
    text, data = held(file)
    columns = {c["name"]: c["values"] for c in data[0]["tables"][0]["columns"] if "values" in c}
    assert sum(columns["b - a (µs)"]) == pytest.approx(found.difference_ps / 1e6)
    named = {c["name"]: c.get("values") for c in data[1]["tables"][0]["columns"]}
    assert sum(named["b - a (µs)"]) == pytest.approx(found.difference_ps / 1e6)
    assert 'id="operations"' in text
    assert 'id="links"' in text


def test_the_command_compares_two_runs(tmp_path):
    compared(tmp_path)
    output = tmp_path / "by-command.html"
    done = CliRunner().invoke(app, ["report", str(tmp_path / "a"), str(tmp_path / "b"), "-o", str(output)])
    assert (done.exit_code, done.stdout) == (0, f"wrote {output}; open it in a browser\n")
    assert held(output)[1] == held(tmp_path / "c.html")[1]


def test_what_is_no_run_is_refused_in_a_sentence(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path), str(tmp_path), "-o", str(tmp_path / "x.html")])
    assert done.exit_code != 0
    assert not (tmp_path / "x.html").exists()


def test_a_comparison_opens_with_hostile_names(page, tmp_path):
    _, file = compared(tmp_path, HOSTILE[:5], HOSTILE[6])
    page.open(file)
    assert page.run("return [...document.querySelectorAll('main section')].map(s => s.id)") == [
        "causes",
        "named",
        "operations",
        "collectives",
        "links",
    ]
    assert page.undrawn() == []
    assert page.console() == []
    assert page.requests() == []
    assert page.run("return window.hit") is None
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")

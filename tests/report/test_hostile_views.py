"""Names in views that no small run has, causes and launches, are shown as text."""

import pytest

from eidola.report.causes import causes
from eidola.report.launches import launches
from eidola.report.page import Head
from eidola.report.page import page as html_of

from .runs import HOSTILE, US
from .test_launches import spans


def cause(name, where, saved_ps):
    return {"what": "kernel", "name": name, "where": where, "duration_ps": 8 * US, "share": 0.5, "segments": 1,
            "change": "half the time", "expected_ps": 4 * US, "saved_ps": saved_ps}  # fmt: skip


@pytest.mark.parametrize("turn", range(0, len(HOSTILE), 2))
def test_hostile_causes_and_kernels_are_text(page, tmp_path, turn):
    names = HOSTILE[turn:] + HOSTILE[:turn]
    confirmed = {"makespan_ps": 16 * US, "causes": [cause(n, names[0], 3 * US) for n in names]}
    kernels = spans(*((name, 10 * at, 10 * at + 5, 10 * at + 30) for at, name in enumerate(names)))
    file = tmp_path / "hostile.html"
    file.write_text(html_of(Head(names[1], names[2], []), [causes(confirmed), launches(kernels)]), "utf-8")
    page.open(file)
    for title in ("causes, each twice as fast", "launch and queueing by kernel"):
        cells = " ".join(cell for row in page.table(title) for cell in row)
        assert all(name in cells for name in names)
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('main b, main img, a[href^=http], svg a').length") == 0
    assert page.undrawn() == []
    assert page.console() == []
    assert page.requests() == []

"""Reports in a browser: drawn without errors and without a network, for eyes and for the keyboard."""

from dataclasses import asdict
from pathlib import Path

import pytest

from eidola.replay import explain, replay, spin
from eidola.report import report

from .runs import HOSTILE, fused, ring, saved, star

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs/report.png"
SAMPLE = ROOT / "sample_traces/gemv_allreduce_host_4/trace.eidola"
VIEWS = ["path", "gpus", "flags", "waits", "fabric", "links", "traffic", "messages", "collectives"]


def reported(run):
    path = [asdict(segment) for segment in explain(run).path]
    return report(run, run.with_suffix(".html"), path)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The report of a run of 8 GPUs that was captured and has every view."""
    folder = tmp_path_factory.mktemp("report")
    return reported(saved(fused(8), star(8), folder / "small"))


def sections(page):
    return page.run("return [...document.querySelectorAll('main section')].map(s => s.id)")


def test_every_view_is_drawn_without_errors_or_network(page, small):
    page.open(small)
    assert sections(page) == VIEWS
    assert page.charts() == 12
    assert page.undrawn() == []
    assert page.console() == []
    assert page.requests() == []


def test_every_chart_has_a_sentence_and_a_table(page, small):
    page.open(small)
    lacking = page.run(
        "return [...document.querySelectorAll('section')].filter(s => !s.querySelector('.finding').textContent"
        " || !s.querySelector('details[data-table]')).map(s => s.id)"
    )
    assert lacking == []


def test_light_and_dark_differ_and_the_charts_follow(page, small):
    page.open(small)
    page.run("document.documentElement.dataset.chosen = 'yes'; document.getElementById('theme').click()")
    bar = "return getComputedStyle(document.querySelector('#gpus .barlayer .point path')).fill"
    seen = {}
    for _ in range(2):
        theme = page.run("return document.documentElement.dataset.theme")
        seen[theme] = (page.run("return getComputedStyle(document.body).backgroundColor"), page.run(bar))
        page.run("document.getElementById('theme').click()")
    assert set(seen) == {"light", "dark"}
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))
    assert page.console() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_system_chooses_the_theme(page, small, theme):
    media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.open(small)
    assert page.run("return document.documentElement.dataset.theme") == theme
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_tables_open_by_keyboard(page, small):
    from selenium.webdriver.common.keys import Keys

    page.open(small)
    page.run("document.querySelector('#gpus details summary').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.driver.switch_to.active_element.send_keys(Keys.TAB)
    held = page.run(
        "return [document.activeElement.getAttribute('role'), document.activeElement.getAttribute('aria-label')]"
    )
    assert held == ["region", "time by GPU"]  # the table scrolls by the arrow keys
    assert page.run("return document.querySelectorAll('#gpus tbody tr').length") == 8


def test_the_matrix_zooms_and_moves_by_keyboard(page, small):
    from selenium.webdriver.common.keys import Keys

    page.open(small)
    page.run("document.querySelector('#traffic .chart').focus()")
    ranges = "const l = document.activeElement._fullLayout; return [l.xaxis.range, l.yaxis.range]"
    key = page.driver.switch_to.active_element.send_keys
    whole = page.run(ranges)
    key("+")
    near = page.run(ranges)
    assert all(
        abs(n[1] - n[0]) == pytest.approx(0.7 * abs(w[1] - w[0])) for n, w in zip(near, whole, strict=True)
    )
    key(Keys.ARROW_RIGHT)
    moved = page.run(ranges)
    assert moved[0][0] > near[0][0]
    assert moved[1] == near[1]
    key("0")
    assert page.run(ranges) == whole
    assert page.console() == []


def test_focus_is_visible_and_every_chart_and_table_takes_it(page, small):
    from selenium.webdriver.common.keys import Keys

    page.open(small)
    page.run("document.activeElement.blur(); scrollTo(0, 0)")
    seen, unmarked = set(), []
    for _ in range(200):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        at, outline, where = page.run(
            "const e = document.activeElement; return [e.dataset.chart ? 'chart ' + e.dataset.chart : "
            "e.tagName === 'SUMMARY' ? e.textContent : e.tagName, getComputedStyle(e).outlineStyle, e.className]"
        )
        if at == "BODY":
            break
        seen.add(at)
        unmarked += [where] if outline == "none" else []
    assert unmarked == []
    charts = page.run(
        "return [...document.querySelectorAll('[data-chart]')].map(c => 'chart ' + c.dataset.chart)"
    )
    assert set(charts) <= seen
    assert len([at for at in seen if at.startswith("Table: ")]) == page.run(
        "return document.querySelectorAll('details[data-table]').length"
    )


@pytest.mark.parametrize("size", [(1280, 720), (400, 800)])
def test_nothing_is_wider_than_the_window(page, small, size):
    page.driver.set_window_size(*size)
    page.open(small)
    wide = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    page.driver.set_window_size(1280, 900)
    assert wide[0] <= wide[1]


def test_the_critical_path_is_listed_without_being_asked_for(page, small):
    page.open(small)
    header = page.run(
        "return [...document.querySelectorAll('#path details[open] th')].map(t => t.textContent)"
    )
    assert {"GPU", "kernel, call or operation", "link", "flag"} <= set(header)
    assert page.run("return document.querySelectorAll('#path details[open] tbody tr').length") > 3


def test_the_first_tab_skips_to_the_findings(page, small):
    from selenium.webdriver.common.keys import Keys

    page.open(small)
    page.run("document.activeElement.blur()")
    page.driver.find_element("tag name", "body").send_keys(Keys.TAB)
    assert page.run("return document.activeElement.textContent") == "Skip to the findings"
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.run("return document.activeElement.id") == "main"


def test_a_table_holds_what_the_run_holds(page, small):
    from eidola.schemas import Results

    page.open(small)
    header, *rows = page.table("time by GPU")
    gpus = Results(small.with_suffix("")).read("gpus").to_pylist()
    waiting = header.index("waiting (µs)")
    shown = [(row[0], float(row[waiting])) for row in rows]
    assert shown == [(str(g["rank"]), pytest.approx(g["exposed_ps"] / 1e6, abs=1e-3)) for g in gpus]


@pytest.mark.parametrize("turn", range(0, len(HOSTILE), 2))
def test_hostile_names_are_text(page, tmp_path, turn):
    """As kernel, flag, agent, communicator, operation, switch and entries of the summary."""
    names = (HOSTILE[turn:] + HOSTILE[:turn])[:6]
    summary = {"fabric": names[0], names[1]: names[2], "mode": names[3]}
    run = saved(fused(3, 1, names[:5]), star(3, names[5]), tmp_path / "run", summary)
    page.open(reported(run))
    assert sections(page) == VIEWS
    tables = page.run(
        "return [...document.querySelectorAll('details[data-table] > summary')].map(s => s.textContent)"
    )
    for title in tables:
        assert len(page.table(title.removeprefix("Table: "))) > 1
    path = " ".join(cell for row in page.table("the path, in time order") for cell in row)
    assert all(names[at] in path for at in (0, 1, 2, 4, 5))  # kernel, flag, agent, operation, switch
    assert page.run("return window.hit") is None
    assert page.run("return document.querySelectorAll('main b, main img, a[href^=http], svg a').length") == 0
    assert page.undrawn() == []
    assert page.console() == []
    assert page.requests() == []


def test_markup_in_names_is_shown_as_it_is_in_charts(page, tmp_path):
    run = saved(fused(3, 1, ["k", "<b>f</b>&amp;", "a", "c", "<i>o</i>"]), star(3), tmp_path / "run")
    page.open(reported(run))
    ticks = "[...document.querySelectorAll('#flags .ytick text, #collectives .xtick text')]"
    labels = page.run(f"return {ticks}.map(t => t.textContent)")
    assert labels == [*(f"<b>f</b>&amp; of GPU {gpu}" for gpu in range(3)), "<i>o</i> 0"]


def test_long_names_are_folded_and_there_in_full(page, tmp_path):
    long = "k" * 10_000
    page.open(reported(saved(fused(3, 1, [long] * 5), star(3), tmp_path / "run", {"note": long})))
    page.table("the path, in time order")
    folded = "return [...document.querySelectorAll('#path td details')].map(d => d.lastChild.textContent)"
    assert long in page.run(folded)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")
    assert (
        max(page.run("return [...document.querySelectorAll('svg text')].map(t => t.textContent.length)"))
        < 200
    )


def test_a_run_of_1024_gpus_opens(page, tmp_path):
    file = reported(saved(ring(1024, 8), star(1024), tmp_path / "run"))
    assert file.stat().st_size < 8_000_000
    page.open(file)
    assert sections(page) == VIEWS
    assert page.undrawn() == []
    assert page.console() == []
    assert page.run("return document.querySelectorAll('svg *').length") < 5000  # marks, however many GPUs
    assert len(page.table("time by GPU")) == 1 + 500
    page.run(
        "[...document.querySelectorAll('#gpus button')].find(b => b.textContent.startsWith('Show all')).click()"
    )
    assert page.run("return document.querySelectorAll('#gpus tbody tr').length") == 1024


def test_the_picture_in_the_docs(page, tmp_path, request):
    """`--refresh-pictures` takes it anew: the captured GEMV + AllReduce, replayed on twice its GPUs."""
    if request.config.getoption("--refresh-pictures"):
        run = replay(SAMPLE, tmp_path / "gemv-allreduce", gpus=8, fabric="hgx-h100", wait=spin(100))
        page.open(reported(run.path))
        page.driver.set_window_size(1280, 1800)
        page.driver.save_screenshot(str(PICTURE))
        page.driver.set_window_size(1280, 900)
    assert PICTURE.read_bytes().startswith(b"\x89PNG")
    assert PICTURE.stat().st_size < 400_000


def test_a_table_is_saved_as_csv_with_formulas_defused(page, tmp_path):
    page.open(reported(saved(fused(3, 1, ["=1+1", '"f"', "a", "c", "o"]), star(3), tmp_path / "run")))
    page.table("waiting by flag")
    page.table("the path, in time order")
    page.run(
        "window.saved = []; HTMLAnchorElement.prototype.click = () => {};"
        "URL.createObjectURL = blob => { blob.text().then(t => saved.push(t)); return 'blob:x'; };"
        "for (const id of ['flags', 'path']) document.querySelector('#' + id + ' .tools button').click();"
    )
    flags, path = page.run("return new Promise(done => setTimeout(() => done(saved), 100))")
    assert flags.splitlines()[1].startswith('"""f""",0,')
    assert '"\'=1+1"' in path

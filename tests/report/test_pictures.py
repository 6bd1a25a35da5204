"""Pictures of every view for docs/report.md: `--refresh-pictures` takes them anew, and the page shows each one."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from eidola.convert import convert, find_format
from eidola.replay import compare, confirm, explain, monitor, replay, spin
from eidola.replay.sweeping import read_study, sweep
from eidola.report import report, report_comparison

ROOT = Path(__file__).resolve().parents[2]
PAGE, FOLDER = ROOT / "docs/report.md", ROOT / "docs/report"
FUSED = ROOT / "sample_traces/gemv_allreduce_host_4/trace.eidola"
JOB = ROOT / "sample_traces/gloo_ddp_4/trace.eidola"
KINETO = ROOT.parent / "shared/traces/kineto/v100_dlrm_8ranks"
SHOWN = {  # of each report, its views in the page
    "fused": ("path", "causes", "gpus", "flags", "waits", "traffic"),
    "job": ("fabric", "links", "messages", "collectives"),
    "comparison": ("named", "operations"),
    "swept": ("makespan_ps",),
    "kineto": ("launches",),
}


def fused(folder):
    run = replay(FUSED, folder / "fused", gpus=8, fabric="hgx-h100", wait=spin(100))
    confirm(run)
    path = [asdict(segment) for segment in explain(run).path]
    return report(run.path, folder / "fused.html", path)


def job(folder):
    return report(replay(JOB, folder / "job", gpus=128, fabric="hgx-h100").path, folder / "job.html")


def comparison(folder):
    polled, armed = (
        replay(FUSED, folder / name, gpus=8, fabric="hgx-h100", wait=wait)
        for name, wait in (("spin", spin(100_000)), ("monitor", monitor()))
    )
    return report_comparison(compare(polled, armed.path).as_dict(), folder / "comparison.html")


def swept(folder):
    study = folder / "study.toml"
    grid = 'gpus = [8, 16, 32, 64]\nalgorithms = [{ all_reduce = "ring" }, { all_reduce = "tree" }]'
    study.write_text(f'trace = "{JOB}"\n[fixed]\nfabric = "hgx-h100"\n[grid]\n{grid}\n')
    return report(sweep(read_study(study), folder / "study", jobs=1).path, folder / "swept.html")


def kineto(folder):
    if not KINETO.is_dir():
        pytest.skip("no Kineto traces beside the repository")
    convert(find_format("kineto"), sorted(KINETO.glob("*.gz")), folder / "kineto.eidola")
    return report(folder / "kineto.eidola", folder / "kineto.html")


@pytest.mark.parametrize("make", [fused, job, comparison, swept, kineto], ids=lambda make: make.__name__)
def test_every_view_is_pictured(page, tmp_path, request, make):
    views = SHOWN[make.__name__]
    if request.config.getoption("--refresh-pictures"):
        page.open(make(tmp_path))
        height = page.run("return document.documentElement.scrollHeight")
        page.driver.set_window_size(1280, height + 200)
        FOLDER.mkdir(exist_ok=True)
        for view in views:
            page.driver.find_element("id", view).screenshot(str(FOLDER / f"{view}.png"))
        page.driver.set_window_size(1280, 900)
    for view in views:
        assert (FOLDER / f"{view}.png").read_bytes().startswith(b"\x89PNG")
        assert (FOLDER / f"{view}.png").stat().st_size < 400_000


def test_the_page_shows_each_picture_once():
    shown = re.findall(r"\]\(report/(\w+)\.png\)", PAGE.read_text())
    assert sorted(shown) == sorted(view for views in SHOWN.values() for view in views)
    assert sorted(file.stem for file in FOLDER.glob("*.png")) == sorted(shown)

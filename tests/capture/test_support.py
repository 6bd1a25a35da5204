"""The labels of what was tried: one data file, and the pages and the doctor that repeat it."""

import tomllib
from pathlib import Path

import pytest

from eidola.capture import support

ROOT = Path(__file__).resolve().parents[2]
FEATURES = tomllib.loads(support.DATA.read_text())["feature"]


@pytest.mark.parametrize("feature", FEATURES, ids=lambda f: f["name"])
def test_every_label_is_known_and_comes_with_what_it_needs(feature):
    assert set(feature) == {"name", *support.VENDORS}
    for vendor in support.VENDORS:
        entry = feature[vendor]
        assert set(entry) == {"label", *support.DETAILS[entry["label"]]}
        assert all(entry.values())


def test_the_page_and_the_readme_say_what_the_data_say():
    assert (ROOT / "docs" / "support.md").read_text() == support.page(), "run `make docs`"
    readme = (ROOT / "README.md").read_text()
    assert support.BEGIN in readme
    assert readme == support.with_table(readme), "run `make docs`"

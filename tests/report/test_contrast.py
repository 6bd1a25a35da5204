"""The page's colors can be told apart: text from its ground by 4.5 to 1, marks by 3 to 1 (WCAG 2.1, AA)."""

import re
from pathlib import Path

import pytest

CSS = (Path(__file__).resolve().parents[2] / "report/static/report.css").read_text()
THEMES = {"light": ":root {", "dark": ':root[data-theme="dark"] {'}


def colors(theme):
    block = CSS.split(THEMES[theme], 1)[1].split("}", 1)[0]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def luminance(color):
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula_is_that_of_wcag():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_text_and_marks_stand_out(theme):
    found = colors(theme)
    texts = {
        (ink, ground): contrast(found[ink], found[ground])
        for ink, ground in (
            *((ink, ground) for ink in ("ink", "soft", "accent") for ground in ("page", "card")),
            ("warning", "warning-page"),
        )
    }
    marks = {
        role: contrast(found[role], found["card"])
        for role in ("compute", "wait", "other", "link", "captured")
    }
    assert {pair: ratio for pair, ratio in texts.items() if ratio < 4.5} == {}
    assert {role: ratio for role, ratio in marks.items() if ratio < 3} == {}

"""What long work shows on a terminal: what is done, its rate, time left and time spent."""

import io
import re

from rich.console import Console
from rich.progress import Progress

from eidola.cli.progress import _columns


def shown(total, steps):
    """Return the bar's last line after some steps of known length."""
    now = [0.0]
    file = io.StringIO()
    with Progress(
        *_columns(), console=Console(file=file, width=120), get_time=lambda: now[0], auto_refresh=False
    ) as bar:
        task = bar.add_task("drawing views", total=total)
        for done in range(steps):
            now[0] += 2.0
            bar.update(task, completed=done + 1)
        return " ".join(str(column(bar.tasks[0])) for column in bar.columns[3:])


def test_rate_and_time_left_are_there_where_the_total_is_known():
    assert re.search(r"0\.5/s left 00:12 spent", shown(10, 4))


def test_only_the_time_spent_is_there_where_nobody_knows_the_total():
    text = shown(None, 4)
    assert "left" not in text
    assert "/s" not in text
    assert "spent" in text

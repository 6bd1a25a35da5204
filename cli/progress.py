"""A progress bar on stderr for what takes longer than two seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import ProgressColumn, Task

PATIENCE_S = 2.0


@contextmanager
def working(what: str, *, enabled: bool = True) -> Iterator[None]:
    """Show that something of unknown length is under way, and for how long."""
    with progress(enabled=enabled) as show:
        show(what, 0, 0)
        yield


@contextmanager
def progress(*, enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what, done, total) that shows a bar after PATIENCE_S, and only on a terminal."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(*_columns(), console=Console(stderr=True), transient=True)
    task = bar.add_task("", total=None)
    patience = Timer(PATIENCE_S, bar.start)
    patience.daemon = True
    patience.start()
    try:
        yield lambda what, done, total: bar.update(
            task, description=what, completed=done, total=total or None
        )
    finally:
        patience.cancel()
        bar.stop()


def _columns() -> "tuple[ProgressColumn, ...]":
    """Return what a bar shows: the work, its rate, time left and time spent."""
    from rich import progress as shown
    from rich.text import Text

    class Rate(shown.ProgressColumn):
        """What was done a second, of late."""

        def render(self, task: "Task") -> Text:
            """Return the rate, where there is one."""
            if not (task.speed and task.total):
                return Text("")
            return Text(f"{task.speed:,.0f}/s" if task.speed >= 10 else f"{task.speed:.2g}/s")

    class Left(shown.TimeRemainingColumn):
        """The time left, where how much there is to do is known."""

        def render(self, task: "Task") -> Text:
            """Return it with its name."""
            return Text("left ").append(super().render(task)) if task.total else Text("")

    return (
        shown.TextColumn("{task.description}"),
        shown.BarColumn(),
        shown.TaskProgressColumn(),
        Rate(),
        Left(compact=True),
        shown.TextColumn("spent"),
        shown.TimeElapsedColumn(),
    )

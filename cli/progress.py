"""A progress bar on stderr for what takes longer than two seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_S = 2.0


@contextmanager
def progress(*, enabled: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function (what, done, total) that shows a bar after PATIENCE_S, and only on a terminal."""
    if not (enabled and sys.stderr.isatty()):
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    begin = time.monotonic()
    task = bar.add_task("", total=None)

    def show(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)
        if time.monotonic() - begin > PATIENCE_S and not bar.live.is_started:
            bar.start()

    try:
        yield show
    finally:
        bar.stop()

"""A progress bar on stderr for what takes longer than two seconds."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

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
    task = bar.add_task("", total=None)
    patience = Timer(PATIENCE_S, bar.start)
    patience.daemon = True
    patience.start()
    try:
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
    finally:
        patience.cancel()
        bar.stop()

"""Submit independent tasks to an executor until each has ended, through workers that die."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Protocol, TypeVar

from .errors import MissingError

ATTEMPTS = 3


class Identified(Protocol):
    """What a task is about; `id` tells it from the others."""

    @property
    def id(self) -> str:
        """Return what no other of the same run has."""


Point = TypeVar("Point", bound=Identified)
Task = Callable[[Point], None]
Ended = Callable[[Point, BaseException | None], None]


def run_points(
    points: Iterable[Point],
    task: Task[Point],
    open_executor: Callable[[], AbstractContextManager[Executor]],
    room: int,
    ended: Ended[Point],
) -> None:
    """Run `task` on each point, at most `room` at once, and call `ended` with each point and its error, or None.

    Where a worker dies (killed, or out of memory) the executor breaks, and nobody can tell which point did it: a
    new executor goes on, and the points that were running run again at the end, alone, each at most ATTEMPTS times.
    """
    waiting, deaths = deque(points), Counter[str]()
    while waiting:
        with open_executor() as executor:
            for point, error in _until_broken(executor, waiting, deaths, task, room, ended):
                deaths[point.id] += 1
                if deaths[point.id] < ATTEMPTS:
                    waiting.append(point)
                else:
                    ended(
                        point,
                        MissingError(f"its worker died {ATTEMPTS} times ({error}); is there enough memory?"),
                    )


def _until_broken(
    executor: Executor,
    waiting: deque[Point],
    deaths: Counter[str],
    task: Task[Point],
    room: int,
    ended: Ended[Point],
) -> list[tuple[Point, BaseException]]:
    """Work off `waiting`; return what was running when the executor broke, if it did."""
    running: dict[Future[None], Point] = {}
    lost: list[tuple[Point, BaseException]] = []
    done: SimpleQueue[Future[None]] = SimpleQueue()
    while running or (waiting and not lost):
        while waiting and not lost and len(running) < (1 if deaths[waiting[0].id] else room):
            future = _submit(executor, task, waiting[0])
            running[future] = waiting.popleft()
            future.add_done_callback(done.put)
        future = done.get()
        point, error = running.pop(future), _error(future)
        if isinstance(error, BrokenExecutor):
            lost.append((point, error))  # and so will be all that are running
        else:
            ended(point, error)
    return lost


def _submit(executor: Executor, task: Task[Point], point: Point) -> Future[None]:
    """Submit; an executor that broke while idle, or a cluster that went away, gives a future that says so."""
    try:
        return executor.submit(task, point)
    except (RuntimeError, OSError) as error:  # a broken pool raises RuntimeError, a lost cluster either
        broken: Future[None] = Future()
        broken.set_exception(error)
        return broken


def _error(future: Future[None]) -> BaseException | None:
    try:
        return future.exception()
    except CancelledError:
        return CancelledError("the cluster gave it up; run the command again")


def told(error: BaseException) -> str:
    """Return an error in one paragraph, with its kind."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

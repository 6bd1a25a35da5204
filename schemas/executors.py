"""Where independent tasks run: a pool of processes, or a Dask cluster; both are `concurrent.futures` executors."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager

from .errors import MissingError, UsageError

_CONNECT_S = 10


@contextmanager
def process_pool(jobs: int) -> Iterator[Executor]:
    """Yield a pool of `jobs` fresh processes; an exception ends them at once, whatever they are doing.

    Processes are spawned, not forked: a fork would copy the compiled engine's threads and locks.
    """
    others = set(multiprocessing.active_children())
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=spawn, initializer=_follow_parent)
    try:
        _start(pool)
        yield pool
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def dask_cluster(address: str) -> Iterator[Executor]:
    """Yield the executor of the Dask scheduler at `address`; an exception cancels what has not begun.

    Raises MissingError without Dask, UsageError where no scheduler answers.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise MissingError(
            f"--cluster needs Dask ({error}); install it with pip install 'eidola-sim[cluster]'"
        ) from error
    try:
        get_address_host_port(address, strict=True)  # a Client would try until its time is up
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--cluster {address}: no scheduler answers ({error}); start one with `dask scheduler`, and give the "
            "address that it prints, such as tcp://host:8786"
        ) from error
    with client:
        # Not pure: Dask would take a task that another run submitted, or that failed before, for this one.
        executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)


def _start(pool: ProcessPoolExecutor) -> None:
    """Start all processes deaf to Ctrl-C, which a terminal sends to them too: their parent decides."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        pool.submit(os.getpid)  # the first task spawns them, and they inherit the mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def _follow_parent() -> None:
    """End this worker when its parent is gone, however that ended: the pool's own queue would never tell it."""
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()

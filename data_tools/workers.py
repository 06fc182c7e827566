"""Pure functions on many tasks, in this process or in several: the results come in order."""

import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from data_tools import lean
from data_tools.record import ConvertError


def available() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Now:
    """What was submitted, done where its result is asked for."""

    def __init__(self, function: Callable, *arguments: Any):
        self._call = function, arguments

    def result(self) -> Any:
        function, arguments = self._call
        return function(*arguments)

    def cancel(self) -> None:
        """Nothing was begun."""


class Crew:
    """As many processes as asked for, started once there is a second task for them."""

    def __init__(self, count: int):
        self.ahead = 2 * count if count > 1 else 1  # tasks that may wait for their turn
        self._count, self._pool = count, None

    def submit(self, function: Callable, *arguments: Any):
        if self._count == 1:
            return Now(function, *arguments)
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, _start)
        return self._pool.submit(function, *arguments)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def crew(count: int) -> Iterator[Crew]:
    """Raises ConvertError (status 1) where a process was killed."""
    own = Crew(count)
    try:
        yield own
    except BrokenProcessPool:
        raise ConvertError(
            "a worker process was killed, for want of memory perhaps, or could not be "
            "started; try --workers 1",
            status=1,
        ) from None
    finally:
        own.close()


def alone_or(tasks: Iterable[Any], others: Crew) -> tuple[Iterator[Any], Crew]:
    """The same tasks, and who is to do them: this process where there is but one."""
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    return chain(first, tasks), others if len(first) > 1 else Crew(1)


def in_order(function: Callable, tasks: Iterable[Any], crew: Crew) -> Iterator[Any]:
    """What `function` makes of every task, a few of them under way at a time."""
    tasks, waiting = iter(tasks), deque()
    while True:
        waiting += (crew.submit(function, t) for t in islice(tasks, crew.ahead - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft().result()


def _start() -> None:
    lean.stay()
    gc.disable()  # nothing here is a ring, and looking for rings takes a tenth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command clears up, not its workers
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """End with the command, also where it was killed and could not say so."""
    multiprocessing.parent_process().join()
    os._exit(1)

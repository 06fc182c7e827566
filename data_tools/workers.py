"""Runs pure functions on many tasks, in this process or in several; results come in order."""

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
from functools import partial
from itertools import chain, islice
from typing import Any

from data_tools.record import ConvertError


def available() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Deferred:
    """A call that is made where its result is asked for."""

    def __init__(self, function: Callable, *arguments: Any):
        self.result = partial(function, *arguments)


class Workers:
    """`count` processes, started when there is a second task for them.

    `ahead` is how many tasks are worth submitting before the first result is taken.
    """

    def __init__(self, count: int):
        self.ahead = 2 * count if count > 1 else 1
        self._count, self._pool = count, None

    def submit(self, function: Callable, *arguments: Any):
        if self._count == 1:
            return Deferred(function, *arguments)
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count, context, _start)
        return self._pool.submit(function, *arguments)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


@contextmanager
def processes(count: int) -> Iterator[Workers]:
    """Raises ConvertError (status 1) where a process was killed."""
    workers = Workers(count)
    try:
        yield workers
    except BrokenProcessPool:
        raise ConvertError(
            "a worker process was killed, perhaps because memory ran out, or could not be started; "
            "try --workers 1",
            status=1,
        ) from None
    finally:
        workers.close()


def in_order(
    function: Callable, tasks: Iterable[Any], workers: Workers, *arguments: Any
) -> Iterator[Any]:
    """The result of `function(task, *arguments)` for every task, some of them ahead of time."""
    tasks, waiting = iter(tasks), deque()
    first = list(islice(tasks, 2))
    tasks = chain(first, tasks)
    workers = workers if len(first) > 1 else Workers(1)
    while True:
        more = islice(tasks, workers.ahead - len(waiting))
        waiting += (workers.submit(function, task, *arguments) for task in more)
        if not waiting:
            return
        yield waiting.popleft().result()


def _start() -> None:
    gc.disable()  # nothing here makes cycles, and looking for them takes a tenth of the time
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command cleans up, not its workers
    threading.Thread(target=_end_with_command, daemon=True).start()


def _end_with_command() -> None:
    """End this process when the command ends, even where that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)

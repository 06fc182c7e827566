"""Runs pure functions on many tasks: in this process, in several or on a Dask cluster.

On a cluster every task writes files under names of its own and may run again anywhere, so a worker
that is lost costs only time. Its workers need this package, the same working directory and files.
"""

import contextlib
import gc
import io
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

from tqdm import tqdm

from data_tools.record import ConvertError

_MAIN_LOCK = threading.Lock()  # of two conversions in threads, each would hide its own

# Of a cluster.
_TIMEOUT = 10.0  # seconds until the scheduler answers
_INTERVAL = 2.0  # seconds between two looks at whether there are workers
_PATIENCE = 30  # looks without any worker before giving up
_RETRIES = 3  # of a task that failed, since a mount may fail on one worker alone
_LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")


def available() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    function: Callable, tasks: Iterable[Any], workers: "Workers", *arguments: Any
) -> Iterator[Any]:
    """The result of `function(task, *arguments)` for every task, some of them ahead of time.

    A single task runs in this process, and so does every one where none is worth submitting.
    """
    tasks, waiting = iter(tasks), deque()
    first = [*islice(tasks, 2)]
    tasks = chain(first, tasks)
    if len(first) < 2 or not workers.ahead:
        yield from (function(task, *arguments) for task in tasks)
        return
    while True:
        more = islice(tasks, workers.ahead - len(waiting))
        waiting += (workers.submit(function, task, *arguments) for task in more)
        if not waiting:
            return
        yield workers.result(waiting.popleft())


class Processes:
    """`count` processes, which start with the first task and end on leaving the context.

    `ahead` is how many tasks are worth submitting before the first result is taken. Raises
    ConvertError (status 1) where a process was killed.
    """

    def __init__(self, count: int):
        self.ahead = 2 * count if count > 1 else 0
        self._count, self._pool, self._lifeline = count, None, None

    def __enter__(self) -> "Processes":
        return self

    def submit(self, function: Callable, *arguments: Any) -> Future:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            try:
                reader, self._lifeline = context.Pipe(duplex=False)
                self._pool = ProcessPoolExecutor(self._count, context, _start, (reader,))
            except OSError as error:  # no semaphores without /dev/shm, or too many open files
                raise ConvertError(
                    f"no process can be started ({error.strerror or error}); use --workers 1",
                    status=1,
                ) from None
        with _without_main():  # a process starts here, while there are fewer than `count`
            return self._pool.submit(_call, function, *arguments)

    def result(self, future: Future) -> Any:
        return future.result()

    def __exit__(self, _: type | None, error: BaseException | None, *__: object) -> None:
        is_broken = isinstance(error, BrokenProcessPool)
        if self._pool is not None:
            if is_broken:  # it forgets the process that it is just starting, and waits for it
                self._lifeline.close()
            self._pool.shutdown(cancel_futures=True)
            self._lifeline.close()
        if is_broken:
            raise ConvertError(
                "a worker process was killed, perhaps because memory ran out, or could not be "
                "started; try --workers 1",
                status=1,
            ) from None


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the user's program, which a process would run again where it has no __main__ guard."""
    with _MAIN_LOCK:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


def _start(lifeline: Connection) -> None:
    gc.disable()  # looking for cycles takes a tenth of the time; see `_call`
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command cleans up, not its workers

    def end_with_command() -> None:
        lifeline.poll(None)  # until the command closes its end or ends, even where killed
        os._exit(1)

    threading.Thread(target=end_with_command, daemon=True).start()


def _call(function: Callable, *arguments: Any) -> Any:
    """What the function returns; then its cycles are freed.

    An exception is part of one where a frame that it passed holds it, such as a list of faults.
    """
    try:
        return function(*arguments)
    finally:
        gc.collect()
        gc.freeze()  # what is left, such as modules, is not looked at again


class Cluster:
    """The workers of a scheduler, used as `Processes` are."""

    def __init__(self, client: Any):
        self._client = client
        self.ahead = 2 * sum(client.nthreads().values())

    def submit(self, function: Callable, *arguments: Any) -> Any:
        try:
            # The result depends on the content of files, which the arguments only name.
            return self._client.submit(function, *arguments, pure=False, retries=_RETRIES)
        except (OSError, RuntimeError) as error:
            raise _lost(f"the scheduler is gone ({type(error).__name__})") from None

    def result(self, future: Any) -> Any:
        """What the call returns or raises. Raises ConvertError (status 1) without workers."""
        without_workers = 0
        while without_workers <= _PATIENCE:
            try:
                return future.result(timeout=_INTERVAL)
            except Exception as error:
                if future.status == "error":
                    raise _cause(future.exception()) from None
                if not isinstance(error, TimeoutError):
                    raise _lost(f"the scheduler is gone ({type(error).__name__})") from None
            without_workers = 0 if self._has_workers() else without_workers + 1
        raise _lost("no worker is left; each needs this package and its requirements")

    def _has_workers(self) -> bool:
        with contextlib.suppress(Exception):  # of a scheduler that is gone, which `result` reports
            return bool(self._client.nthreads())
        return False


def _cause(error: Exception) -> Exception:
    """Why a task failed: its own error, unless it is the cluster's."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return _lost("a task ended one worker after the other, perhaps because memory ran out")
    if isinstance(error, RuntimeError) and "deserialization" in str(error):
        return _lost("a worker lacks this package, or has another version of it or of Python")
    return error


def _lost(what: str) -> ConvertError:
    return ConvertError(f"--scheduler: {what}; start it again, or remove the option", status=1)


Workers = Processes | Cluster


@contextlib.contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """The workers of the scheduler at `address`.

    Raises ConvertError: status 2 where Dask is not installed or no scheduler answers, 1 where it
    has no workers, or loses them all.
    """
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ConvertError("--scheduler: Dask is not installed; pip install distributed") from None
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise ConvertError(f"--scheduler {address}: no scheduler answers there ({why})") from None
    try:
        own = Cluster(client)
        if not own.ahead:
            raise ConvertError(
                f"--scheduler {address}: it has no workers; start some with "
                f"`dask worker {address}` in {os.getcwd()}",
                status=1,
            )
        # A list of many --exclude-rows is a large argument, and is meant to be.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
            yield own
    finally:
        with contextlib.suppress(Exception):  # of a scheduler that is gone
            client.close(timeout=2)


def progress(what: str, size: int) -> tqdm:
    """A bar over `size` bytes; it is closed on leaving its context."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    return tqdm(
        desc=what,
        total=size,
        unit="B",
        unit_scale=True,
        delay=1,
        mininterval=0.1 if is_terminal else 10,
        leave=False,
        file=_Stderr(),
        disable=sys.stderr is None,
    )


class _Stderr(io.StringIO):
    """Standard error; one that cannot be written is no reason to stop. A log has bars as lines."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):
            if not sys.stderr.isatty():
                text = text.strip("\r\n ")
                text = f"convert: {text}\n" if text else ""
            sys.stderr.write(text)
            sys.stderr.flush()
        return len(text)

"""Both passes on a Dask cluster, in place of the processes of one machine.

Every task writes files under names of its own and may run again anywhere, so a worker that is lost
costs only time. Workers need this package, the same working directory and the same files.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from data_tools.record import ConvertError

_TIMEOUT = 10.0  # seconds until the scheduler answers
_INTERVAL = 2.0  # seconds between two looks at whether there are workers
_PATIENCE = 30  # looks without any worker before giving up
_RETRIES = 3  # of a task that failed, since a mount may fail on one worker alone
_LOGGERS = ("distributed", "distributed.client", "tornado.application", "asyncio")


class Cluster:
    """What `workers.Workers` is for one machine."""

    def __init__(self, client: Any):
        self._client = client
        self.ahead = 2 * sum(client.nthreads().values())

    def submit(self, function: Callable, *arguments: Any) -> "Task":
        try:
            # The result depends on the content of files, which the arguments only name.
            future = self._client.submit(function, *arguments, pure=False, retries=_RETRIES)
        except (OSError, RuntimeError) as error:
            raise _lost(f"the scheduler is gone ({type(error).__name__})") from None
        return Task(self._client, future)


class Task:
    """A call on the cluster."""

    def __init__(self, client: Any, future: Any):
        self._client, self._future = client, future

    def result(self) -> Any:
        """What the call returns or raises. Raises ConvertError (status 1) without workers."""
        without_workers = 0
        while without_workers <= _PATIENCE:
            try:
                return self._future.result(timeout=_INTERVAL)
            except Exception as error:
                if self._future.status == "error":
                    raise _cause(self._future.exception()) from None
                if not isinstance(error, TimeoutError):
                    raise _lost(f"the scheduler is gone ({type(error).__name__})") from None
            without_workers = 0 if self._has_workers() else without_workers + 1
        raise _lost("no worker is left; each needs this package and its requirements")

    def _has_workers(self) -> bool:
        with suppress(Exception):  # of a scheduler that is gone, which `result` reports
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


@contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """The workers of the scheduler at `address`.

    Raises ConvertError: status 2 where Dask is not installed or no scheduler answers, 1 where it
    has no workers, or loses them all.
    """
    try:
        import dask
        from distributed import Client
    except ImportError:
        raise ConvertError(
            "--scheduler: Dask is not installed; pip install -r requirements-dask.txt"
        ) from None
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
        with suppress(Exception):  # of a scheduler that is gone
            client.close(timeout=2)

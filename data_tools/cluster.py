"""Both passes on a Dask cluster, which stands in for the processes of one machine.

Every task writes files of its own, each whole before it has its name, and may be run again
anywhere; so a worker that is lost costs the time of its tasks and nothing else. Workers need this
package, the same working directory and the same files as the command.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any
from uuid import uuid4

from data_tools.record import ConvertError

_PATIENCE = 10.0  # seconds until the scheduler answers
_LOOK = 2.0  # seconds between two looks at whether there are workers left
_ALONE = 30  # looks without any worker after which there is nobody to wait for
_RETRIES = 3  # of a task that failed, since a mount may fail on one worker alone
_LOUD = ("distributed", "distributed.client", "tornado.application", "asyncio")

Seen = tuple[tuple[str, int, int], ...]  # of each input: its name, bytes and second of change


class Cluster:
    """What `workers.Crew` is for one machine."""

    def __init__(self, client: Any, files: Sequence[str]):
        self._client = client
        self._token, self._seen = uuid4().hex, _seen(files)
        self.ahead = 2 * sum(client.nthreads().values())  # tasks that may wait for their turn

    def submit(self, function: Callable, *arguments: Any) -> "Task":
        # Keys are not told from arguments: these hold the files' names, not what is in them.
        words = (self._token, self._seen, function, *arguments)
        try:
            future = self._client.submit(_run, *words, pure=False, retries=_RETRIES)
        except (OSError, RuntimeError) as error:
            raise _gone(error) from None
        return Task(self._client, future)

    def close(self) -> None:
        """Whatever is under way is cancelled."""
        with suppress(Exception):  # of a scheduler that is gone
            self._client.close(timeout=2)


class Task:
    """One call under way."""

    def __init__(self, client: Any, future: Any):
        self._client, self._future = client, future

    def result(self) -> Any:
        alone = 0
        while True:
            try:
                return self._future.result(timeout=_LOOK)
            except Exception as error:
                if self._future.status == "error":
                    raise _told(self._future.exception()) from None
                if not isinstance(error, TimeoutError):
                    raise _gone(error) from None
            alone = 0 if self._manned() else alone + 1
            if alone > _ALONE:
                raise _lost("no worker is left; each needs this package and its requirements")

    def _manned(self) -> bool:
        with suppress(Exception):  # of a scheduler that is gone, which the next look tells
            return bool(self._client.nthreads())
        return False

    def cancel(self) -> None:
        with suppress(Exception):  # of a scheduler that is gone
            self._future.cancel()


def _run(token: str, seen: Seen, function: Callable, *arguments: Any) -> Any:
    """What a worker does."""
    _check(token, seen)
    return function(*arguments)


@lru_cache(1)
def _check(token: str, seen: Seen) -> None:
    """Raise ConvertError where this machine has another file of that name; once in a conversion.

    One that is not there is left to whoever opens it: not all are read by the workers.
    """
    for here, there in zip(seen, _seen([name for name, *_ in seen]), strict=True):
        if there[1] >= 0 and here != there:
            raise ConvertError(
                f"{here[0]}: a worker has another file of that name in {os.getcwd()}; start the "
                "workers where they see the files of the command"
            )


def _seen(files: Sequence[str]) -> Seen:
    found = []
    for name in files:
        try:
            state = os.stat(name)
        except OSError:  # standard input too
            found.append((name, -1, -1))
        else:
            found.append((name, state.st_size, int(state.st_mtime)))
    return tuple(found)


def _told(error: Exception) -> Exception:
    """Why a task failed: its own error, unless it is the cluster's."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return _lost("a task cost one worker after the other, for want of memory perhaps")
    if isinstance(error, RuntimeError) and "deserialization" in str(error):
        return _lost("it lacks this package, or has other versions of it or of Python")
    return error


def _gone(error: Exception) -> ConvertError:
    return _lost(f"the scheduler is gone ({type(error).__name__})")


def _lost(what: str) -> ConvertError:
    return ConvertError(f"--scheduler: {what}; start it again, or leave the option out", status=1)


@contextmanager
def cluster(address: str, files: Sequence[str]) -> Iterator[Cluster]:
    """The workers of the scheduler at `address`, which must see `files` as this machine does.

    Raises ConvertError: status 2 where Dask is not installed or no scheduler answers, 1 where it
    has no workers, or loses them all.
    """
    try:
        import dask
        import distributed
    except ImportError:
        raise ConvertError(
            "--scheduler: Dask is not installed; pip install -r requirements-dask.txt"
        ) from None
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        asyncio.run(_reach(address))  # a client that cannot connect takes long to be rid of
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConvertError(f"--scheduler {address}: no scheduler answers there ({said})") from None
    own = Cluster(client, files)
    quiet = {"distributed.admin.large-graph-warning-threshold": "1TB"}  # many --exclude-rows
    try:
        if not own.ahead:
            raise ConvertError(
                f"--scheduler {address}: it has no workers; start some with "
                f"`dask worker {address}` in {os.getcwd()}",
                status=1,
            )
        with dask.config.set(quiet):
            yield own
    finally:
        own.close()


async def _reach(address: str) -> None:
    from distributed import Security
    from distributed.comm import connect

    secrets = Security().get_connection_args("client")
    comm = await connect(address, timeout=_PATIENCE, **secrets)
    await comm.close()

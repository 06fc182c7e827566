"""Both passes on a Dask cluster, which stands in for the processes of one machine.

Every task writes files of its own, each whole before it has its name, and may be run again
anywhere; so a worker that is lost costs the time of its tasks and nothing else. Workers need this
package, the same working directory and the same files as the command.
"""

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from data_tools.record import ConvertError

_PATIENCE = "10s"  # until the scheduler answers
_LOOK = 2.0  # seconds between two looks at whether there are workers left
_ALONE = 30  # looks without any worker after which there is nobody to wait for


class Cluster:
    """What `workers.Crew` is for one machine."""

    def __init__(self, client: Any):
        self._client = client
        self.ahead = 2 * max(1, sum(client.nthreads().values()))

    def submit(self, function: Callable, *arguments: Any) -> "Task":
        # Keys are not told from arguments: these hold the files' names, not what is in them.
        future = self._client.submit(function, *arguments, pure=False)
        return Task(self._client, future)


class Task:
    """One call under way."""

    def __init__(self, client: Any, future: Any):
        self._client, self._future = client, future

    def result(self) -> Any:
        from distributed import KilledWorker, TimeoutError
        from distributed.client import FutureCancelledError

        alone = 0
        while True:
            try:
                return self._future.result(timeout=_LOOK)
            except TimeoutError:
                alone = 0 if self._client.nthreads() else alone + 1
                if alone > _ALONE:
                    raise _lost("all workers of the scheduler are gone") from None
            except KilledWorker:
                raise _lost("one task after the other cost its worker") from None
            except (FutureCancelledError, OSError) as error:
                raise _lost(f"the scheduler is gone ({type(error).__name__})") from None

    def cancel(self) -> None:
        with suppress(Exception):  # of a scheduler that is gone
            self._future.cancel()


def _lost(what: str) -> ConvertError:
    return ConvertError(f"--scheduler: {what}; start it again, or leave the option out", status=1)


@contextmanager
def cluster(address: str) -> Iterator[Cluster]:
    """The workers of the scheduler at `address`.

    Raises ConvertError: status 2 where Dask is not installed or no scheduler answers, 1 where it
    has no workers, or loses them all.
    """
    try:
        import distributed
    except ImportError:
        raise ConvertError(
            "--scheduler: Dask is not installed; pip install -r requirements-dask.txt"
        ) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ConvertError(f"--scheduler {address}: no scheduler answers there ({said})") from None
    try:
        if not client.nthreads():
            raise ConvertError(
                f"--scheduler {address}: it has no workers; start some with "
                f"`dask worker {address}` in {os.getcwd()}",
                status=1,
            )
        yield Cluster(client)
    finally:
        with suppress(Exception):  # of a scheduler that is gone
            client.close(timeout=2)

"""SIGTERM and Ctrl-C: they end the command, or training after the current step."""

import os
import signal
import sys
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_with(status: int) -> NoReturn:
    """End the process with this status, also after a KeyboardInterrupt that was caught.

    CPython exits with 130 if a KeyboardInterrupt passed through exec, which dataclasses use while
    modules are imported.
    """
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


class Stop:
    """Turns a signal into KeyboardInterrupt, or only records it once `defer` is set.

    A second signal goes to the previous handler, which ends the process at once. Under a launcher
    it is ignored: there Ctrl-C arrives twice, from the terminal and from the launcher, and the
    launcher ends processes that take too long.
    """

    def __init__(self):
        self.defer = False
        self.caught: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        """The signal for which all processes of the run stop after the same step."""
        self._previous: dict[int, Any] = {}

    def __enter__(self):
        try:
            self._previous = {number: signal.signal(number, self._record) for number in SIGNALS}
        except ValueError:
            self._previous = {}  # not in the main thread, where signals are handled
        return self

    def __exit__(self, *exception):
        self._restore()

    def _record(self, number: int, frame: Any) -> None:
        if self.caught:
            return
        self.caught = signal.Signals(number)
        if "LOCAL_RANK" not in os.environ:
            self._restore()
        if not self.defer:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

"""SIGTERM and Ctrl-C: before training they end the command, in training the step is finished."""

import os
import signal
import sys
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def exit_with(status: int) -> NoReturn:
    """End the process with this status, whatever was caught on the way.

    CPython ends with 130 where a KeyboardInterrupt has passed through exec, as dataclasses use it
    while modules are imported, though it was caught.
    """
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


class Stop:
    """While entered, turns a signal into KeyboardInterrupt, or once `defer` is set into a note.

    A second signal is left to what handled it before, so that nobody has to wait for a step. Below
    a launcher it is ignored: there Ctrl-C comes from the terminal and once more from the launcher,
    which itself ends those that take too long.
    """

    def __init__(self):
        self.defer = False
        self.caught: signal.Signals | None = None
        self.agreed: signal.Signals | None = None
        """What all processes of the run stop for, after the same step."""
        self._before: dict[int, Any] = {}

    def __enter__(self):
        try:
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        except ValueError:
            self._before = {}  # in a thread: whoever started it handles signals
        return self

    def __exit__(self, *exception):
        self._restore()

    def _note(self, number: int, frame: Any) -> None:
        if self.caught:
            return
        self.caught = signal.Signals(number)
        if "LOCAL_RANK" not in os.environ:
            self._restore()
        if not self.defer:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

"""Runs the command in a process of its own and interferes before one of its file operations.

Python reports its file operations to audit hooks, so that nothing of the command is replaced.
"""

import os
import sys
from collections.abc import Callable, Sequence

from data_tools.convert import main

_OPERATIONS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.listdir"),
    *("os.scandir", "shutil.rmtree", "fcntl.flock"),
}


def run_to_step(argv: Sequence[str], number: int, act: Callable[[], None]) -> tuple[int, str]:
    """The exit status and stderr of `main(argv)`; `act` runs before its operation `number`.

    Counted are operations on the output directory, its parts and its rejects, from 0. The status
    is negative where a signal ended the process.
    """
    target = os.path.abspath(argv[argv.index("-o") + 1])
    child = os.fork()
    if not child:
        try:
            _run(argv, target, number, act)
        finally:
            os._exit(70)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with open("../stderr", encoding="utf-8") as file:
        return status, file.read()


def _run(argv: Sequence[str], target: str, number: int, act: Callable[[], None]) -> None:
    seen = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal seen
        if event not in _OPERATIONS or not isinstance(arguments[0], str):
            return
        if os.path.abspath(arguments[0]).startswith(target):
            seen += 1
            if seen == number + 1:
                act()

    with open("../stderr", "w", encoding="utf-8") as log:
        sys.stdout, sys.stderr = open(os.devnull, "w"), log  # noqa: SIM115 - until the end
        sys.addaudithook(watch)
        status = main(argv)
    os._exit(status)

"""A progress bar on a terminal after a second, a line every ten seconds elsewhere."""

import contextlib
import io
import sys

from tqdm import tqdm


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
        file=_Stderr(is_terminal),
        dynamic_ncols=is_terminal,
        disable=sys.stderr is None,
    )


class _Stderr(io.StringIO):
    """Standard error; one that cannot be written is no reason to stop. A log has bars as lines."""

    def __init__(self, is_terminal: bool):
        super().__init__()
        self._is_terminal = is_terminal

    def write(self, text: str) -> int:
        if not self._is_terminal:
            text = text.strip("\r\n ")
            text = f"convert: {text}\n" if text else ""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
            sys.stderr.flush()
        return len(text)

    def fileno(self) -> int:
        return sys.stderr.fileno()

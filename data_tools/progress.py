"""How far a long run is: a bar where a terminal watches, a line every ten seconds elsewhere.

What cannot be shown is not shown: nothing here makes a run fail or alters what comes of it.
"""

import contextlib
import io
import sys
import time

_PATIENCE = 1  # seconds without a bar, so that a short run has none
_EVERY = 10  # seconds from line to line
_UNITS = ("B", "kB", "MB", "GB", "TB")


class Progress:
    """One phase of a run, of which `total` bytes are to be done."""

    def __init__(self, description: str, total: int):
        self._description, self._total, self._done = description, total, 0
        self._began = self._last = time.monotonic()
        self._stream, self._bar = _stderr(), None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception):
            if self._bar is not None:
                self._bar.close()

    def update(self, count: int) -> None:
        """So many bytes more are done."""
        self._done += count
        try:
            if self._bar is not None:
                self._bar.update(count)
            elif self._stream is not None:
                self._show(time.monotonic())
        except Exception:  # the terminal is gone, the disk is full, tqdm cannot be loaded
            self._stream = None

    def _show(self, now: float) -> None:
        if not sys.stderr.isatty():
            if now - self._last >= _EVERY:
                self._last = now
                self._stream.write(f"convert: {self._line(now - self._began)}\n")
        elif now - self._began >= _PATIENCE:
            from tqdm import tqdm  # takes as long to load as a small file to convert

            self._bar = tqdm(
                desc=self._description,
                total=max(self._total, self._done),
                initial=self._done,
                file=self._stream,
                unit="B",
                unit_scale=True,
                dynamic_ncols=True,
                leave=False,
            )

    def _line(self, seconds: float) -> str:
        total, rate = max(self._total, self._done), self._done / seconds
        unit = _unit(total)
        line = f"{self._description}, {_short(self._done / unit[0])} of {_size(total)}"
        if self._done:
            line += f", {_size(rate)}/s, {_duration((total - self._done) / rate)} left"
        return line


def _stderr() -> io.TextIOWrapper | None:
    """Standard error without a buffer: what stayed in one unwritten would spoil the exit status."""
    try:
        raw = io.FileIO(sys.stderr.fileno(), "w", closefd=False)
        return io.TextIOWrapper(raw, sys.stderr.encoding, "replace", write_through=True)
    except Exception:  # there is none, it is closed, or it is no file
        return None


def _unit(count: float) -> tuple[int, str]:
    power = 0
    while count >= 999.5 * 1000**power and power + 1 < len(_UNITS):
        power += 1
    return 1000**power, _UNITS[power]


def _size(count: float) -> str:
    factor, name = _unit(count)
    return f"{_short(count / factor)} {name}"


def _short(number: float) -> str:
    return f"{number:.1f}" if number < 9.95 else f"{number:.0f}"


def _duration(seconds: float) -> str:
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"

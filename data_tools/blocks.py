"""The inputs as blocks of records, each read by whoever checks it or handed over as read.

Large UTF-8 files of lines are cut into stretches. What can only be read from its start goes
through one reader, whose records travel to the checkers.
"""

import os
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

from data_tools import first_pass, readers
from data_tools.readers import Stretch, Stretches
from data_tools.record import ConvertError, Raw, Reject
from data_tools.workers import Crew, alone_or

_RECORDS = 2000  # of a block that was read already
_BYTES = 8_000_000  # of the same, pickled
_PIECE = 50  # records that are pickled together


class Inputs:
    """The files to read, and what their readers had to find out for themselves."""

    def __init__(
        self,
        files: Sequence[str],
        encoding: str | None = None,
        sheet: str | None = None,
        stdin: BinaryIO | None = None,
    ):
        self.files = files
        self.notes: dict[str, list[str]] = {path: [] for path in files}
        self._encoding, self._sheet, self._stdin = encoding, sheet, stdin
        self._states = {path: _state(path) for path in files}

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(self._size, self.files))

    def _size(self, path: str) -> int:
        if path == readers.STDIN:
            return self._stdin.seek(0, os.SEEK_END)  # where it begins is looked up at each reading
        state = self._states[path]
        return 0 if state is None else state[0]

    def read(self, path: str, meter: readers.Meter | None = None) -> Iterator[Raw | Reject]:
        """Every record of one file; its notes are those of this reading."""
        self.notes[path] = notes = []
        return readers.read(path, self._encoding, notes, self._stdin, self._sheet, meter)

    def sources(self, counted: bool) -> Iterator[first_pass.Source]:
        """All blocks in order; `counted` asks for the line on which each begins."""
        for path in self.files:
            stretches = None
            if path != readers.STDIN and readers.is_plain(path):
                stretches = Stretches.of(path, readers.syntax_of(path), self._encoding, counted)
            yield from self._read(path) if stretches is None else stretches

    def _read(self, path: str) -> Iterator[first_pass.Records]:
        pieces, records, size, piece = [], 0, 0, []
        end, at, meter = self._size(path), 0, readers.Meter()
        for item in self.read(path, meter):
            piece.append(item)
            if len(piece) == _PIECE:
                pieces.append(pickle.dumps(piece, protocol=5))
                records, size, piece = records + len(piece), size + len(pieces[-1]), []
                if records >= _RECORDS or size >= _BYTES:
                    before, at = at, min(meter.tell(), end)
                    yield first_pass.Records(path, tuple(pieces), at - before)
                    pieces, records, size = [], 0, 0
        if piece:
            pieces.append(pickle.dumps(piece, protocol=5))
        if pieces:
            yield first_pass.Records(path, tuple(pieces), end - at)

    def check_unchanged(self) -> None:
        """Raise ConvertError where a file is not what it was when it was first looked at."""
        for path, before in self._states.items():
            if _state(path) != before:
                raise ConvertError(
                    f"{path}: changed while it was read; convert it again once it is complete", 1
                )


def _state(path: str) -> tuple[int, int] | None:
    if path == readers.STDIN:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def in_order(
    sources: Iterator[first_pass.Source],
    crew: Crew,
    function: Callable[..., first_pass.Told],
    *arguments: Any,
) -> Iterator[first_pass.Told]:
    """What `function` says of every block, in order.

    A stretch whose first record turns out to begin further on is asked for again.
    """
    sources, crew = alone_or(sources, crew)
    waiting, ends, lines = deque(), {}, {}
    while True:
        while len(waiting) < crew.ahead and (source := next(sources, None)) is not None:
            waiting.append((source, crew.submit(function, source, *arguments)))
        if not waiting:
            return
        source, future = waiting.popleft()
        before = source.before
        if isinstance(source, Stretch) and (start := ends.get(source.file, 0)) > source.start:
            future.cancel()
            if start >= source.stop:
                continue
            before = None if before is None else lines[source.file]
            source = replace(source, start=start, before=before)
            future = crew.submit(function, source, *arguments)
        told = future.result()
        ends[source.file] = told.stop
        before = lines.get(source.file, 0) if before is None else before
        lines[source.file] = before + told.lines
        yield told

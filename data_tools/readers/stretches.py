"""Large text files cut at the ends of records, so that several readers can read one file.

A cut is a guess: a newline after which the next rows look like rows. Each reader goes on until
its last row ends and says where that was, so that a guess which was wrong is seen, and only costs
the time to read on from the right place.
"""

import contextlib
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import BinaryIO

from data_tools.readers import delimited, json_lines
from data_tools.readers.opening import open_binary
from data_tools.readers.text import open_text, utf8_start
from data_tools.record import ConvertError, Raw, Reject

SIZE = 4_000_000  # bytes of a stretch
_WINDOW = 1 << 16  # bytes that are looked at for a cut, doubled until one is found
_ALIKE = 3  # rows after a cut that must look like rows
_FARTHEST = 64_000_000  # bytes after which any newline will do, since what is read tells the truth


@dataclass(frozen=True)
class Stretch:
    """Some bytes of a UTF-8 file that begin where a record does.

    `before` is how many lines stand before it, None where that is not known and the first line is
    called 1.
    """

    file: str
    start: int
    stop: int
    head: delimited.Head | None = None  # None for JSON Lines
    before: int | None = None

    @property
    def size(self) -> int:
        return self.stop - self.start

    def open(self) -> "Reading":
        return Reading(self)

    def read(self) -> bytes:
        with _opened(self.file) as file:
            file.seek(self.start)
            return file.read(self.size)

    def source(self, lines: Mapping[int, int]) -> dict[int, object]:
        """The records that start on these lines, as they are read.

        Each line stands with how many bytes of the file are before it, 0 where that is not known.
        Raises ConvertError where a record is not there any more.
        """
        found, starts = {}, []
        if not all(lines.values()):
            starts = [*map(self.start.__add__, line_starts(self.read()))]
        with _opened(self.file) as file:
            for line, start in lines.items():
                if not start:
                    number = line - (self.before or 0) - 1
                    start = starts[number] if number < len(starts) else self.stop
                file.seek(start)
                with open_text(file, "utf-8", bom=False) as text:
                    item = next(iter(self._records(text)), None) if start < self.stop else None
                if isinstance(item, Raw):
                    found[line] = item.value
        if len(found) < len(lines):
            raise ConvertError(f"{self.file}: changed while it was read; convert it again", 1)
        return found

    def _records(self, text: Iterator[str]) -> Iterable[Raw | Reject]:
        if self.head is None:
            return json_lines.records(text, self.file)
        return delimited.Rows(delimited.Lines(text), self.head, self.file)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    with _refusing(path), open(path, "rb") as file:
        yield file


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror or error})") from None


class Reading:
    """The records of a stretch; once all are read, how many lines they took and where they end."""

    def __init__(self, stretch: Stretch):
        self._stretch = stretch
        self.lines, self.stop = 0, stretch.stop

    def __iter__(self) -> Iterator[Raw | Reject]:
        stretch = self._stretch
        with _opened(stretch.file) as file:
            file.seek(stretch.start)
            data = file.read(stretch.size)
            self.lines = count_lines(data)
            if stretch.head is None:
                with open_text(io.BytesIO(data), "utf-8", bom=False) as text:
                    yield from json_lines.records(text, stretch.file, stretch.before or 0)
                return
            file.seek(stretch.start)
            with open_text(file, "utf-8", bom=False) as text:
                lines = delimited.Lines(text)
                until, before = self.lines, stretch.before or 0
                yield from delimited.Rows(lines, stretch.head, stretch.file, until, before)
            if lines.number > self.lines:  # the last row went on beyond the stretch
                self.lines = lines.number
                self.stop = stretch.start + _end_of_line(file, stretch.start, self.lines)


class Ahead:
    """Rows of a stretch read from somewhere within it, beyond its end where the last goes on."""

    def __init__(self, stretch: Stretch):
        self._stretch = stretch
        self._stack = contextlib.ExitStack()
        self._file = self._lines = None

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def rows(self, at: int, before: int, until: int) -> Iterator[tuple[int, Raw | Reject, int]]:
        """The rows that begin before line `until`, from the offset `at`, where line `before` does.

        Each with the line on which it begins and that on which the next may; all count from 0 at
        the stretch's start.
        """
        stretch = self._stretch
        self._file = self._file or self._stack.enter_context(_opened(stretch.file))
        self._file.seek(stretch.start + at)
        known = stretch.before or 0
        with open_text(self._file, "utf-8", bom=False) as text:
            self._lines = delimited.Lines(text)
            for item in delimited.Rows(
                self._lines, stretch.head, stretch.file, until - before, known + before
            ):
                yield item.place.line - known - 1, item, before + self._lines.number

    @property
    def hopeless(self) -> bool:
        """Whether a row that begins here is known to break, so that reading on costs least."""
        return self._lines.number < self._lines.hopeless_to

    def end_of_line(self, number: int) -> int:
        """The offset in the file at which this line of the stretch ends, counted from 1."""
        return self._stretch.start + _end_of_line(self._file, self._stretch.start, number)


class Stretches:
    """A file that can be cut: its stretches one after the other."""

    def __init__(
        self, path: str, start: int, head: delimited.Head | None, before: int, counted: bool
    ):
        self.path, self._head, self._before, self._counted = path, head, before, counted
        self._start, self.end = start, os.path.getsize(path)
        self._row = None if head is None else _row_pattern(head)

    @classmethod
    def of(
        cls, path: str, syntax: str, encoding: str | None, counted: bool = False
    ) -> "Stretches | None":
        """The stretches of a file; None where it can only be read from its start.

        `counted` asks for the line on which each begins, not the first alone; it takes time.
        """
        heads = {".csv": delimited.csv_head, ".tsv": delimited.tsv_head}
        if syntax not in (*heads, ".jsonl", ".ndjson"):
            return None
        with _refusing(path), open_binary(path, None) as file:
            start = utf8_start(file, encoding)
            if start is None:
                return None
            if syntax not in heads:
                return cls(path, start, None, 0, counted)
            with open_text(file, encoding) as text:
                lines, head = heads[syntax](text, path, [])
            if not head.names:
                return None
            start += _end_of_line(file, start, lines.number)
            return cls(path, start, head, lines.number, counted)

    def __iter__(self) -> Iterator[Stretch]:
        with _opened(self.path) as file:
            while self._start < self.end:
                stop = self._cut(file, self._start + SIZE)
                yield Stretch(self.path, self._start, stop, self._head, self._before)
                if self._counted:
                    file.seek(self._start)
                    self._before += count_lines(file.read(stop - self._start))
                else:
                    self._before = None
                self._start = stop

    def _cut(self, file, at: int) -> int:
        """Where a record seems to start, not before `at`."""
        window = _WINDOW
        while at < self.end:
            file.seek(at - 1)
            data = file.read(window + 1)
            last = at - 1 + len(data) >= self.end
            for start in _after_newlines(data):
                if self._head is None or self._looks_like_rows(data, start, last):
                    return at - 1 + start
            if last:
                break
            if window > _FARTHEST and b"\n" in data:
                return at + data.index(b"\n")
            window *= 2
        return self.end

    def _looks_like_rows(self, data: bytes, start: int, last: bool) -> bool:
        """Whether the next rows are as RFC 4180 has them, with a cell for each column."""
        for _ in range(_ALIKE):
            if last and start >= len(data):
                break
            found = self._row.match(data, start)
            if found is None:
                return False
            start = found.end()
        return True


def _row_pattern(head: delimited.Head) -> re.Pattern:
    delimiter = re.escape(head.delimiter.encode())
    cell = rb'(?:"(?:[^"]++|"")*+"|[^"\r\n%s]*+)' % delimiter
    return re.compile(rb"%s(?:%s%s){%d}(?:\r?\n|\Z)" % (cell, delimiter, cell, len(head.names) - 1))


def _after_newlines(data: bytes) -> Iterator[int]:
    at = data.find(b"\n")
    while at >= 0:
        yield at + 1
        at = data.find(b"\n", at + 1)


def count_lines(data: bytes) -> int:
    """Lines as text files have them: each ends with CR, LF or both, the last perhaps with none."""
    count = data.count(b"\n")
    if b"\r" in data:  # which is found out much faster than counted
        count += data.count(b"\r") - data.count(b"\r\n")
    return count + (bool(data) and not data.endswith((b"\n", b"\r")))


def line_starts(data: bytes) -> list[int]:
    """Where every line of `data` begins, the empty one after a last line end too."""
    if b"\r" not in data:
        return [0, *_after_newlines(data)]
    return [0, *accumulate(map(len, data.splitlines(keepends=True)))]


def _end_of_line(file, start: int, number: int) -> int:
    """Bytes from `start` to the end of the line of this number, counted from 1."""
    file.seek(start)
    window = _WINDOW
    while True:
        data = file.read(window)
        count = data.count(b"\n") + (data.count(b"\r") - data.count(b"\r\n"))
        if len(data) < window or count > number:
            starts = line_starts(data)
            return int(starts[number]) if number < len(starts) else len(data)
        file.seek(start)
        window *= 2

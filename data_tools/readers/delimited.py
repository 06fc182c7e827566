"""CSV and TSV: every cell is text, every row knows its line, a broken row harms no other.

The quoting is RFC 4180, held strictly: a lenient parser alters text in silence. After a row
that cannot be read, reading goes on at the very next line.
"""

import csv
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data_tools.readers.text import bad_text, printable
from data_tools.record import ConvertError, Fault, Place, Raw, Reject

_OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def read_csv(text, path: str, notes: list[str]) -> Iterator[Raw | Reject]:
    """Rows of a comma-separated file; another delimiter is found by the header, and named."""
    yield from Rows(*csv_head(text, path, notes), path)


def read_tsv(text, path: str, notes: list[str]) -> Iterator[Raw | Reject]:
    """Rows of a tab-separated file."""
    yield from Rows(*tsv_head(text, path, notes), path)


def csv_head(text, path: str, notes: list[str]) -> tuple["Lines", "Head"]:
    """The lines of a comma-separated file below its header, and what that says."""
    lines = Lines(text)
    delimiter = ","
    if (head := lines.look()) and "," not in head:
        counts = {mark: head.count(mark) for mark in _OTHER_DELIMITERS}
        best = max(counts, key=counts.get)
        if counts[best]:
            delimiter = best
            notes.append(f"{path}: cells are separated by {_OTHER_DELIMITERS[best]}")
    return lines, _head(lines, path, delimiter)


def tsv_head(text, path: str, notes: list[str]) -> tuple["Lines", "Head"]:
    """The same of a tab-separated file."""
    lines = Lines(text)
    return lines, _head(lines, path, "\t")


@dataclass(frozen=True)
class Head:
    """What the header row says: the names of the columns, none where the file has no row."""

    names: tuple[str, ...]
    delimiter: str


class Rows:
    """The rows below a header, one record each; those that begin past line `until` are left.

    `before` lines stand in the file before the first of `lines`.
    """

    def __init__(
        self, lines: "Lines", head: Head, path: str, until: float = float("inf"), before: int = 0
    ):
        csv.field_size_limit(sys.maxsize)  # one answer may be longer than the default 131,072
        self.lines, self._head, self._path = lines, head, path
        self._until, self._before = until, before
        self._reader = csv.reader(lines, delimiter=head.delimiter, strict=True)
        self._record = 0

    def __iter__(self) -> Iterator[Raw | Reject]:
        while self._head.names and self.lines.number < self._until:
            start = self._before + self.lines.number + 1
            self.lines.taken.clear()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                self._record += 1
                self.lines.give_back(error)
                yield self._broken(error, Place(self._path, start, self._record))
                continue
            taken = self.lines.taken
            source = taken[0] if len(taken) == 1 else "".join(taken)
            if not cells or source.isspace():
                continue
            self._record += 1
            yield row(cells, source, self._head.names, Place(self._path, start, self._record))

    def _broken(self, error: csv.Error, place: Place) -> Reject:
        fault = Fault(
            "ragged_row",
            f"a quoted cell is not closed or goes on after its closing quote ({error}); "
            "double the quotes inside a quoted cell",
        )
        first = self.lines.taken[0]
        return Reject(place, bad_text(first, "the row") or fault, _plain(first))


def row(cells: list[str], source: str, names: Sequence[str], place: Place) -> Raw | Reject:
    """One row as a record, or what keeps it from being one."""
    if fault := bad_text(source, "the row"):
        return Reject(place, fault, _plain(source))
    if len(cells) != len(names):
        detail = (
            f"{len(cells)} cells where the header has {len(names)}; "
            "quote cells that hold the delimiter, or fill the missing ones"
        )
        return Reject(place, Fault("ragged_row", detail), _plain(source))
    if tuple(cell.strip() for cell in cells) == names:
        detail = "the header row stands here again and is no record; join files without it"
        return Reject(place, Fault("wrong_type", detail), _plain(source))
    return Raw(place, dict(zip(names, cells, strict=True)), cells=True)


def _head(lines: "Lines", path: str, delimiter: str) -> Head:
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    return Head(tuple(_header(reader, lines, path)), delimiter)


def _header(reader, lines: "Lines", path: str) -> list[str]:
    try:
        while not (header := next(reader)) or "".join(lines.taken).isspace():
            lines.taken.clear()
    except StopIteration:
        return []
    except csv.Error as error:
        raise ConvertError(
            f"{path}:{lines.start()}: the header row cannot be read ({error}); mend its quotes"
        ) from None
    header = [name.strip() for name in header]
    if fault := bad_text("".join(lines.taken), "the header row"):
        raise ConvertError(f"{path}:{lines.start()}: {fault.detail}")
    for name, count in Counter(header).items():
        if count > 1:
            what = f"the column {name!r} stands" if name else "columns without a name stand"
            raise ConvertError(
                f"{path}:{lines.start()}: {what} {count} times in the header; "
                "rename them so that each is clear"
            )
    return header


def _plain(source: str) -> str:
    return printable(source.rstrip("\r\n"))


class Lines:
    """Lines with their ends, counted; those taken for one row can be given back but the first.

    A row goes on to a next line only inside quotes, so a line that once led such a row to its
    error leads every row there. Reading it again each time would take the square of the length.
    """

    def __init__(self, text):
        self.text, self.waiting, self.taken, self.number = text, deque(), [], 0
        self.hopeless_to, self.error = 0, None

    def __iter__(self):
        return self

    def __next__(self) -> str:
        if self.taken and self.number < self.hopeless_to:
            raise self.error
        line = self.waiting.popleft() if self.waiting else next(self.text)
        self.number += 1
        self.taken.append(line)
        return line

    def look(self) -> str:
        """The first line that is not blank, left where it is."""
        for line in self.text:
            self.waiting.append(line)
            if not line.isspace():
                return line
        return ""

    def start(self) -> int:
        """The number of the first line that was taken."""
        return self.number - len(self.taken) + 1

    def give_back(self, error: csv.Error) -> None:
        if len(self.taken) > 1:
            self.hopeless_to, self.error = self.number, error
        self.number -= len(self.taken) - 1
        self.waiting.extendleft(reversed(self.taken[1:]))

"""The first pass: the inputs as blocks, each checked by a worker, with the results in order."""

import pickle
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from data_tools.block import Block, BlockResult, Task, run
from data_tools.options import Options
from data_tools.readers import FileReader
from data_tools.readers.blocks import changed, cut, file_state, first_span
from data_tools.record import ConvertError, Record, Reject
from data_tools.workers import Workers, in_order

# Of a block whose records were read already: records of each of its pieces, and bytes of all.
_RECORDS, _BYTES = 50, 4_000_000


class Inputs:
    """The files to read and their places on disk; `notes` are what their readers found out."""

    def __init__(self, files: dict[str, str], options: Options):
        self.files, self._options = files, options
        self._notes: list[str] = []
        self._states = {path: file_state(path, place) for path, place in files.items()}

    @property
    def notes(self) -> list[str]:
        return [*dict.fromkeys(self._notes)]  # a file may be read twice

    @property
    def size(self) -> int:
        """The bytes of all files."""
        return sum(size for size, _ in self._states.values())

    def reader(self, path: str) -> FileReader:
        """A reader of one file from its start."""
        how = self._options.encoding, self._options.sheet, self._options.header_row
        return FileReader(path, *how, self.files[path], self._notes)

    def blocks(self, path: str) -> Iterator[Block]:
        """The blocks of one file."""
        how = self._options.encoding, self._options.header_row
        # Workers elsewhere see only what is where its path says.
        start = first_span(path, *how) if self.files[path] == path else None
        if start is not None:
            yield from (Block(path, span.stop - span.start, span) for span in cut(start))
            return
        reader, before = self.reader(path), 0
        for pieces in _packed(iter(reader)):
            before, size = reader.position, reader.position - before
            yield Block(path, max(0, size), records=pieces)

    def check_unchanged(self) -> None:
        """Raise ConvertError where a file is not what it was when it was first opened."""
        for path, before in self._states.items():
            if file_state(path, self.files[path]) != before:
                raise changed(path)


def read_excluded(path: str | None) -> frozenset[str]:
    """The `source` values of a JSON Lines file. Raises ConvertError (status 2)."""
    found = set()
    for item in FileReader(f"--exclude-rows {path}", place=path) if path else ():
        match item:
            case Record(value={"source": str(source)}):
                found.add(source)
            case _:
                detail = "each line must be an object with a text 'source'"
                raise ConvertError(f"{item.location}: {detail}")
    return frozenset(found)


def check_blocks(
    inputs: Inputs, task: Task, workers: Workers, folder: str
) -> Iterator[BlockResult]:
    """The result of every block, in order.

    Where the last record of a block does not end where its file was cut, the rest of the file is
    read here, one block at a time, each cut where the last record of the one before ended.
    """
    miscut: set[str] = set()  # files whose blocks ahead are of no use

    def upcoming() -> Iterator[Block]:
        for path in inputs.files:
            for block in inputs.blocks(path):
                if path in miscut:
                    break
                yield block

    for result in in_order(run, upcoming(), workers, task, folder):
        block, span = result.block, result.block.span
        if block.file in miscut:
            continue
        yield result
        if span is None or span.stop - span.start == block.size:  # of the block as it was cut
            continue
        miscut.add(block.file)
        while (span := next(cut(result.block.span), None)) is not None:
            result = run(replace(block, span=span, size=span.stop - span.start), task, folder)
            yield result


def _packed(records: Iterator[Record | Reject]) -> Iterator[tuple[bytes, ...]]:
    """The records of one block after the other, pickled a few at a time to bound their memory."""
    pieces: list[bytes] = []
    while found := list(islice(records, _RECORDS)):
        pieces.append(pickle.dumps(found, protocol=5))
        if sum(map(len, pieces)) >= _BYTES:
            yield tuple(pieces)
            pieces = []
    if pieces:
        yield tuple(pieces)

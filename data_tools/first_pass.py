"""The first pass: the inputs as blocks, each checked by a worker, with the results in order."""

import contextlib
import os
import pickle
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO

from data_tools.block import Block, BlockResult, Task, run
from data_tools.options import Options
from data_tools.readers import STDIN, FileReader
from data_tools.readers.blocks import Span, cut, file_state, first_span
from data_tools.record import ConvertError, Record, Reject
from data_tools.workers import Workers

# Of a block whose records were read already: pieces, records of each, and bytes of all.
_PIECES, _RECORDS, _BYTES = 40, 50, 8_000_000
_RESTARTS = 3  # of a file whose blocks do not end where they were cut


class Inputs:
    """The files to read; `notes` are what their readers found out."""

    def __init__(self, files: Sequence[str], options: Options, stdin: BinaryIO | None):
        self.files, self._options, self._stdin = files, options, stdin
        self._notes: dict[str, list[str]] = {}
        self._states = {path: file_state(path) for path in files}

    @property
    def notes(self) -> list[str]:
        return [note for path in self.files for note in self._notes.get(path, ())]

    @property
    def size(self) -> int:
        """The bytes of all files."""
        sizes = [state[0] for state in self._states.values() if state is not None]
        return sum(sizes) + (os.fstat(self._stdin.fileno()).st_size if self._stdin else 0)

    def reader(self, path: str) -> FileReader:
        """A reader of one file from its start."""
        reader = FileReader(path, self._options.encoding, self._options.sheet, self._stdin)
        self._notes[path] = reader.notes
        return reader

    def blocks(self, path: str, after: Span | None = None) -> Iterator[Block]:
        """The blocks of one file, only those that follow the span `after` where it is given."""
        if path != STDIN:
            after = after or first_span(path, self._options.encoding)
            if after is not None:
                yield from (Block(path, span.stop - span.start, span) for span in cut(after))
                return
        reader, before = self.reader(path), 0
        for pieces in _packed(iter(reader)):
            before, size = reader.position, reader.position - before
            yield Block(path, max(0, size), records=pieces)

    def check_unchanged(self) -> None:
        """Raise ConvertError where a file is not what it was when it was first opened."""
        for path, before in self._states.items():
            if path != STDIN and file_state(path) != before:
                raise ConvertError(
                    f"{path}: changed while it was read; convert it again once it is complete", 1
                )


@contextlib.contextmanager
def standard_input(inputs: Sequence[str]) -> Iterator[BinaryIO | None]:
    """A copy of standard input that can be read twice, where it is an input."""
    if STDIN not in inputs:
        yield None
        return
    if sys.stdin is None:
        raise ConvertError("-: standard input is closed; pipe the records in or name a file")
    with tempfile.TemporaryFile() as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        except OSError as error:
            raise ConvertError(f"-: standard input cannot be copied ({error.strerror})") from None
        copy.flush()
        yield copy


def _packed(records: Iterator[Record | Reject]) -> Iterator[tuple[bytes, ...]]:
    """The records of one block after the other, pickled in pieces."""
    pieces: list[bytes] = []
    while found := list(islice(records, _RECORDS)):
        pieces.append(pickle.dumps(found, protocol=5))
        if len(pieces) == _PIECES or sum(map(len, pieces)) >= _BYTES:
            yield tuple(pieces)
            pieces = []
    if pieces:
        yield tuple(pieces)


def check_blocks(
    inputs: Inputs, task: Task, workers: Workers, folder: str
) -> Iterator[BlockResult]:
    """The result of every block, in order.

    Where the last record of a block does not end where its file was cut, the rest of the file is
    cut again from there; after some such places one block at a time.
    """
    upcoming = _Upcoming(inputs)
    waiting: deque = deque()
    first = list(islice(upcoming, 2))
    upcoming.put_back(first)
    workers = workers if len(first) > 1 else Workers(1)
    while True:
        while len(waiting) < (1 if upcoming.is_sequential else workers.ahead):
            if (found := next(upcoming, None)) is None:
                break
            waiting.append((found, workers.submit(run, found, task, folder)))
        if not waiting:
            return
        checked, future = waiting.popleft()
        result = future.result()
        yield result
        if result.block.span != checked.span:
            for _, other in waiting:
                other.cancel()
            upcoming.put_back([other for other, _ in waiting if other.file != checked.file])
            upcoming.restart(result.block.span)
            waiting.clear()


class _Upcoming:
    """The blocks of all files in order."""

    def __init__(self, inputs: Inputs):
        self._inputs = inputs
        self._files = deque((path, inputs.blocks(path)) for path in inputs.files)
        self._restarts: Counter = Counter()

    def __iter__(self) -> Iterator[Block]:
        return self

    def __next__(self) -> Block:
        while self._files:
            found = next(self._files[0][1], None)
            if found is not None:
                return found
            self._files.popleft()
        raise StopIteration

    def put_back(self, blocks: Sequence[Block]) -> None:
        """These blocks come next."""
        self._files.extendleft((block.file, iter([block])) for block in reversed(blocks))

    def restart(self, done: Span) -> None:
        """What comes next is cut from where `done` ends, instead of as its file was cut."""
        others = [(path, blocks) for path, blocks in self._files if path != done.file]
        self._files = deque([(done.file, self._inputs.blocks(done.file, done)), *others])
        self._restarts[done.file] += 1

    @property
    def is_sequential(self) -> bool:
        """Whether the next file is best read one block at a time."""
        return bool(self._files) and self._restarts[self._files[0][0]] > _RESTARTS

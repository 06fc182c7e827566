"""Which pairs are in test: by the hash of the prompt, or by the splits that the inputs bring along.

These are named by a column, or by files and folders.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_tools.keys import digest
from data_tools.record import tidy_name

COLUMNS = ("split", "data_split", "partition", "subset")
_TRAIN = {"train", "training"}
_TEST = {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout"}
_TEST |= {"holdout"}


def is_test(name: str | None) -> bool | None:
    """Whether the name of a split, such as `dev` or `test_prefs`, means test; None if unclear."""
    words = {*re.findall("[a-z]+", str(name).casefold())}
    is_train, in_test = not words.isdisjoint(_TRAIN), not words.isdisjoint(_TEST)
    return in_test if is_train != in_test else None


def of_file(path: str) -> bool | None:
    """The same of a file, by its own name or else by that of its folder."""
    folder, name = os.path.split(path)
    own = is_test(name)
    return is_test(os.path.basename(folder)) if own is None else own


class Split:
    """Which pairs are in test: those whose prompt's salted hash falls below the test share.

    With `own`, the split of the inputs decides: the name is in the column `own`, which is the last
    of those kept with a pair, or where that is empty, is the file's.
    """

    def __init__(self, test_size: float, seed: int, own: str | None = None):
        self._salt = f"{seed}:".encode()
        self._below = int(test_size * (1 << 128)).to_bytes(17, "big")[1:]
        self._own, self.is_own = own, own is not None

    def in_test(self, prompt: bytes, file: str = "", kept: Sequence[str | None] = ()) -> bool:
        """Whether a pair is in test, of its prompt's key, its file and the columns kept with it."""
        if not self.is_own:
            return digest(self._salt + prompt) < self._below
        return bool(is_test(kept[-1]) if self._own else of_file(file))


@dataclass(frozen=True)
class OwnSplits:
    """The splits of the inputs: the tidy name of their column, empty where the files have them, and
    each name of a split or file with whether it means test.
    """

    column: str
    names: dict[str, bool | None]

    def __str__(self) -> str:
        where = f"the column {self.column} has" if self.column else "the names of the files have"
        sides = ([n for n, own in self.names.items() if own is side] for side in (False, True))
        train, test = (", ".join(names[:5]) or "none" for names in sides)
        return f"{where} splits: train {train}; test {test}"


def find(files: Sequence[str], records: Iterable[dict]) -> OwnSplits | None:
    """The splits in a column of the records, or else in the names of files, if there are any."""
    found: dict[str, dict[str, bool | None]] = {}
    for record in records:
        for name in record:
            if tidy_name(name).casefold() in COLUMNS and record[name] not in (None, ""):
                split = str(record[name])
                found.setdefault(tidy_name(name), {})[split] = is_test(split)
    found.setdefault("", {path: of_file(path) for path in files})
    known = [OwnSplits(*each) for each in found.items() if {*each[1].values()} != {None}]
    order = (*COLUMNS, "")  # the files' own names last
    return min(known, key=lambda own: order.index(own.column.casefold()), default=None)

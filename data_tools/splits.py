"""Which pairs are in test: by the hash of the prompt, or by the splits that the inputs bring along.

These are named by a column, or by files and folders.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_tools.keys import digest
from data_tools.record import ConvertError, clip, tidy_name

COLUMNS = ("split", "data_split", "partition", "subset")
_TRAIN = {"train", "training"}
_TEST = {"test", "testing", "validation", "valid", "val", "dev", "eval", "evaluation", "heldout"}
_TEST |= {"holdout"}


class Split:
    """Which prompts are in test: those whose salted hash falls below the test share.

    With `own`, the split of the inputs decides: the name is in the column `own`, or is the file's.
    """

    def __init__(self, test_size: float, seed: int, own: str | None = None):
        self._salt = f"{seed}:".encode()
        self._below = int(test_size * (1 << 128)).to_bytes(17, "big")[1:]
        self.own = own

    def in_test(self, prompt: bytes, file: str = "", kept: Sequence[str | None] = ()) -> bool:
        """Whether a pair is in test, of a prompt's key, its file and the columns kept with it.

        Without splits of the inputs, only the prompt matters.
        """
        if self.own is None:
            return digest(self._salt + prompt) < self._below
        return is_test(kept[-1]) if self.own else bool(of_file(file))


def is_test(name: str | None) -> bool | None:
    """Whether the name of a split, such as `dev` or `test_prefs`, means test; None if unclear."""
    words = re.findall("[a-z]+", str(name).casefold())
    found = [word in _TEST for word in words if word in _TEST | _TRAIN]
    return found[0] if len({*found}) == 1 else None


def of_file(path: str) -> bool | None:
    """The same of a file, by its own name or else by that of its folder."""
    folder, name = os.path.split(path)
    own = is_test(name.split(".")[0])
    return is_test(os.path.basename(folder)) if own is None else own


@dataclass(frozen=True)
class OwnSplits:
    """The splits that the inputs bring along: the tidy name of a column, empty where the files have
    them, and each name of a split or file with whether it means test.
    """

    column: str
    names: dict[str, bool | None]

    @property
    def note(self) -> str:
        where = f"the column {self.column}" if self.column else "the names of the files"
        sides = ([n for n, own in self.names.items() if own is side] for side in (False, True))
        train, test = (", ".join(names[:5]) or "none" for names in sides)
        return f"{where} has splits: train {train}; test {test}"

    def check(self) -> None:
        """Raise ConvertError for a name that is neither train nor test."""
        if unknown := [name for name, own in self.names.items() if own is None]:
            raise ConvertError(
                f"--keep-splits: {clip(unknown[0])} names neither train nor test; rename it to one "
                "of train, test, validation, dev or eval"
            )


def find(files: Sequence[str], records: Iterable[dict]) -> OwnSplits | None:
    """The splits in a column of the records, or else in the names of files, if there are any."""
    values: dict[str, dict[str, bool | None]] = {}
    for record in records:
        for name in record:
            if tidy_name(name).casefold() in COLUMNS and record[name] not in (None, ""):
                own = values.setdefault(tidy_name(name), {})
                own[str(record[name])] = is_test(str(record[name]))
    found = [OwnSplits(column, names) for column, names in values.items()]
    found.append(OwnSplits("", {path: of_file(path) for path in files}))
    return next((own for own in found if {*own.names.values()} - {None}), None)

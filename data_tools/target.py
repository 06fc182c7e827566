"""Where the dataset goes, and what may be replaced there."""

import json
import os
import re
from collections.abc import Sequence

from data_tools import readers, swap
from data_tools.record import ConvertError

WORK = "work"  # the folder within an unfinished dataset that holds what only the run needs
_OWN_FILES = re.compile(
    r"(train|test)(-\d{5,}-of-\d{5,})?(\.parquet|\.jsonl)?"
    r"|dataset_dict\.json|rejects\.jsonl|report\.json|README\.md"
)


def is_own(name: str) -> bool:
    """Whether a dataset of this command may hold a file of this name."""
    return bool(_OWN_FILES.fullmatch(name))


def is_part(name: str) -> bool:
    """The same of one that is being written."""
    return is_own(name) or name == WORK


def choose(options, files: Sequence[str]) -> str:
    first = options.inputs[0]
    name = "stdin" if first == readers.STDIN else readers.stem_of(first)
    target = os.path.normpath(options.output or os.path.join("data", name))
    real = os.path.realpath(target)
    for path in (*options.inputs, *files):
        source = os.path.realpath(path)
        if path != readers.STDIN and (source == real or source.startswith(real + os.sep)):
            raise ConvertError(
                f"{target}: this is where the input {path} stands; name another output with -o"
            )
    swap.refuse_foreign(target, is_own, _is_ours)
    beside = rejects_beside(target)
    if os.path.lexists(beside) and not _holds_rejects(beside):
        raise ConvertError(
            f"{beside}: exists and was not written by this command, which keeps rejects there "
            "where no pair is kept; move it or choose another place with -o"
        )
    return target


def rejects_beside(target: str) -> str:
    """Where the rejects go when there is no dataset for them to stand in."""
    return f"{target}.rejects.jsonl"


def _holds_rejects(path: str) -> bool:
    try:
        with open(path, encoding="utf-8") as file:
            first = file.readline()
        return not first or {"file", "record", "reason", "detail"} <= json.loads(first).keys()
    except (OSError, ValueError, AttributeError):
        return False


def _is_ours(target: str) -> bool:
    try:
        with open(os.path.join(target, "report.json"), encoding="utf-8") as file:
            return {"records", "pairs", "splits", "evidence"} <= json.load(file).keys()
    except (OSError, ValueError, AttributeError):
        return False

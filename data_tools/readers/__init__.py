"""Bytes to records: the reader is chosen by the file's ending.

`FileReader` yields a `Record` or a `Reject` for each record, in the file's order, and raises
`ConvertError` where the file as a whole is not what its ending says, or breaks off.
"""

import os
import zlib
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

from data_tools.readers import delimited, json_records, opening, parquet, spreadsheet
from data_tools.readers.opening import COMPRESSIONS, STDIN, Items, printable
from data_tools.record import ConvertError

_TEXTS = {
    ".csv": partial(delimited.read, delimiters=delimited.DELIMITERS[".csv"]),
    ".tsv": partial(delimited.read, delimiters=delimited.DELIMITERS[".tsv"]),
    ".json": json_records.read_json,
    ".jsonl": json_records.read_json_lines,
    ".ndjson": json_records.read_json_lines,
}
_TABLES = {".parquet": parquet.read, ".xlsx": spreadsheet.read}  # compressed in themselves
SYNTAXES = (*_TEXTS, *_TABLES)
ENDINGS = (*SYNTAXES, *(s + c for s in _TEXTS for c in COMPRESSIONS))
_KNOWN = f"{' '.join(SYNTAXES)}, the text ones also with {' '.join(COMPRESSIONS)}"


def syntax_of(path: str) -> str:
    """The ending of `path` that names its syntax, without compression; empty if unknown."""
    ending = _ending(os.path.basename(path))
    syntax, last = os.path.splitext(ending)
    return syntax if last in COMPRESSIONS else ending


def stem_of(path: str) -> str:
    """The file's name without its known endings: `pairs.csv.gz` gives `pairs`."""
    name = os.path.basename(os.path.normpath(path))
    return name[: len(name) - len(_ending(name))]


def _ending(name: str) -> str:
    return next((e for e in ENDINGS if name.lower().endswith(e) and len(name) > len(e)), "")


def find_inputs(paths: tuple[str, ...]) -> list[str]:
    """Every file to read, once, directories replaced by the known files in them, sorted by name.

    Raises ConvertError (status 2) for a path that does not exist or holds nothing readable.
    """
    files: dict[str, str] = {}  # by real path, in the spelling that came first
    for path in paths:
        for file in _inside(path) if os.path.isdir(path) else [path]:
            if file != STDIN:
                _refuse_unknown(file)
            files.setdefault(os.path.realpath(file), file)
    return list(files.values())


def _inside(directory: str) -> list[str]:
    """The files in a directory and below, without hidden ones and this command's own output."""
    found = []
    for folder, folders, names in os.walk(directory, onerror=_refuse):
        if {"report.json", "rejects.jsonl"} <= set(names):  # of this command
            if folder != directory:
                folders.clear()
                continue
            names = [name for name in names if name.startswith(("train", "test"))]
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(folder, name)
            for name in names
            if _ending(name) and not name.startswith(".") and not name.endswith(".rejects.jsonl")
        ]
    if not found:
        raise ConvertError(
            f"{directory}: no preference files in this directory; known endings are {_KNOWN}"
        )
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise ConvertError(f"{error.filename}: cannot be read ({error.strerror})")


def _refuse_unknown(path: str) -> None:
    if path != printable(path):
        raise ConvertError(
            f"{printable(path)}: the name is not UTF-8, so it could not be stored with its "
            "records; rename it"
        )
    if not os.path.exists(path):
        raise ConvertError(f"{path}: no such file; check the path (it is taken as given)")
    if not syntax_of(path):
        fix = f"rename, decompress or export it to one of {_KNOWN}"
        raise ConvertError(f"{path}: unknown ending; {fix}")


@dataclass
class FileReader:
    """The records of one file, from its start.

    `stdin` is a seekable copy of standard input for the path `-`; `sheet` is the sheet of a
    spreadsheet to read. `notes` explain what the reader found out, such as a delimiter; `position`
    is how many bytes of the file were read so far.
    """

    path: str
    encoding: str | None = None
    sheet: str | None = None
    stdin: BinaryIO | None = None
    notes: list[str] = field(default_factory=list)
    position: int = 0

    def __iter__(self) -> Items:
        path, seen = self.path, 0
        syntax = ".jsonl" if path == STDIN else syntax_of(path)
        try:
            with opening.open_input(path, self.stdin) as file:
                content = opening.decompressed(file, path)
                if syntax in _TABLES:
                    items = _TABLES[syntax](content, path, self.notes, self.sheet)
                else:
                    content = opening.open_text(content, self.encoding)
                    items = _TEXTS[syntax](content, path, self.notes)
                for item in items:
                    seen, self.position = item.location.record, file.tell()
                    yield item
            if not seen:
                self.notes.append(f"{path}: has no records")
        except (EOFError, OSError, zlib.error) as error:
            if getattr(error, "errno", None):
                raise ConvertError(f"{path}: cannot be read ({error.strerror})") from None
            raise ConvertError(
                f"{path}: the compressed file breaks off or is damaged after record {seen} "
                f"({error}); fetch or compress it again"
            ) from None
        except UnicodeError as error:  # of codecs that cannot continue after an error
            raise ConvertError(
                f"{path}: is not {self.encoding} ({error}); name the file's encoding with "
                "--encoding"
            ) from None

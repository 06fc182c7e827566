"""Bytes to records: the reader is chosen by the file's ending.

`FileReader` yields a `Record` or a `Reject` for each record, in the file's order, and raises
`ConvertError` where the file as a whole is not what its ending says, or breaks off.
"""

import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from lzma import LZMAError

from data_tools.readers import delimited, hub, json_records, opening, parquet, spreadsheet
from data_tools.readers.opening import COMPRESSIONS, STDIN, Items, printable
from data_tools.record import ConvertError

_TEXTS = {
    ".csv": partial(delimited.read, delimiters=delimited.DELIMITERS[".csv"]),
    ".tsv": partial(delimited.read, delimiters=delimited.DELIMITERS[".tsv"]),
    ".json": json_records.read_json,
    ".jsonl": json_records.read_json_lines,
    ".ndjson": json_records.read_json_lines,
}
_TABLES = {".parquet": parquet.read, ".arrow": parquet.read, ".xlsx": spreadsheet.read}
SYNTAXES = (*_TEXTS, *_TABLES)
ENDINGS = (*SYNTAXES, *(s + c for s in _TEXTS for c in COMPRESSIONS))
KNOWN = f"{' '.join(SYNTAXES)}, the text ones also with {' '.join(COMPRESSIONS)}, or .zip of these"
_OWN = {"report.json", "rejects.jsonl"}  # of a dataset that this command wrote
_SAVED = {"state.json", "dataset_info.json"}  # of a dataset that `save_to_disk` wrote
_METADATA = _SAVED | {"dataset_dict.json", "dataset_infos.json"}


def syntax_of(path: str) -> str:
    """The ending of `path` that names its syntax, without compression; empty if unknown."""
    ending = _ending(os.path.basename(path))
    syntax, last = os.path.splitext(ending)
    return syntax if last in COMPRESSIONS else ending


def stem_of(path: str) -> str:
    """The file's name without its known endings: `pairs.csv.gz` gives `pairs`."""
    name = os.path.basename(os.path.normpath(path))
    if path.startswith(hub.SCHEME):
        name = name.partition("@")[0]
    return name[: len(name) - len(_ending(name))]


def _ending(name: str) -> str:
    known = (*ENDINGS, opening.ARCHIVE)
    return next((e for e in known if name.lower().endswith(e) and len(name) > len(e)), "")


def find_inputs(paths: tuple[str, ...], folder: str | None = None) -> dict[str, str]:
    """Where every file to read is on disk, by its name, once.

    The names are the paths as given, and below directories, archives and data sets of the Hub those
    of the known files, sorted. `folder` takes what is unpacked, and a copy of standard input.
    Raises ConvertError (status 2) for a path that does not exist or holds nothing readable.
    """
    files: dict[str, tuple[str, str]] = {}  # by real path, in the spelling that came first
    for path in paths:
        if path.startswith(hub.SCHEME):
            place, is_wanted = hub.fetch(path, ENDINGS)
            found = [file for file in _files(path, place, folder) if is_wanted(file[0])]
        else:
            place = _copy_of_stdin(folder) if path == STDIN else path
            found = [*_files(path, place, folder)]
        if not found:
            raise ConvertError(f"{path}: holds no preference files; known endings are {KNOWN}")
        for file in found:
            if path != STDIN:
                _refuse_unknown(*file)
            files.setdefault(os.path.realpath(file[0]), file)
    return dict(files.values())


def _copy_of_stdin(folder: str | None) -> str:
    """A file with its content, which is read twice: for detection, then for conversion."""
    if sys.stdin is None:
        raise ConvertError("-: standard input is closed; pipe the records in or name a file")
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
    return copy.name


def _files(
    path: str, place: str, folder: str | None, is_named: bool = True
) -> Iterator[tuple[str, str]]:
    """Name and place of a file, or of the known ones in a directory or archive and below.

    Hidden ones are left out, and what this command wrote unless its directory `is_named` itself.
    """
    if path.lower().endswith(opening.ARCHIVE) and os.path.isfile(place):
        place = opening.unpack(path, place, folder)
    if not os.path.isdir(place):
        yield path, place
        return
    try:
        entries = sorted(os.scandir(place), key=lambda entry: entry.name + "/" * entry.is_dir())
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror})") from None
    names = {entry.name for entry in entries}
    is_own = names >= _OWN
    if is_own and not is_named:
        return
    if names >= _SAVED:
        for name in _shards(path, place):
            yield os.path.join(path, name), os.path.join(place, name)
        return
    left_out = _METADATA | _OWN if is_own else _METADATA
    for entry in entries:
        hidden = entry.name.startswith((".", "__MACOSX")) or entry.name.endswith(".rejects.jsonl")
        is_known = entry.is_dir(follow_symlinks=False) or _ending(entry.name)
        if is_known and not hidden and entry.name not in left_out:
            yield from _files(os.path.join(path, entry.name), entry.path, folder, is_named=False)


def _shards(path: str, place: str) -> list[str]:
    """The names of the files of a dataset that `save_to_disk` wrote. Raises ConvertError."""
    try:
        with open(os.path.join(place, "state.json"), "rb") as file:
            return [shard["filename"] for shard in json.load(file)["_data_files"]]
    except (ValueError, KeyError, TypeError):
        fix = "lists no files; save the dataset again"
        raise ConvertError(f"{os.path.join(path, 'state.json')}: {fix}") from None


def _refuse_unknown(path: str, place: str) -> None:
    """Raise ConvertError for a file that no reader can read."""
    if path != printable(path):
        raise ConvertError(
            f"{printable(path)}: the name is not UTF-8, so it could not be stored with its "
            "records; rename it"
        )
    if not os.path.exists(place):
        raise ConvertError(f"{path}: no such file; check the path (it is taken as given)")
    if not syntax_of(path):
        fix = f"rename, decompress or export it to one of {KNOWN}"
        raise ConvertError(f"{path}: unknown ending; {fix}")
    if not os.path.isfile(place):
        raise ConvertError(f"{path}: is no regular file; pipe its content in and name it -")


@dataclass
class FileReader:
    """The records of one file, from its start.

    `place` is where it is on disk, if not at its path; `sheet` is the sheet of a spreadsheet to
    read, `header_row` where the header of a table is. `notes` explain what the reader found out,
    such as a delimiter; `position` is how many bytes of the file were read.
    """

    path: str
    encoding: str | None = None
    sheet: str | None = None
    header_row: int | None = None
    place: str | None = None
    notes: list[str] = field(default_factory=list)
    position: int = 0

    def __iter__(self) -> Items:
        path, seen = self.path, 0
        syntax = syntax_of(path) or ".jsonl"  # of standard input
        try:
            with open(self.place or path, "rb") as file:
                content = opening.decompressed(file, path)
                if syntax in _TEXTS:
                    content = opening.open_text(content, self.encoding, path)
                read = (_TEXTS | _TABLES)[syntax]
                for item in read(content, path, self.notes, self.header_row, self.sheet):
                    seen, self.position = item.location.record, file.tell()
                    yield item
            if not seen:
                self.notes.append(f"{path}: has no records")
        except (EOFError, OSError, zlib.error, LZMAError) as error:
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

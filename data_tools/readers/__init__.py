"""Bytes to records: the reader is chosen by the file's ending.

`FileReader` yields a `Record` or a `Reject` for each record, in the file's order, and raises
`ConvertError` where the file as a whole is not what its ending says, or breaks off.
"""

import json
import os
import zlib
from dataclasses import dataclass, field
from functools import partial
from lzma import LZMAError
from typing import BinaryIO

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
_TABLES = {".parquet": parquet.read, ".arrow": parquet.read_arrow, ".xlsx": spreadsheet.read}
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


def find_inputs(paths: tuple[str, ...], folder: str | None = None) -> list[str]:
    """Every file to read, once: the known files in directories, archives and data sets of the Hub.

    They are sorted by name; archives are unpacked in `folder`. Raises ConvertError (status 2) for a
    path that does not exist or holds nothing readable.
    """
    files: dict[str, str] = {}  # by real path, in the spelling that came first
    for path in paths:
        is_wanted = hub.fetch(path, ENDINGS) if path.startswith(hub.SCHEME) else None
        found = [*filter(is_wanted, _files(path, folder))]
        if not found:
            raise ConvertError(f"{path}: holds no preference files; known endings are {KNOWN}")
        for file in found:
            if file != STDIN:
                _refuse_unknown(file)
            files.setdefault(os.path.realpath(file), file)
    return list(files.values())


def _files(path: str, unpacked: str | None) -> list[str]:
    """The files that a path stands for: itself, or those in a directory or archive and below.

    Hidden ones and what this command wrote into a directory are left out.
    """
    if path.lower().endswith(opening.ARCHIVE) and os.path.isfile(opening.on_disk(path)):
        opening.unpack(path, unpacked)
    root, found = opening.on_disk(os.path.join(path, "")), []
    if not os.path.isdir(root):
        return [path]
    for place, folders, names in os.walk(root, onerror=_refuse):
        inside = os.path.join(path, place[len(root) :])
        folders[:] = [name for name in folders if not name.startswith((".", "__MACOSX"))]
        if {*names} >= _OWN:
            if place != root:
                folders.clear()
                continue
            names = [name for name in names if name not in _OWN]
        if {*names} >= _SAVED:
            found += [(inside, *shard) for shard in enumerate(_shards(inside))]
            continue
        for name in names:
            skipped = name[0] == "." or name.endswith(".rejects.jsonl") or name in _METADATA
            if _ending(name) and not skipped:
                file = os.path.join(inside, name)
                found += [(file, *known) for known in enumerate(_files(file, unpacked))]
    return [file for *_, file in sorted(found)]


def _shards(folder: str) -> list[str]:
    """The files of a dataset that `save_to_disk` wrote, in their order. Raises ConvertError."""
    path = os.path.join(folder, "state.json")
    try:
        with opening.open_input(path) as file:
            shards = json.load(file)["_data_files"]
        return [os.path.join(folder, shard["filename"]) for shard in shards]
    except (ValueError, KeyError, TypeError):
        raise ConvertError(f"{path}: lists no files; save the dataset again") from None


def _refuse(error: OSError) -> None:
    raise ConvertError(f"{error.filename}: cannot be read ({error.strerror})")


def _refuse_unknown(path: str) -> None:
    if path != printable(path):
        raise ConvertError(
            f"{printable(path)}: the name is not UTF-8, so it could not be stored with its "
            "records; rename it"
        )
    if not os.path.exists(opening.on_disk(path)):
        raise ConvertError(f"{path}: no such file; check the path (it is taken as given)")
    if not syntax_of(path):
        fix = f"rename, decompress or export it to one of {KNOWN}"
        raise ConvertError(f"{path}: unknown ending; {fix}")


@dataclass
class FileReader:
    """The records of one file, from its start.

    `stdin` is a seekable copy of standard input for the path `-`; `sheet` is the sheet of a
    spreadsheet to read, `header_row` where the header of a table is. `notes` explain what the
    reader found out, such as a delimiter; `position` is how many bytes of the file were read.
    """

    path: str
    encoding: str | None = None
    sheet: str | None = None
    header_row: int | None = None
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
                    items = _TABLES[syntax](content, path, self.notes, self.sheet, self.header_row)
                else:
                    content = opening.open_text(content, self.encoding)
                    items = _TEXTS[syntax](content, path, self.notes, self.header_row)
                for item in items:
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

"""Bytes to records: picks the reader by the file's ending and looks for what cannot be read.

`read(path, encoding)` yields a `Raw` or a `Reject` per record, in the file's order, and raises
`ConvertError` where the file as a whole is not what its ending says, or breaks off.
"""

import gzip
import os
import zlib
from collections.abc import Iterator

from data_tools.readers import delimited, json_array, json_lines, parquet, spreadsheet
from data_tools.readers.opening import COMPRESSIONS, STDIN, open_binary
from data_tools.readers.opening import Meter as Meter
from data_tools.readers.stretches import Stretch as Stretch
from data_tools.readers.stretches import Stretches as Stretches
from data_tools.readers.text import open_text, printable
from data_tools.record import ConvertError, Raw, Reject

_TEXTS = {
    ".csv": delimited.read_csv,
    ".tsv": delimited.read_tsv,
    ".json": json_array.read,
    ".jsonl": json_lines.read,
    ".ndjson": json_lines.read,
}
_TABLES = {".parquet": parquet.read, ".xlsx": spreadsheet.read}  # compressed within themselves
SYNTAXES = _TEXTS | _TABLES
ENDINGS = (*SYNTAXES, *(s + c for s in _TEXTS for c in COMPRESSIONS))
_KNOWN = f"{' '.join(SYNTAXES)}, the text ones also with {' '.join(COMPRESSIONS)}"


def syntax_of(path: str) -> str:
    """The ending of `path` that names its syntax, compression set aside; empty when unknown."""
    ending = _ending(os.path.basename(path))
    return os.path.splitext(ending)[0] if ending.endswith(COMPRESSIONS) else ending


def is_plain(path: str) -> bool:
    """Whether the file's bytes are its text, not compressed."""
    return not _ending(os.path.basename(path)).endswith(COMPRESSIONS)


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
    files: dict[str, str] = {}  # by what they really are, in the spelling that came first
    for path in paths:
        for file in _inside(path) if os.path.isdir(path) else [path]:
            if file != STDIN:
                _refuse_unknown(file)
            files.setdefault(file if file == STDIN else os.path.realpath(file), file)
    return list(files.values())


def _inside(directory: str) -> list[str]:
    """The files in a directory and below; what is hidden or this command's own is left out."""
    found = []
    for folder, folders, names in os.walk(directory, onerror=_refuse):
        if folder != directory and {"report.json", "rejects.jsonl"} <= set(names):
            folders.clear()
            continue
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
            f"{printable(path)}: the name is not UTF-8, so it could not be written beside its "
            "records; rename it"
        )
    if not os.path.lexists(path):
        raise ConvertError(f"{path}: no such file; check the path (it is taken as given)")
    if not syntax_of(path):
        inner, ending = os.path.splitext(path)
        if ending.lower() in COMPRESSIONS and syntax_of(inner):
            raise ConvertError(
                f"{path}: a {syntax_of(inner)} file is compressed within itself and read as it "
                f"is; decompress it to {inner}"
            )
        raise ConvertError(f"{path}: unknown ending; rename or export it to one of {_KNOWN}")


def read(
    path: str,
    encoding: str | None = None,
    notes: list[str] | None = None,
    stdin=None,
    sheet: str | None = None,
    meter: Meter | None = None,
) -> Iterator[Raw | Reject]:
    """Yield what stands in one file.

    `notes` gains what the reader had to find out for itself (a delimiter, say); `stdin` is a
    seekable binary file that stands for the path `-`; `sheet` is the one to read of a spreadsheet;
    `meter` says how far the file has been read while it is.
    """
    notes = [] if notes is None else notes
    seen = 0
    try:
        for item in _items(path, encoding, notes, stdin, sheet, meter):
            seen = item.place.record
            yield item
        if not seen:
            bare = path != STDIN and not os.path.getsize(path)
            notes.append(f"{path}: is empty" if bare else f"{path}: holds no records")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ConvertError(
            f"{path}: the compressed file breaks off or is damaged after record {seen} "
            f"({error}); fetch or compress it again"
        ) from None
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeError as error:  # of codecs that cannot go on after a fault
        raise ConvertError(
            f"{path}: is not {encoding} ({error}); name the file's encoding with --encoding"
        ) from None


def _items(path: str, encoding: str | None, notes: list[str], stdin, sheet, meter):
    syntax = ".jsonl" if path == STDIN else syntax_of(path)
    with open_binary(path, stdin, meter) as binary:
        if syntax in _TABLES:
            yield from _TABLES[syntax](binary, path, notes, sheet)
        else:
            with open_text(binary, encoding) as text:
                yield from _TEXTS[syntax](text, path, notes)

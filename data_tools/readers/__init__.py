"""Bytes to records: picks the reader by the file's ending and looks for what cannot be read.

`read(path, encoding)` yields a `Raw` or a `Reject` per record, in the file's order, and raises
`ConvertError` where the file as a whole is not what its ending says, or breaks off.
"""

import contextlib
import gzip
import os
import stat
import zlib
from collections.abc import Iterator

from data_tools.readers import delimited, json_array, json_lines
from data_tools.readers.text import open_text, printable
from data_tools.record import ConvertError, Raw, Reject

SYNTAXES = {
    ".csv": delimited.read_csv,
    ".tsv": delimited.read_tsv,
    ".json": json_array.read,
    ".jsonl": json_lines.read,
    ".ndjson": json_lines.read,
}
COMPRESSIONS = (".gz",)
ENDINGS = tuple(SYNTAXES) + tuple(s + c for s in SYNTAXES for c in COMPRESSIONS)
STDIN = "-"


def syntax_of(path: str) -> str:
    """The ending of `path` that names its syntax, compression set aside; empty when unknown."""
    name = os.path.basename(path).lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    ending = os.path.splitext(name)[1]
    return ending if ending in SYNTAXES else ""


def stem_of(path: str) -> str:
    """The file's name without its known endings: `pairs.csv.gz` gives `pairs`."""
    name = os.path.basename(os.path.normpath(path))
    if name.lower().endswith(ENDINGS):
        for ending in COMPRESSIONS:
            if name.lower().endswith(ending):
                name = name[: -len(ending)]
        name = os.path.splitext(name)[0]
    return name


def find_inputs(paths: tuple[str, ...]) -> list[str]:
    """Every file to read, directories replaced by the known files in them, sorted by name.

    Raises ConvertError (status 2) for a path that does not exist or holds nothing readable.
    """
    files: list[str] = []
    for path in paths:
        if path == STDIN:
            files.append(path)
        elif os.path.isdir(path):
            inside = _inside(path)
            if not inside:
                raise ConvertError(
                    f"{path}: no preference files in this directory; known endings are "
                    f"{' '.join(SYNTAXES)}, also with {' '.join(COMPRESSIONS)}"
                )
            files += sorted(inside)
        elif not os.path.exists(path):
            raise ConvertError(f"{path}: no such file; check the path (it is taken as given)")
        elif not syntax_of(path):
            raise ConvertError(
                f"{path}: unknown ending; rename or export it to one of {' '.join(SYNTAXES)}, "
                f"also with {' '.join(COMPRESSIONS)}"
            )
        else:
            files.append(path)
    for path in files:
        if path != printable(path):
            raise ConvertError(
                f"{printable(path)}: the name is not UTF-8, so it could not be written beside its "
                "records; rename it"
            )
    return files


def _inside(directory: str) -> list[str]:
    """The files in a directory and below, what this command itself has written there left out."""
    found = []
    for folder, _, names in os.walk(directory, onerror=_refuse):
        if folder != directory and {"report.json", "rejects.jsonl"} <= set(names):
            continue
        found += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(ENDINGS)
            and not name.startswith(".")
            and not name.endswith(".rejects.jsonl")
        ]
    return found


def _refuse(error: OSError) -> None:
    raise ConvertError(f"{error.filename}: cannot be read ({error.strerror})")


def read(
    path: str, encoding: str | None = None, notes: list[str] | None = None, stdin=None
) -> Iterator[Raw | Reject]:
    """Yield what stands in one file.

    `notes` gains what the reader had to find out for itself (a delimiter, say); `stdin` is a
    seekable binary file that stands for the path `-`.
    """
    reader = json_lines.read if path == STDIN else SYNTAXES[syntax_of(path)]
    seen = 0
    try:
        with _open_binary(path, stdin) as binary, open_text(binary, encoding) as text:
            for item in reader(text, path, [] if notes is None else notes):
                seen = item.place.record
                yield item
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


def _open_binary(path: str, stdin):
    if path == STDIN:
        stdin.seek(0)
        return contextlib.nullcontext(stdin)  # read twice: recognition, then conversion
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ConvertError(f"{path}: is no regular file; pipe its content in and name it -")
    with open(path, "rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise ConvertError(
            f"{path}: this is a Git LFS pointer, not the data; run 'git lfs pull' at its source"
        )
    zipped = head.startswith(b"\x1f\x8b")
    if path.lower().endswith(".gz"):
        if not zipped:
            raise ConvertError(f"{path}: its ending says gzip, its content does not; rename it")
        return gzip.open(path, "rb")
    if zipped:
        raise ConvertError(f"{path}: its content is gzip; rename it to {path}.gz")
    if head.startswith((b"PK\x03\x04", b"PAR1")):
        kind = "a zip archive or spreadsheet" if head.startswith(b"PK") else "Parquet"
        raise ConvertError(f"{path}: its content is {kind}, not what its ending says; export it")
    return open(path, "rb")

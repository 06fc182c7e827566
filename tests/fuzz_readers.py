"""Search for bytes that break a reader: python tests/fuzz_readers.py csv --minutes 10

Coverage of the readers guides the search (atheris, see requirements-fuzz.txt), which begins with
the samples of tests/good and tests/bad. An input for which a check fails is kept, and what to do
with it is printed.
"""

import argparse
import contextlib
import gzip
import io
import json
import multiprocessing
import random
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict
from pathlib import Path

import atheris

TESTS = Path(__file__).parent
sys.path.insert(0, str(TESTS.parent))
with atheris.instrument_imports(
    include=["data_tools.readers", "openpyxl.reader", "openpyxl.worksheet"]
):
    import openpyxl  # noqa: F401 - loaded here to be instrumented
    from reading import PACKED, read_in_blocks

    from data_tools import readers
    from data_tools.readers import FileReader, blocks, json_records, parquet, spreadsheet
    from data_tools.record import REASONS, ConvertError, Record, Reject

SECONDS = 10  # of CPU time for one input
TOKENS = (
    [b'"', b'""', b"'", b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b" ", b"\\", b'\\"', b":"]
    + [b"[", b"]", b"{", b"}", b"},\n{", b'{"a": 1}', b'{"a": [{"b": 1}]}', b"\\u0000", b"\\ud800"]
    + [b"\\ud83d\\ude00", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0.0", b"007"]
    + [b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\0\0\xfe\xff", b"\0", b"\xff"]
    + [b"\x80", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"\x0b", b"\x0c", b"\x1c"]
    + [b"\x1f\x8b\x08", b"(\xb5/\xfd", b"P*M\x18", b"PAR1", b"PK\x03\x04", b"PK\x05\x06"]
    + [b"prompt", b"chosen", b"rejected", b"prompt,chosen,rejected\n", b"version https://git-lfs"]
    + [b"<row>", b"<c t='s'><v>", b"</v></c>", b"t='inlineStr'", b"<is><t>", b"_x0000_", b"&#10;"]
)


def check(path: Path) -> tuple[list, str]:
    """Every item of a file as JSON, and the error at its end; asserts what always holds."""
    found, lines, error = [], [0], ""
    reader, start = FileReader(str(path)), time.process_time()
    try:
        for number, item in enumerate(reader, start=1):
            assert item.location.record == number, item.location
            lines.append(item.location.line or 0)
            found.append(as_json(item))
    except ConvertError as raised:
        error = str(raised).replace(path.name, "FILE")
        assert raised.status in (1, 2)
    assert lines == sorted(lines), lines
    assert all(len(text.splitlines()) <= 1 for text in (error, *reader.notes)), "not one line"
    seconds = time.process_time() - start
    assert seconds < SECONDS, f"took {seconds:.0f} s"
    return found, error


def as_json(item: Record | Reject) -> bytes:
    values = asdict(item)
    del values["location"]["file"]
    if isinstance(item, Reject):
        assert item.reason in REASONS, item.reason
        assert len(item.detail.splitlines()) == 1, f"not one line: {item.detail!r}"
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode()


def check_content(content: bytes, folder: Path, ending: str) -> None:
    """Assert that any bytes under this ending are read the same in different pieces."""
    path = folder / f"f.{ending}"
    path.write_bytes(content)
    found, error = check(path)
    if ending == "parquet":
        rows, parquet._ROWS = parquet._ROWS, 2
        others, other_error = check(path)
        parquet._ROWS = rows
        # pyarrow finds some damage with one batch size only.
        assert error or other_error or found == others, "the size of a batch changes the records"
    if ending not in ("csv", "tsv", "json", "jsonl", "ndjson") or not content:
        return
    for blocks.SIZE in (7, 100) if ending != "json" and not error else ():
        in_blocks = [as_json(item) for item in read_in_blocks(str(path))]
        assert in_blocks == found, f"in blocks: {in_blocks}, from its start: {found}"
    if "its content is" not in error and "Git LFS" not in error:
        path = folder / f"f.{ending}.gz"
        path.write_bytes(gzip.compress(content, 1))
        chunk, json_records._CHUNK = json_records._CHUNK, 3
        compressed = check(path)
        json_records._CHUNK = chunk
        assert (found, error) == compressed, f"compressed: {compressed}, plain: {(found, error)}"


def mutated(data: bytes, size: int, seed: int) -> bytes:
    """A change of the uncompressed data, since a change of the bytes mostly breaks a checksum."""
    chance = random.Random(seed)
    if chance.random() > 0.1:
        with contextlib.suppress(Exception):  # zipfile raises many kinds for a damaged container
            changed = _inside(data, size, chance)
            if len(changed) <= size:
                return changed
    return atheris.Mutate(data, size)


def _inside(data: bytes, size: int, chance: random.Random) -> bytes:
    if data.startswith(b"\x1f\x8b"):
        return gzip.compress(atheris.Mutate(gzip.decompress(data), size), 1)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        import pyarrow as pa

        text = bytearray(size)  # `read` of a damaged stream leaks memory
        with pa.CompressedInputStream(pa.BufferReader(data), "zstd") as stream:
            count = stream.readinto(text)
        return PACKED[".zst"](atheris.Mutate(bytes(text[:count]), size))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        likely = [name for name in names if "sheet" in name or "Strings" in name]
        chosen = chance.choice(likely if likely and chance.random() < 0.8 else names)
        for name in names:
            part = old.read(name)
            new.writestr(name, atheris.Mutate(part, size) if name == chosen else part)
    return out.getvalue()


def seeds(ending: str) -> list[bytes]:
    """The samples with this ending; of a compression also those that can be compressed by it."""
    samples = [p for folder in ("good", "bad") for p in sorted((TESTS / folder).iterdir())]
    inner, _, compression = ending.rpartition(".")
    pack = PACKED.get(f".{compression}")
    found = [path.read_bytes() for path in samples if path.name.endswith(f".{ending}")]
    inside = [path.read_bytes() for path in samples if pack and path.name.endswith(f".{inner}")]
    return found + [pack(content) for content in inside]


def search(ending: str, minutes: float, keep: str, folder: str) -> None:
    """Try inputs until the time is over or a check fails; ends the process."""
    corpus, words, work = (Path(folder, name) for name in ("corpus", "words", "work"))
    corpus.mkdir()
    work.mkdir()
    for number, content in enumerate(seeds(ending)):
        (corpus / str(number)).write_bytes(content)
    escaped = ("".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS)
    words.write_text("".join(f'"{token}"\n' for token in escaped), encoding="ascii")
    options = [
        f"-max_total_time={int(60 * minutes)}",
        f"-dict={words}",
        f"-artifact_prefix={keep}/{ending}.",
        f"-timeout={3 * SECONDS}",  # of wall time, for an endless loop
        "-rss_limit_mb=4096",
        f"-max_len={8000 if ending in ('parquet', 'xlsx') else 3000}",
        "-len_control=20",  # longer inputs soon: the runs are short
        "-print_final_stats=1",
    ]
    spreadsheet._MOST_ROWS = 10_000  # a million empty rows take too long under coverage
    packed = "." in ending or ending == "xlsx"
    atheris.Setup(
        [sys.argv[0], *options, str(corpus)],
        lambda content: check_content(content, work, ending),
        **({"custom_mutator": mutated} if packed else {}),
    )
    atheris.Fuzz()


def main(argv=None) -> int:
    known = [ending[1:] for ending in readers.ENDINGS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=known, metavar="READER", help=", ".join(known))
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="default 10")
    parser.add_argument("--keep", metavar="DIR", help="where failing inputs are kept")
    given = parser.parse_args(argv)
    keep = Path(given.keep or tempfile.mkdtemp(prefix="fuzz_readers."))
    keep.mkdir(parents=True, exist_ok=True)
    before = set(keep.iterdir())
    with tempfile.TemporaryDirectory() as folder:
        arguments = given.reader, given.minutes, str(keep), folder
        run = multiprocessing.get_context("spawn").Process(target=search, args=arguments)
        run.start()
        run.join()
    for path in sorted(set(keep.iterdir()) - before):
        print(
            f"{path}: a check of the {given.reader} reader fails; fix the reader, copy the file to "
            f"tests/bad/NAME.{given.reader} with an entry in tests/bad/expected.json (or to "
            "tests/good/ if it is valid), and run pytest tests/test_samples.py"
        )
    return 1 if run.exitcode else 0


if __name__ == "__main__":
    sys.exit(main())

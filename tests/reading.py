"""What the tests of the readers share: write a file, read it, and see what came of it."""

import bz2
import gzip
import json
import lzma
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from converting import convert

from data_tools import readers
from data_tools.readers import FileReader, blocks
from data_tools.record import ConvertError, Record

LINES = b'{"a": 1}\n{"a": 2}\n'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Run each test of the module that imports this in a folder of its own."""
    monkeypatch.chdir(tmp_path)


def zstd(content):
    import pyarrow as pa

    return pa.compress(content, "zstd", asbytes=True)


PACKED = {
    ".gz": gzip.compress,
    ".zst": zstd,
    ".bz2": lambda content: bz2.compress(content, 1),
    ".xz": lzma.compress,
}


def write(name, content):
    """Write bytes, or text in UTF-8; nothing if `content` is None."""
    if content is not None:
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())


def items(name, content=None, **options):
    """The records and rejects of a file."""
    write(name, content)
    return list(FileReader(name, **options))


def read(name, content=None, **options):
    """(line, value) of every record of a file, (line, reason) of every reject."""
    return [
        (item.location.line, item.value if isinstance(item, Record) else item.reason)
        for item in items(name, content, **options)
    ]


def rejects(name, content=None, **options):
    """(line, reason, detail, raw) of every reject of a file."""
    found = [i for i in items(name, content, **options) if not isinstance(i, Record)]
    return [(item.location.line, item.reason, item.detail, json.loads(item.raw)) for item in found]


def notes(name, content=None, **options):
    write(name, content)
    reader = FileReader(name, **options)
    list(reader)
    return reader.notes


def refusal(name, content=None, **options):
    """The message with which a file is refused, whether it is found or read."""
    write(name, content)
    with pytest.raises(ConvertError) as caught:
        for path, place in readers.find_inputs((name,), ".").items():
            items(path, place=place, **options)
    assert caught.value.status == 2
    return str(caught.value)


def sources(*inputs, **options):
    """The `source` and prompt of every row, from the report's own dataset."""
    import pyarrow as pa

    done = convert(inputs, "out", test_size=0, workers=1, **options)
    rows = []
    for split in ("train", "test"):
        for path in sorted(Path("out").glob(f"{split}/*.arrow")):
            rows += pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
    assert done.figures["records"]["rejected"] == 0
    return {row["source"]: row["prompt"] for row in rows}


def lines(*numbers):
    """Records as JSON Lines, of texts that have these numbers."""
    keys = ("prompt", "chosen", "rejected")
    return "".join(json.dumps({k: f"{k}{n}" for k in keys}) + "\n" for n in numbers)


def spans(path):
    """Each span of a file as it really ended, with its records, cut again after a wrong cut."""
    after = blocks.first_span(path, None)
    while after is not None:
        for span in blocks.cut(after):
            found, stop = blocks.read_span(span)
            after = replace(span, stop=stop)
            yield after, found
            if stop != span.stop:
                break
        else:
            return


def read_in_blocks(path):
    """The records and rejects of a file, read span by span where it can be cut."""
    result = [] if blocks.first_span(path, None) else items(path)
    for _, found in spans(path):
        before = len(result)
        for item in found:
            location = replace(item.location, record=item.location.record + before)
            result.append(replace(item, location=location))
    return result


def run_python(code, *arguments):
    """What a Python program prints that is run in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout.decode()


def peak_memory(path):
    """How many bytes a process grows by while it reads a file."""
    code = (
        "import resource, sys, pyarrow.parquet\n"
        "from data_tools.readers import FileReader\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024\n"
        "before = peak()\n"
        "for _ in FileReader(sys.argv[1]): pass\n"
        "print(peak() - before)"
    )
    return int(run_python(code, path))

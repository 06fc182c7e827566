"""What the tests of the command share: raw records, the files they are written to, and the result.

Importing it loads nothing of the pipeline.
"""

import json
from pathlib import Path

from data_tools import convert as function
from data_tools.record import ConvertError


def pair(number=1, **more):
    return {"prompt": f"P{number}", "chosen": f"C{number}", "rejected": f"R{number}"} | more


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def as_lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def write_lines(path, records):
    Path(path).write_text(as_lines(records), "utf-8")
    return str(path)


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def contents(directory="."):
    """Every file below `directory` with its bytes."""
    found = (path for path in sorted(Path(directory).rglob("*")) if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def use_small_blocks(monkeypatch, block=4000, records=100, shard=20_000):
    """Make many blocks and several shards of a few hundred records.

    The command itself cuts its input, so that this also works with several workers.
    """
    monkeypatch.setattr("data_tools.readers.blocks.SIZE", block)
    monkeypatch.setattr("data_tools.first_pass._BYTES", 1)
    monkeypatch.setattr("data_tools.first_pass._RECORDS", records)
    monkeypatch.setattr("data_tools.shards.SHARD", shard)


def convert(*inputs, **options):
    """The report of a conversion, also of one that ends with exit status 1."""
    try:
        return function(*inputs, **options)
    except ConvertError as error:
        if error.report is None:
            raise
        return error.report

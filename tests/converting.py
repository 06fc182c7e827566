"""What the tests of the command share: raw records, the files they are written to, and the result.

Importing it loads nothing of the pipeline.
"""

import json
from pathlib import Path


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

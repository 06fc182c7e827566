"""A stretch of JSON Lines: every line parsed, then all of them as columns.

`readers.json_lines` parses and rejects.
"""

from data_tools import block
from data_tools.columnar import records
from data_tools.columnar.lane import Found
from data_tools.columnar.texts import has_lone_returns, is_text
from data_tools.readers import Stretch, json_lines
from data_tools.record import Place, Raw, Reject


def read(stretch: Stretch, data: bytes, task: block.Task) -> Found | None:
    """The records of a stretch whose bytes are `data`; None where only the definition can tell."""
    if b"\0" in data or has_lone_returns(data) or not is_text(data):
        return None
    items, starts, lengths = _items(stretch, data)
    found = records.table(items, task, [stretch.start + at for at in starts], lengths)
    if found is None:
        return None
    lines = data.count(b"\n") + (not data.endswith(b"\n"))
    return Found(*found, len(items), lines, stretch.stop)


def _items(stretch: Stretch, data: bytes) -> tuple[list[Raw | Reject], list[int], list[int]]:
    """Every record, where its line begins and how long that is."""
    items, starts, lengths, start = [], [], [], 0
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        text = line.decode()
        if not text.isspace():
            place = Place(stretch.file, number + (stretch.before or 0), len(items) + 1)
            items.append(json_lines.parse(text, place, sound=True))
            starts.append(start)
            lengths.append(len(line))
        start += len(line)
    return items, starts, lengths

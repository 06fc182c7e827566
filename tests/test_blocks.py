"""Inputs as blocks in order: what was read already in pieces, stretches mended where they end."""

import gzip
import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from data_tools import blocks, first_pass, readers
from data_tools.blocks import Inputs, in_order
from data_tools.readers import Stretch, stretches
from data_tools.record import ConvertError
from data_tools.workers import Crew


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(name, count=10):
    """A file of this many records, by its ending."""
    records = [{"a": number} for number in range(count)]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    texts = {
        ".jsonl": lines,
        ".json": json.dumps(records),
        ".csv": "a\n" + "".join(f"{number}\n" for number in range(count)),
    }
    data = texts[readers.syntax_of(name)].encode()
    Path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return name


def kinds(*names, **options):
    """The file and the kind of every block."""
    sources = Inputs(names, **options).sources(counted=False)
    return [(source.file, type(source).__name__) for source in sources]


def test_plain_lines_of_utf_8_are_stretches_and_all_else_is_read_in_one_go():
    names = [written(name) for name in ("a.jsonl", "b.csv", "c.json", "d.jsonl.gz", "e.csv.gz")]
    assert kinds(*names) == [
        ("a.jsonl", "Stretch"),
        ("b.csv", "Stretch"),
        ("c.json", "Records"),
        ("d.jsonl.gz", "Records"),
        ("e.csv.gz", "Records"),
    ]
    assert kinds("b.csv", encoding="cp1252") == [("b.csv", "Records")]
    Path("b.csv").write_text("a\n1\n", encoding="utf-16")
    assert kinds("b.csv") == [("b.csv", "Records")]


def test_standard_input_is_read_in_one_go():
    with open(written("a.jsonl"), "rb") as file:
        (source,) = Inputs(["-"], stdin=file).sources(counted=False)
        assert [item.value for item in source.read()] == [{"a": number} for number in range(10)]


def test_what_was_read_already_comes_in_blocks_of_a_limited_number_and_size(monkeypatch):
    monkeypatch.setattr(blocks, "_PIECE", 5)
    name = written("a.json", 43)
    for most, size, counts in (
        (10, 1 << 20, [10, 10, 10, 10, 3]),
        (12, 1 << 20, [15, 15, 13]),
        (1000, 1, [5] * 8 + [3]),
        (1000, 1 << 20, [43]),
    ):
        monkeypatch.setattr(blocks, "_RECORDS", most)
        monkeypatch.setattr(blocks, "_BYTES", size)
        found = [list(source.read()) for source in Inputs([name]).sources(counted=False)]
        assert [len(items) for items in found] == counts
        assert sum(found, []) == list(readers.read(name))


def test_a_file_without_records_is_no_block_and_a_note():
    written("a.json", 0)
    written("b.csv", 0)
    Path("c.jsonl").write_text("")
    inputs = Inputs(["a.json", "b.csv", "c.jsonl"])
    assert list(inputs.sources(counted=False)) == []
    assert inputs.notes["a.json"] == ["a.json: holds no records"]


def test_notes_are_those_of_the_last_reading():
    Path("a.csv").write_text("a;b\n1;2\n")
    inputs = Inputs(["a.csv"])
    for _ in range(2):
        list(inputs.read("a.csv"))
        assert inputs.notes == {"a.csv": ["a.csv: cells are separated by semicolons"]}


def test_a_file_that_is_not_what_it_was_is_refused():
    names = [written("a.jsonl"), written("b.jsonl")]
    inputs = Inputs([*names, "-"])
    inputs.check_unchanged()
    os.utime("b.jsonl", ns=(1, 1))
    for change in (lambda: None, lambda: written("b.jsonl", 11), lambda: os.remove("b.jsonl")):
        change()
        with pytest.raises(ConvertError) as caught:
            inputs.check_unchanged()
        assert str(caught.value) == (
            "b.jsonl: changed while it was read; convert it again once it is complete"
        )
        assert caught.value.status == 1


# What `in_order` does with stretches that turn out to end elsewhere.

TEXTS = {"f": (0, 10, 20, 30, 40), "g": (0, 10, 20)}


def cuts(name, before=None):
    """Stretches of ten bytes; every byte is a line."""
    bounds = TEXTS[name]
    for start, stop in zip(bounds, bounds[1:], strict=False):
        known = start if before or not start else None
        yield Stretch(name, start, stop, None, known)


class Recording:
    """Does everything when it is submitted, and knows what was cancelled."""

    def __init__(self, ahead):
        self.ahead, self.submitted, self.cancelled = ahead, [], []

    def submit(self, function, source, *arguments):
        self.submitted.append((source.file, source.start))
        done = function(source, *arguments)
        return SimpleNamespace(
            result=lambda: done, cancel=lambda: self.cancelled.append((source.file, source.start))
        )


def told(source, ends):
    """A block that ends where `ends` says, or where its stretch does."""
    if not isinstance(source, Stretch):
        return SimpleNamespace(source=source, stop=0, lines=0)
    stop = ends.get((source.file, source.start), source.stop)
    return SimpleNamespace(source=source, stop=stop, lines=stop - source.start)


def ordered(sources, ends, ahead=1):
    crew = Recording(ahead)
    found = [block.source for block in in_order(iter(sources), crew, told, ends)]
    return [(source.file, source.start, source.stop) for source in found], crew


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize(
    ("ends", "asked"),
    [
        ({}, [0, 10, 20, 30]),
        ({("f", 0): 13}, [0, 13, 20, 30]),
        ({("f", 0): 20}, [0, 20, 30]),
        ({("f", 0): 25}, [0, 25, 30]),
        ({("f", 0): 40}, [0]),
        ({("f", 0): 13, ("f", 13): 21, ("f", 10): 40}, [0, 13, 21, 30]),
    ],
)
def test_a_stretch_begins_where_the_records_before_it_ended(ahead, ends, asked):
    found, crew = ordered([*cuts("f"), *cuts("g")], ends, ahead)
    stops = {start: stop for start, stop in zip(TEXTS["f"], TEXTS["f"][1:], strict=False)}
    assert [start for file, start, _ in found if file == "f"] == asked
    assert all(stop == stops[start // 10 * 10] for file, start, stop in found if file == "f")
    assert [start for file, start, _ in found if file == "g"] == [0, 10]
    assert set(crew.cancelled) == {("f", n) for n in (10, 20, 30)} - {("f", n) for n in asked}


def test_a_stretch_that_begins_elsewhere_knows_the_lines_before_it():
    ends = {("f", 0): 13, ("f", 13): 34}
    blocks_ = list(in_order(cuts("f", before=True), Recording(3), told, ends))
    assert [block.source.before for block in blocks_] == [0, 13, 34]
    unknown = list(in_order(cuts("f"), Recording(3), told, ends))
    assert [block.source.before for block in unknown] == [0, None, None]


def test_no_more_blocks_are_under_way_than_the_crew_has_places_for():
    taken, given = [], 0

    def sources():
        for stretch in [*cuts("f"), *cuts("g")]:
            taken.append(stretch)
            yield stretch

    for _ in in_order(sources(), Recording(3), told, {}):
        given += 1
        assert len(taken) <= given + 3
    assert given == 6


def test_one_block_is_done_here_and_starts_no_process(monkeypatch):
    monkeypatch.setattr("data_tools.workers.ProcessPoolExecutor", None)
    one = first_pass.Records("a.json")
    (block,) = in_order(iter([one]), Crew(4), told, {})
    assert block.source is one
    assert list(in_order(iter([]), Crew(4), told, {})) == []


def test_what_fails_in_a_block_is_raised_after_those_before_it():
    def fails(source, _):
        if source.start == 20:
            raise ConvertError("no")
        return told(source, {})

    seen = []
    with pytest.raises(ConvertError, match="no"):
        for block in in_order(cuts("f"), Crew(1), fails, {}):
            seen.append(block.source.start)
    assert seen == [0, 10]


def test_stretches_of_a_file_are_those_of_its_own_reader(monkeypatch):
    monkeypatch.setattr(stretches, "SIZE", 20)
    names = [written("a.csv", 40), written("b.jsonl", 40)]
    found = {name: [] for name in names}
    for block in in_order(Inputs(names).sources(True), Crew(1), lambda s: read(s)):
        found[block.source.file] += block.items
    for name in names:
        places = [item.place.line for item in readers.read(name)]
        assert [item.place.line for item in found[name]] == places


def read(source):
    items = source.open()
    return SimpleNamespace(source=source, items=list(items), stop=items.stop, lines=items.lines)

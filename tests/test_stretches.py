"""Files cut into stretches: the same records at the same places as read from the start."""

import csv
import gzip
import io
import json
import os
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from data_tools import blocks, conversion, first_pass, readers
from data_tools.convert import convert, main
from data_tools.options import Options
from data_tools.readers import delimited, stretches
from data_tools.readers.stretches import Stretch, Stretches, count_lines, line_starts
from data_tools.record import ConvertError, Raw
from data_tools.workers import Crew

NAMES = ("prompt", "chosen", "rejected")
ENDS = (b"\n", b"\r\n")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Dirty files. Words are few, so that rows repeat and contradict each other.

WORDS = ("a", "b", "P", "é", "", " ", "two words", "<br>", "\ufeff", "[1]", "\x1c", "\x0b", "\x85")


def quoted(text, delimiter, chance):
    if chance.random() < 0.4 or any(mark in text for mark in (delimiter, '"', "\n", "\r")):
        text = '"' + text.replace('"', '""') + '"'
    return text


def cell(chance, delimiter, end):
    kind = chance.random()
    if kind < 0.55:
        return chance.choice(WORDS) + str(chance.randrange(4))
    if kind < 0.75:  # a text that holds rows, of the right number of cells perhaps
        rows = [
            delimiter.join(chance.choice(WORDS) for _ in range(chance.choice((3, 3, 3, 2, 4))))
            for _ in range(chance.randint(1, 5))
        ]
        return "x" + end + end.join(rows) + chance.choice(("", end))
    if kind < 0.85:
        return 'say "' + chance.choice(WORDS) + '"' + chance.choice(("", end, delimiter))
    if kind < 0.88:
        return "huge " * chance.randint(10, 60)
    return chance.choice(("\r", "\n\n", '"', delimiter, '\n"\n', "", " ", end + " " + end))


def dirty_table(chance, delimiter):
    """The bytes of a CSV or TSV whose rows are sound for the most part."""
    end = chance.choice(("\n", "\n", "\r\n"))
    head = [quoted(name, delimiter, chance) for name in NAMES]
    if chance.random() < 0.2:
        head[2] = '"rejected' + end + '"'
    lines = [delimiter.join(head)]
    if chance.random() < 0.1:
        lines.insert(0, chance.choice(("", " ", "\t ")) if delimiter == "," else "")
    for _ in range(chance.randint(0, 25)):
        kind = chance.random()
        cells = [cell(chance, delimiter, end) for _ in NAMES]
        if kind < 0.08:
            cells = cells[: chance.randint(1, 2)] if chance.random() < 0.5 else [*cells, "more"]
        row = delimiter.join(quoted(text, delimiter, chance) for text in cells)
        if 0.08 <= kind < 0.14:  # a quote too many or too few
            at = chance.randint(0, len(row))
            row = row[:at] + '"' + row[at:]
        elif 0.14 <= kind < 0.2:
            row = chance.choice(("", " ", "\t", lines[0], "\x0c", delimiter, '""', '"'))
        lines.append(row)
    text = end.join(lines) + chance.choice(("", end))
    if chance.random() < 0.1:
        text = text.replace(end, chance.choice(("\n", "\r\n", "\r")), chance.randint(1, 4))
    return broken(text.encode(), chance)


def dirty_lines(chance):
    end = chance.choice(("\n", "\n", "\r\n"))
    lines = []
    for _ in range(chance.randint(0, 25)):
        record = {name: cell(chance, ",", "\n") for name in NAMES}
        line = json.dumps(record, ensure_ascii=chance.random() < 0.5)
        kind = chance.random()
        if kind < 0.1:
            line = line[: chance.randint(0, len(line))]
        elif kind < 0.2:
            line = chance.choice(("", " ", "\t", "[1]", "7", "\x0b", "{}", '"\\ud800"'))
        lines.append(line)
    if lines and lines[0].lstrip().startswith("["):
        lines[0] = "{}"  # since else the file is told to be an array
    text = end.join(lines) + chance.choice(("", end))
    if chance.random() < 0.1:
        text = text.replace(end, "\r", chance.randint(1, 4))
    return broken(text.encode(), chance)


def broken(data, chance):
    """The same bytes, now and then with some that are no text, or with the mark of UTF-8."""
    kind = chance.random()
    if kind < 0.15:
        at = chance.randint(len(data) // 3, len(data))
        data = data[:at] + chance.choice((b"\xff", b"\0", b"\xe2\x82", b"\xed\xa0\x80")) + data[at:]
    return b"\xef\xbb\xbf" + data if chance.random() < 0.15 else data


SOUP = (
    b"a,b,c\n",
    b'"a","b\n",c\n',
    b'"',
    b'"',
    b",",
    b",",
    b"\n",
    b"\n",
    b"\r",
    b"\r\n",
    b"a",
    b"a",
    b"\xff",
    b" ",
    b"\0",
    b"",
)


def soup(chance):
    """A header and after it anything that may matter to a reader of CSV."""
    return (
        b"prompt,chosen,rejected"
        + chance.choice((b"\n", b"\r\n", b"\r"))
        + b"".join(chance.choices(SOUP, k=chance.randint(0, 200)))
    )


CONTENTS = {
    "raw.csv": lambda chance: dirty_table(chance, chance.choice((",", ",", ",", ";", "|"))),
    "raw.tsv": lambda chance: dirty_table(chance, "\t"),
    "raw.jsonl": dirty_lines,
    "soup.csv": soup,
}


# Read through `in_order`, with nothing of the rest.


class Eager:
    """Does some blocks before the ones ahead of them have told where they end."""

    def __init__(self, ahead):
        self.ahead = ahead

    def submit(self, function, *arguments):
        done = function(*arguments)
        return SimpleNamespace(result=lambda: done, cancel=lambda: None)


def told(source):
    items = source.open() if isinstance(source, Stretch) else source.read()
    found = list(items)
    if isinstance(source, Stretch):
        return SimpleNamespace(source=source, items=found, stop=items.stop, lines=items.lines)
    return SimpleNamespace(source=source, items=found, stop=0, lines=0)


def chained(path, counted=False, ahead=1):
    """Every record of a file, its place moved by what stands before its stretch."""
    inputs = blocks.Inputs([path])
    lines = records = 0
    for block in blocks.in_order(inputs.sources(counted), Eager(ahead), told):
        known = not isinstance(block.source, Stretch) or block.source.before is not None
        assert known or not counted
        if known and isinstance(block.source, Stretch):
            assert block.source.before >= lines
            lines = block.source.before
        moved = (0 if known else lines, records if isinstance(block.source, Stretch) else 0)
        for item in block.items:
            yield replace(item, place=item.place.moved(*moved))
        lines += block.lines
        records += len(block.items)


def whole(path):
    """The records as they are read from the start, or the refusal."""
    try:
        return list(readers.read(path))
    except ConvertError as error:
        return str(error)


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_read_by_stretches_holds_the_same_records_at_the_same_places(monkeypatch, name):
    wrong = several = 0
    for seed in range(300):
        chance = random.Random(f"{name} {seed}")
        Path(name).write_bytes(CONTENTS[name](chance))
        monkeypatch.setattr(stretches, "SIZE", chance.choice((1, 7, 40, 100, 400)))
        monkeypatch.setattr(stretches, "_WINDOW", chance.choice((1, 16, 1 << 16)))
        monkeypatch.setattr(stretches, "_FARTHEST", chance.choice((0, 64, 64_000_000)))
        expected = whole(name)
        for counted in (False, True):
            for ahead in (1, 3):
                try:
                    found = list(chained(name, counted, ahead))
                except ConvertError as error:
                    found = str(error)
                assert found == expected, (seed, counted, ahead)
        if not isinstance(expected, str):
            cuts = list(Stretches.of(name, readers.syntax_of(name), None) or ())
            several += len(cuts) > 1
            wrong += any(told(cut).stop > cut.stop for cut in cuts)
    assert several > 100  # or this test would show nothing
    assert name == "raw.jsonl" or wrong > 20


def test_stretches_follow_one_another_and_cover_the_file(monkeypatch):
    monkeypatch.setattr(stretches, "SIZE", 30)
    rows = b"".join(b"p%d,c,r\n" % number for number in range(40))
    Path("raw.csv").write_bytes(b"\xef\xbb\xbfprompt,chosen,rejected\n" + rows)
    cuts = list(Stretches.of("raw.csv", ".csv", None, counted=True))
    assert len(cuts) > 5
    assert cuts[0].start == 26 and cuts[-1].stop == os.path.getsize("raw.csv")
    for one, other in zip(cuts, cuts[1:], strict=False):
        assert one.stop == other.start
    data = Path("raw.csv").read_bytes()
    assert [cut.before for cut in cuts] == [data[: cut.start].count(b"\n") for cut in cuts]
    uncounted = list(Stretches.of("raw.csv", ".csv", None))
    assert [cut.before for cut in uncounted] == [1] + [None] * (len(cuts) - 1)
    assert [(cut.start, cut.size) for cut in uncounted] == [(cut.start, cut.size) for cut in cuts]
    assert cuts[0].head == delimited.Head(NAMES, ",")


def test_a_cut_within_a_cell_that_holds_rows_is_seen_by_whoever_reads_before_it(monkeypatch):
    monkeypatch.setattr(stretches, "SIZE", 20)
    inner = "\n".join(["x,y,z"] * 8)
    Path("raw.csv").write_text(f'prompt,chosen,rejected\nP,"{inner}",R\nQ,C,R\n')
    first, second, *_ = Stretches.of("raw.csv", ".csv", None)
    assert first.stop < 23 + len(inner)
    reading = first.open()
    (item,) = reading
    assert item.value == {"prompt": "P", "chosen": inner, "rejected": "R"}
    assert (reading.lines, reading.stop) == (8, Path("raw.csv").read_bytes().index(b"Q,C,R"))
    assert [item.place.line for item in chained("raw.csv")] == [2, 10]
    assert second.start < reading.stop


@pytest.mark.parametrize(
    ("name", "content", "encoding"),
    [
        ("raw.json", b"[]", None),
        ("raw.csv", b"\xff\xfep\0", None),
        ("raw.csv", "prompt,chosen\n".encode("utf-16"), None),
        ("raw.csv", b"prompt,chosen\n", "cp1252"),
        ("raw.csv", b"", None),
        ("raw.csv", b"\n \n", None),
    ],
)
def test_what_can_only_be_read_from_its_start_has_no_stretches(name, content, encoding):
    Path(name).write_bytes(content)
    assert Stretches.of(name, readers.syntax_of(name), encoding) is None


@pytest.mark.parametrize(
    ("content", "counted", "starts"),
    [
        (b"", 0, []),
        (b"a", 1, [0]),
        (b"a\n", 1, [0]),
        (b"\n\n", 2, [0, 1]),
        (b"a\r\nb", 2, [0, 3]),
        (b"a\rb\r", 2, [0, 2]),
        (b"\r\r\n\n\r", 4, [0, 1, 3, 4]),
        (b"\x0b\x0c\x1c\x85\n\xe2\x80\xa8", 2, [0, 5]),
    ],
)
def test_lines_are_those_of_text_files(content, counted, starts):
    assert count_lines(content) == counted
    assert list(line_starts(content)[:counted]) == starts


def test_lines_are_counted_and_found_as_a_text_file_does_it(monkeypatch):
    for seed in range(500):
        chance = random.Random(seed)
        pieces = chance.choices((b"\r", b"\n", b"\r\n", b"a", b"\x0c", b"\xc2\x85"), k=seed % 30)
        data = b"".join(pieces)
        lines = list(io.TextIOWrapper(io.BytesIO(data), "utf-8", newline=""))
        sizes = [len(line.encode()) for line in lines]
        starts = [sum(sizes[:number]) for number in range(len(lines))]
        assert count_lines(data) == len(lines)
        assert list(line_starts(data)[: len(lines)]) == starts
        monkeypatch.setattr(stretches, "_WINDOW", chance.choice((1, 2, 5, 1 << 16)))
        for start in {0, *starts}:
            for number in range(len([at for at in starts if at >= start]) + 1):
                after = [at for at in [*starts, len(data)] if at >= start]
                end = stretches._end_of_line(io.BytesIO(data), start, number)
                assert end == after[min(number, len(after) - 1)] - start, (seed, start, number)


def test_a_record_is_found_again_where_it_stands(monkeypatch):
    for seed in range(150):
        chance = random.Random(seed)
        name = chance.choice(("raw.csv", "raw.jsonl"))
        Path(name).write_bytes(CONTENTS[name](chance))
        monkeypatch.setattr(stretches, "SIZE", chance.choice((40, 400)))
        if isinstance(whole(name), str):
            continue
        for counted in (False, True):
            inputs = blocks.Inputs([name])
            for block in blocks.in_order(inputs.sources(counted), Crew(1), told):
                if not isinstance(block.source, Stretch):
                    continue
                read = {item.place.line: item.value for item in block.items if type(item) is Raw}
                again = replace(block.source, stop=block.stop).source(dict.fromkeys(read, 0))
                assert again == read, (seed, counted)


def test_a_record_that_is_not_there_any_more_is_refused():
    Path("raw.jsonl").write_text('{"a": 1}\n{"a": 2}\n')
    (stretch,) = Stretches.of("raw.jsonl", ".jsonl", None)
    assert stretch.source({1: 0, 2: 0}) == {1: {"a": 1}, 2: {"a": 2}}
    for content in ('{"a": 1}\n', '{"a": 1}\n[[[\n', ""):
        Path("raw.jsonl").write_text(content)
        with pytest.raises(ConvertError) as caught:
            stretch.source({1: 0, 2: 0})
        assert str(caught.value) == "raw.jsonl: changed while it was read; convert it again"
        assert caught.value.status == 1


# Through the command, in all that it writes.


def written(name, **more):
    """All that a conversion leaves, the shards as their rows; or its refusal."""
    options = {"format": "preference", "test_size": 0.3, "workers": 1, "output": "out"} | more
    try:
        done = convert(Options((name,), **options))
    except ConvertError as error:
        return {"refusal": str(error), "status": error.status}
    found = {"status": done.status} | done.figures
    for path in sorted(Path("out").rglob("*")):
        if path.suffix == ".arrow":
            rows = pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
            found.setdefault(path.parent.name, []).extend(rows)
        elif path.is_file() and path.name != "state.json":
            found[path.name] = path.read_bytes()
    if done.rejects == "out.rejects.jsonl":
        found["rejects.jsonl"] = Path(done.rejects).read_bytes()
        os.remove(done.rejects)
    else:
        shutil.rmtree("out")
    assert not [path for path in os.listdir() if path.startswith("out")]
    return found


def assert_same(found, expected, seed):
    for name in {**found, **expected}:
        assert found.get(name) == expected.get(name), (seed, name)


def one_by_one(monkeypatch):
    """Every record through the lane that knows all of them."""
    if hasattr(first_pass, "_columnar"):
        monkeypatch.setattr(first_pass, "_columnar", lambda *_: None)


@pytest.mark.parametrize("name", CONTENTS)
def test_a_conversion_by_stretches_writes_what_one_block_does(monkeypatch, name):
    made = 0
    for seed in range(60):
        chance = random.Random(f"convert {name} {seed}")
        Path(name).write_bytes(CONTENTS[name](chance))
        options = {"keep": chance.choice(((), ("chosen",)))}
        if chance.random() < 0.3:
            listed = [f"{name}:{chance.randint(1, 30)}" for _ in range(6)]
            lines = "".join(json.dumps({"source": source}) + "\n" for source in listed)
            Path("rows.jsonl").write_text(lines)
            options["exclude_rows"] = "rows.jsonl"
        with monkeypatch.context() as patch:
            one_by_one(patch)
            expected = written(name, **options)
        assert_same(written(name, **options), expected, seed)
        with monkeypatch.context() as patch:
            patch.setattr(stretches, "SIZE", chance.randint(40, 400))
            patch.setattr(conversion, "_SHARD", chance.choice((1, 5000, 128_000_000)))
            assert_same(written(name, **options), expected, seed)
        made += bool(expected.get("train"))
    assert made > 20


def test_every_record_that_was_read_is_in_the_dataset_or_in_the_rejects(monkeypatch):
    for seed in range(60):
        chance = random.Random(f"accounts {seed}")
        name = chance.choice(("raw.csv", "raw.tsv", "raw.jsonl"))
        Path(name).write_bytes(CONTENTS[name](chance))
        monkeypatch.setattr(stretches, "SIZE", chance.randint(40, 400))
        found, expected = written(name), whole(name)
        if "refusal" in found:
            continue
        kept = {row.pop("source"): row for row in found.get("train", []) + found.get("test", [])}
        lines = found["rejects.jsonl"].splitlines()
        rejected = {(r["line"], r["record"]): r["raw"] for r in map(json.loads, lines)}
        assert len(kept) + len(rejected) == len(expected)
        for item in expected:
            raw = item.value if isinstance(item, Raw) else item.raw
            place = item.place
            assert kept.get(str(place), rejected.get((place.line, place.record))) == raw, seed


def pairs(count):
    return [{"prompt": f"P{n}", "chosen": f"C{n}", "rejected": "line\nline"} for n in range(count)]


def as_csv(records):
    out = io.StringIO(newline="")
    rows = csv.DictWriter(out, NAMES, lineterminator="\n")
    rows.writeheader()
    rows.writerows(records)
    return out.getvalue()


def test_rows_are_excluded_by_lines_that_are_counted_over_stretches(monkeypatch, capsys):
    monkeypatch.setattr(stretches, "SIZE", 50)
    Path("raw.csv").write_text(as_csv(pairs(60)))
    sources = [f"raw.csv:{2 + 2 * number}" for number in (0, 7, 33, 59)]
    lines = "".join(json.dumps({"source": source}) + "\n" for source in sources)
    Path("rows.jsonl").write_text(lines)
    assert main(["raw.csv", "-o", "out", "--exclude-rows", "rows.jsonl", "--workers", "1"]) == 0
    rejects = [json.loads(line) for line in Path("out/rejects.jsonl").read_text().splitlines()]
    assert [(reject["reason"], reject["raw"]["prompt"]) for reject in rejects] == [
        ("excluded", f"P{number}") for number in (0, 7, 33, 59)
    ]
    capsys.readouterr()


def repeating(name):
    """A file of many stretches in which the last records are duplicates; its bytes."""
    records = [*pairs(30), *pairs(3)]
    text = as_csv(records) if name == "raw.csv" else "".join(json.dumps(r) + "\n" for r in records)
    data = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    Path(name).write_bytes(data)
    return data


def happening(monkeypatch, where, name, what):
    """Something happens each time when this function has done its work."""
    plain = getattr(where, name)

    def followed(*arguments, **named):
        done = plain(*arguments, **named)
        what()
        return done

    monkeypatch.setattr(where, name, followed)


def refused(capsys, name):
    assert main([name, "-o", "out", "--workers", "1"]) in (1, 2)
    assert sorted(os.listdir()) in ([name], [])
    return capsys.readouterr().err.removeprefix("convert: ")


@pytest.mark.parametrize("name", ["raw.csv", "raw.jsonl", "raw.jsonl.gz"])
def test_a_file_that_grows_while_it_is_read_is_refused(monkeypatch, capsys, name):
    monkeypatch.setattr(stretches, "SIZE", 500)
    data = repeating(name)
    grown = data + (gzip.compress(b"\n") if name.endswith(".gz") else b"\n")
    happening(monkeypatch, first_pass, "run", lambda: Path(name).write_bytes(grown))
    assert refused(capsys, name) == (
        f"{name}: changed while it was read; convert it again once it is complete\n"
    )


@pytest.mark.parametrize("name", ["raw.csv", "raw.jsonl"])
def test_a_file_whose_duplicates_are_not_there_any_more_is_refused(monkeypatch, capsys, name):
    monkeypatch.setattr(stretches, "SIZE", 500)
    half = len(repeating(name)) // 2
    happening(monkeypatch, blocks.Inputs, "check_unchanged", lambda: os.truncate(name, half))
    assert refused(capsys, name) == f"{name}: changed while it was read; convert it again\n"


@pytest.mark.parametrize("name", ["raw.csv", "raw.jsonl"])
def test_a_file_that_goes_while_it_is_read_is_refused_by_its_own_name(monkeypatch, capsys, name):
    monkeypatch.setattr(stretches, "SIZE", 500)
    gone = "cannot be read (No such file or directory)"
    again = "changed while it was read; convert it again"
    for where, what in (
        (first_pass, "run"),
        (blocks.Inputs, "sources"),
        (blocks.Inputs, "check_unchanged"),
    ):
        repeating(name)
        with monkeypatch.context() as patch:
            happening(patch, where, what, lambda: Path(name).unlink(missing_ok=True))
            assert refused(capsys, name).startswith((f"{name}: {gone}", f"{name}: {again}")), what


def test_a_cell_of_many_stretches_is_one_record(monkeypatch):
    monkeypatch.setattr(stretches, "SIZE", 100)
    monkeypatch.setattr(stretches, "_WINDOW", 64)
    huge = "line\n" * 20_000
    Path("raw.csv").write_text(as_csv([{"prompt": "P", "chosen": huge, "rejected": "R"}]))
    (item,) = chained("raw.csv", ahead=3)
    assert item.value["chosen"] == huge
    assert str(item.place) == "raw.csv:2"


@pytest.mark.parametrize(
    "row", ['"' + 20 * "a", '"' + 20 * "a" + '"x,C,R', 12 * '""' + "x", 12 * '"a""'], ids=str
)
def test_no_quote_makes_the_search_for_a_cut_crawl(monkeypatch, row):
    monkeypatch.setattr(stretches, "SIZE", 10)
    Path("raw.csv").write_text("prompt,chosen,rejected\nP,C,R\n" + f"{row}\n" * 3 + "P,C,R\n")
    start = time.process_time()
    found = list(chained("raw.csv"))
    assert found == whole("raw.csv")
    assert time.process_time() - start < 0.5

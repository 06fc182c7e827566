"""Files cut into blocks: the same records at the same locations as read from the start."""

import gc
import gzip
import json
import os
import re
import shutil
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from converting import convert
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading import in_an_empty_folder, items, read_in_blocks, run_python, spans  # noqa: F401

from data_tools import dedupe, pipeline
from data_tools.convert import main
from data_tools.readers import blocks
from data_tools.record import ConvertError, Record

HEADER = b"prompt,chosen,rejected\n"
MULTI_LINE = b'P,"C\n1,2,3\n4,5,6\n",R\n'


def assert_same_in_blocks(name, content, size):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = str(Path(folder, name))
        try:
            expected = items(path, content)
        except ConvertError as error:
            expected = str(error)
        patch.setattr(blocks, "SIZE", size)
        assert read_in_blocks(path) == expected
        for span, found in spans(path):
            records = {i.location.line: i.value for i in found if isinstance(i, Record)}
            assert blocks.read_again(span, sorted(records)) == records


@pytest.mark.parametrize("size", [1, 7, 40, 100, 1000])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("multi_line_cells.csv", HEADER + (b"a,b,c\n" + MULTI_LINE) * 9),
        ("stray_quotes.csv", HEADER + (b'5" pipe,b,c\n' + MULTI_LINE + b'x,"y" z,c\n') * 9),
        ("unclosed_quote.csv", HEADER + MULTI_LINE * 3 + b'p,"open,r\n' + MULTI_LINE * 3),
        ("quotes_on_every_row.csv", HEADER + b'x","\n' * 30),
        ("lone_cr.csv", HEADER.replace(b"\n", b"\r") + b'a,"b\rc",d\r' * 9 + b"e,f,g\n" * 9),
        ("crlf.csv", (HEADER + MULTI_LINE * 9).replace(b"\n", b"\r\n")),
        ("undecodable.csv", HEADER + (b"caf\xe9,b,c\n" + MULTI_LINE + b"\0,\xc3\xa9,c\n") * 9),
        ("ragged.csv", HEADER + (b"a\n" + MULTI_LINE + HEADER + b"\n \na,b,c,d\n") * 9),
        ("byte_order_mark.csv", b'\xef\xbb\xbf\na;"b\nc"\n' + b'a;"b\n;"\n' * 9),
        ("no_final_newline.tsv", b"a\tb\n" + b'1\t"2\n3"\n' * 9 + b"4\t5"),
        ("lines.jsonl", b'{"a": "\xc3\xa9"}\n \r\n[1]\n{"a": 1, "a": 2}\r{"b": 1e999}\n{}' * 9),
        ("unfinished.jsonl", b'{"a": "x\n{"a": 1\r\n{"a": 2}\n' * 9),
        (
            "undecodable.ndjson",
            b'\xef\xbb\xbf["\xe9"]\n2\n["\0"]\n' + b'["\xc3\xa9' * 99 + b"x\xe9\n",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_in_blocks_holds_the_same_records_at_the_same_locations(name, content, size):
    assert_same_in_blocks(name, content, size)


QUOTES = [b'"', b'"', b'""', b",", b",", b"\n", b"\n", b"\r\n", b"\r", b"a", b'"x\ny",z\n', b"\xff"]
LINES = [b'{"a": 1}', b'{"a": "x', b'"\\ud800"', b"[", b"\xff", b"\0", b"\n", b"\n", b"\r\n", b"\r"]


@settings(max_examples=400, deadline=None)
@example([b'a","', b"\n"] * 30, 7)
@example([b'"\n\na","\n"x'], 1)
@given(st.lists(st.sampled_from([*QUOTES, b" ", b"b,c\n", b"\0"]), max_size=80), st.integers(1, 60))
def test_any_table_in_blocks_holds_the_same_records_at_the_same_locations(pieces, size):
    assert_same_in_blocks("f.csv", b"a,b\n" + b"".join(pieces), size)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=40), st.integers(1, 60))
def test_any_lines_in_blocks_hold_the_same_records_at_the_same_locations(pieces, size):
    assert_same_in_blocks("f.jsonl", b"{}\n" + b"".join(pieces), size)


def test_spans_follow_one_another_and_know_their_first_line(monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", 30)
    data = b"\xef\xbb\xbf" + HEADER + b"".join(b"p%d,c,r\r\n" % number for number in range(40))
    Path("f.csv").write_bytes(data)
    first = blocks.first_span("f.csv", None)
    assert (first.start, first.stop, first.first_line) == (26, 26, 2)
    assert first.head.names == ("prompt", "chosen", "rejected")
    found = list(blocks.cut(first))
    assert len(found) > 5
    assert (found[0].start, found[-1].stop) == (26, len(data))
    assert all(one.stop == other.start for one, other in pairwise(found))
    assert all(span.first_line == 1 + data[: span.start].count(b"\n") for span in found)
    assert list(blocks.cut(found[2])) == found[3:]


def test_a_file_that_only_reads_from_its_start_has_no_spans():
    for name, content, encoding in (
        ("f.json", b'{"a": 1}\n', None),
        ("f.jsonl.gz", gzip.compress(b'{"a": 1}\n'), None),
        ("f.csv", b"a,b\n", "cp1252"),
        ("f.csv", "a,b\n".encode("utf-16"), None),
    ):
        Path(name).write_bytes(content)
        assert blocks.first_span(name, encoding) is None


def test_the_stop_of_a_span_is_where_its_last_record_ends(monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", 20)
    inner = "\n".join(["x,y,z"] * 8)
    Path("f.csv").write_text(f'prompt,chosen,rejected\n5",x,y\nP,"é{inner}",R\nQ,C,R\n')
    cut, *others = blocks.cut(blocks.first_span("f.csv", None))
    assert cut.stop < 23 + len(inner) and others  # the stray quote hides that a cell is open
    found, stop = blocks.read_span(cut)
    assert [item.value["prompt"] for item in found] == ['5"', "P"]
    assert stop == Path("f.csv").read_bytes().index(b"Q,C,R")
    (rest,) = blocks.cut(replace(cut, stop=stop))
    assert (rest.start, rest.first_line) == (stop, 11)


@pytest.mark.parametrize("row", ['x","\n', '"open\n', '"a"x,"\n', 'x,y\n"'])
def test_quotes_that_are_not_closed_do_not_slow_cutting_and_reading_down(row, monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", 20_000)
    Path("f.csv").write_text("a,b\n" + row * 40_000)
    start = time.process_time()
    assert len(read_in_blocks("f.csv")) >= 40_000
    assert time.process_time() - start < 5


def test_no_file_is_left_open_after_a_block_whose_last_row_is_broken(monkeypatch):
    monkeypatch.setattr(blocks, "SIZE", 1)
    Path("f.csv").write_text('a,b\n5",x\n1,"open\n2,3"x\n4,5\n6,7\n')
    before = os.listdir("/dev/fd")
    gc.disable()
    try:
        read_in_blocks("f.csv")
        assert os.listdir("/dev/fd") == before
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("f.csv", "a,b\n1,2\n3,4\n", ("a,b\n1,2\n", 'a,b\n1,2\n"3,\n', "")),
        ("f.jsonl", '{"a": 1}\n{"a": 2}\n', ('{"a": 1}\n', '{"a": 1}\n[[[[[[[[\n', "")),
    ],
)
def test_records_are_read_again_by_their_lines_unless_the_file_has_changed(name, before, after):
    def write(text):
        Path(name).write_text(text)
        os.utime(name, (0, 0))  # so that the second that a change takes makes no difference

    write(before)
    found = {item.location.line: item.value for item in items(name)}
    (span,) = blocks.cut(blocks.first_span(name, None))
    assert blocks.read_again(span, list(found)) == found
    for text in after:
        write(text)
        with pytest.raises(ConvertError) as caught:
            blocks.read_again(span, list(found))
        assert str(caught.value).startswith(f"{name}: changed while it was read; convert it again")
        assert caught.value.status == 1


def convert_and_remove():
    """All that a conversion writes, the shards as their rows, or its error; then remove it."""
    try:
        done = convert(("f.csv",), "out", format="preference", test_size=0.3, workers=1)
    except ConvertError as error:
        return str(error)
    found = {"figures": done.figures, "rejects": Path(done.rejects).read_bytes(), "rows": []}
    for path in sorted(Path("out").glob("*/*.arrow")):
        found["rows"] += pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
    Path(done.rejects).unlink()
    shutil.rmtree("out", ignore_errors=True)
    assert os.listdir() == ["f.csv"]
    return found


ROWS = [b"p,c,r\n", b"p,c,r\n", b"p,r,c\n", b"q,d,s\n", b'5",d,s\n', MULTI_LINE, b'P,"C\n1",R\n']


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*ROWS, b'"', b"\xff", b"x\n"]), min_size=9), st.integers(10, 60))
def test_a_conversion_in_blocks_writes_what_one_block_does(rows, size):
    Path("f.csv").write_bytes(HEADER + b"o,a,b\n" + b"".join(rows))
    expected = convert_and_remove()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "SIZE", size)
        assert convert_and_remove() == expected
    kept = {row["source"] for row in expected["rows"]}
    rejected = {json.loads(line)["record"] for line in expected["rejects"].splitlines()}
    for item in items("f.csv"):
        assert (str(item.location) in kept) != (item.location.record in rejected)


def test_long_records_of_a_compressed_file_are_held_a_few_at_a_time():
    record = json.dumps({"prompt": "P", "chosen": "long " * 80_000, "rejected": "R"})
    Path("f.jsonl.gz").write_bytes(gzip.compress(f"{record}\n".encode() * 250, 1))  # 100 MB inside
    code = (
        "from data_tools.convert import main\n"
        "main(['f.jsonl.gz', '--check', '--workers', '1'])\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    _, kilobytes, _ = run_python(code).strip().splitlines()[-1].split()
    assert int(kilobytes) < 600_000


@pytest.mark.parametrize("name", ["f.csv", "f.jsonl", "f.jsonl.gz"])
@pytest.mark.parametrize("change", ["grow", "shrink", "remove"])
@pytest.mark.parametrize(("where", "function"), [(pipeline, "read_excluded"), (dedupe, "dedupe")])
def test_a_file_that_changes_before_it_is_read_again_is_an_error(
    name, change, where, function, monkeypatch, capsys
):
    """The functions are called just before the first pass, and between it and the second."""
    values = [{"prompt": f"P{number % 30}", "chosen": "C", "rejected": "R"} for number in range(33)]
    if name == "f.csv":
        data = HEADER + "".join(",".join(value.values()) + "\n" for value in values).encode()
    else:
        data = "".join(json.dumps(value) + "\n" for value in values).encode()
    data = gzip.compress(data) if name.endswith(".gz") else data
    changes = {
        "grow": lambda: Path(name).write_bytes(data + data),
        "shrink": lambda: os.truncate(name, len(data) // 2),
        "remove": lambda: Path(name).unlink(),
    }
    original = getattr(where, function)

    def with_change(*arguments):
        result = original(*arguments)
        changes[change]()
        return result

    Path(name).write_bytes(data)
    monkeypatch.setattr(blocks, "SIZE", 500)
    monkeypatch.setattr(where, function, with_change)
    assert main([name, "-o", "out", "--workers", "1"]) in (1, 2)
    assert re.match(
        f"convert: {name}: (changed while it was read; convert it again once it is complete|"
        "the compressed file breaks off or is damaged|cannot be read .No such file or directory)",
        capsys.readouterr().err,
    )
    assert not Path("out").exists()

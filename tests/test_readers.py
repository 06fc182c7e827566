"""Files: the reader by the ending, what is refused by name, and any bytes at all."""

import gzip
import io
import os
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools import readers
from data_tools.readers.text import open_text
from data_tools.record import ConvertError, Raw, Reject

LINES = b'{"a": 1}\n{"a": 2}\n'


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(name, content=None, **options):
    """(line, value) or (line, reason) of every record of a file with this name and content."""
    if content is not None:
        Path(name).write_bytes(content)
    return [
        (item.place.line, item.value if isinstance(item, Raw) else item.fault.reason)
        for item in readers.read(name, **options)
    ]


def refusal(name, content=None, **options):
    """The message with which the file is refused, whether it is found or read."""
    if content is not None:
        Path(name).write_bytes(content)
    with pytest.raises(ConvertError) as caught:
        for path in readers.find_inputs((name,)):
            read(path, **options)
    assert caught.value.status == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"a\n1\n2\n"),
        ("a.tsv", b"a\n1\n2\n"),
        ("a.json", b'[\n{"a": "1"},\n{"a": "2"}]'),
        ("a.jsonl", b'\n{"a": "1"}\n{"a": "2"}'),
        ("a.ndjson", b'\n{"a": "1"}\n{"a": "2"}'),
        ("A.JSONL", b'\n{"a": "1"}\n{"a": "2"}'),
    ],
)
def test_the_ending_names_the_syntax_plain_and_gzipped(name, content):
    wanted = [(2, {"a": "1"}), (3, {"a": "2"})]
    assert read(name, content) == wanted
    assert read(f"{name}.gz", gzip.compress(content)) == wanted


def test_gzip_members_one_after_the_other_are_one_file():
    assert len(read("a.jsonl.gz", gzip.compress(LINES) + gzip.compress(LINES))) == 4


def test_the_reader_finds_out_what_the_ending_does_not_say():
    notes = []
    read("a.json.gz", gzip.compress(LINES), notes=notes)
    assert notes == ["a.json.gz: read as JSON Lines, by its content"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_an_empty_file_has_no_records(name):
    assert read(name, b"") == []
    assert read(name, b"\xef\xbb\xbf") == []


def test_records_in_utf_16_are_read_by_their_mark():
    assert read("a.csv", "a,b\r\né,2\r\n".encode("utf-16")) == [(2, {"a": "é", "b": "2"})]
    assert read("a.json", '[\n{"a": "é"}]'.encode("utf-16")) == [(2, {"a": "é"})]
    assert read("b.json", '{"a": "é"}\n{"a": 2}'.encode("utf-16"))[1] == (2, {"a": 2})


def test_records_in_a_named_code_page_are_read():
    assert read("a.csv", b"a\ncaf\xe9\n", encoding="cp1252") == [(2, {"a": "café"})]
    assert read("a.csv") == [(2, "bad_encoding")]


def test_an_encoding_that_cannot_go_on_refuses_the_file():
    assert refusal("a.jsonl", LINES, encoding="utf-16") == (
        "a.jsonl: is not utf-16 (UTF-16 stream does not start with BOM); "
        "name the file's encoding with --encoding"
    )


def test_a_gzip_file_that_breaks_off_is_refused_with_how_far_it_went():
    records = b"".join(b'{"a": "%s"}\n' % os.urandom(30).hex().encode() for _ in range(3000))
    message = refusal("a.jsonl.gz", gzip.compress(records)[:-1000])
    assert message.startswith("a.jsonl.gz: the compressed file breaks off or is damaged after rec")
    assert int(message.split("after record ")[1].split()[0]) > 1000
    assert message.endswith("; fetch or compress it again")


def test_a_damaged_gzip_file_is_refused():
    content = bytearray(gzip.compress(LINES * 100))
    content[-6] ^= 1
    assert "CRC check failed" in refusal("a.jsonl.gz", bytes(content))


def test_what_is_not_what_its_ending_says_is_refused_by_name():
    assert refusal("a.jsonl.gz", LINES) == (
        "a.jsonl.gz: its ending says gzip, its content does not; rename it"
    )
    assert refusal("a.jsonl", gzip.compress(LINES)) == (
        "a.jsonl: its content is gzip; rename it to a.jsonl.gz"
    )
    assert refusal("a.csv", b"PK\x03\x04...") == (
        "a.csv: its content is a zip archive or spreadsheet, not what its ending says; export it"
    )
    assert refusal("a.json", b"PAR1...") == (
        "a.json: its content is Parquet, not what its ending says; export it"
    )


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.csv"])
def test_a_git_lfs_pointer_is_refused_by_name(name):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    assert refusal(name, pointer) == (
        f"{name}: this is a Git LFS pointer, not the data; run 'git lfs pull' at its source"
    )


def test_an_unknown_ending_is_refused_with_the_known_ones():
    assert refusal("a.txt", b"x") == (
        "a.txt: unknown ending; rename or export it to one of .csv .tsv .json .jsonl .ndjson, "
        "also with .gz"
    )


def test_a_path_that_does_not_exist_is_refused():
    assert refusal("no/such.csv") == (
        "no/such.csv: no such file; check the path (it is taken as given)"
    )


def test_a_pipe_is_refused_before_it_is_waited_for():
    os.mkfifo("a.jsonl")
    assert refusal("a.jsonl") == ("a.jsonl: is no regular file; pipe its content in and name it -")


def test_a_file_name_that_is_no_text_is_refused():
    assert refusal(os.fsdecode(b"a\xff.jsonl"), LINES) == (
        r"a\xff.jsonl: the name is not UTF-8, so it could not be written beside its records; "
        "rename it"
    )


def test_a_directory_stands_for_the_known_files_in_it_sorted():
    for name in ("d/b.csv", "d/a.jsonl.gz", "d/sub/c.json", "d/notes.txt", "d/.hidden.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")
    Path("z.csv").write_bytes(b"")
    assert readers.find_inputs(("z.csv", "d")) == [
        "z.csv",
        "d/a.jsonl.gz",
        "d/b.csv",
        "d/sub/c.json",
    ]


def test_a_directory_without_known_files_is_refused():
    Path("d").mkdir()
    assert refusal("d") == (
        "d: no preference files in this directory; known endings are "
        ".csv .tsv .json .jsonl .ndjson, also with .gz"
    )


def test_a_link_that_leads_nowhere_is_refused():
    Path("d").mkdir()
    Path("d/a.csv").symlink_to("gone.csv")
    assert refusal("d") == "d/a.csv: cannot be read (No such file or directory)"


def test_standard_input_is_json_lines_and_can_be_read_twice():
    copy = io.BytesIO(LINES)
    assert [readers.find_inputs(("-",)), read("-", stdin=copy)] == [
        ["-"],
        [(1, {"a": 1}), (2, {"a": 2})],
    ]
    assert len(read("-", stdin=copy)) == 2


@pytest.mark.parametrize(
    ("path", "stem"),
    [("x/pairs.csv.gz", "pairs"), ("a.b.jsonl", "a.b"), ("x/dir/", "dir"), ("dir.v2", "dir.v2")],
)
def test_the_stem_is_the_name_without_its_known_endings(path, stem):
    assert readers.stem_of(path) == stem


PIECES = st.sampled_from(
    [b'{"a": 1}', b"[", b"]", b"{", b"}", b'"', b",", b"\n", b"\r", b"\r\n", b"\\u0000", b"\\ud800"]
    + [b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"a", b"\t", b":", b"1.5e", b"NaN", b" ", b";"]
)
CONTENTS = st.binary(max_size=60) | st.lists(PIECES, max_size=30).map(b"".join)
ENCODINGS = st.sampled_from([None, "utf-16", "utf-8-sig", "cp1252", "utf-7", "idna", "shift_jis"])


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(list(readers.SYNTAXES)), content=CONTENTS, encoding=ENCODINGS)
def test_no_bytes_end_in_anything_but_records_rejects_or_one_clear_line(name, content, encoding):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"f{name}")
        Path(path).write_bytes(content)
        try:
            items = list(readers.read(path, encoding))
        except ConvertError as error:
            assert error.status == 2
            assert len(str(error).splitlines()) == 1
            return
    assert [item.place.record for item in items] == list(range(1, len(items) + 1))
    with open_text(io.BytesIO(content), encoding) as text:
        lines = re.split("\r\n|\r|\n", text.read())
    places = [item.place.line for item in items]
    assert all(lines[line - 1].strip() for line in places)
    if name in (".jsonl", ".ndjson"):
        assert places == [i for i, line in enumerate(lines, start=1) if line.strip()]


def test_what_this_command_wrote_into_a_directory_is_not_read_as_its_input(tmp_path):
    from data_tools.readers import find_inputs

    (tmp_path / "raw.csv").write_text("prompt,chosen,rejected\n", encoding="utf-8")
    (tmp_path / "out.rejects.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "out").mkdir()
    for name in ("report.json", "rejects.jsonl", "train.jsonl"):
        (tmp_path / "out" / name).write_text("{}\n", encoding="utf-8")
    assert find_inputs((str(tmp_path),)) == [str(tmp_path / "raw.csv")]


def test_a_header_row_that_stands_again_is_no_record(tmp_path):
    text = "prompt,chosen,rejected\na,b,c\nprompt,chosen,rejected\nd,e,f\n"
    (tmp_path / "joined.csv").write_text(text, encoding="utf-8")
    items = list(readers.read(str(tmp_path / "joined.csv")))
    assert [type(item) for item in items] == [Raw, Reject, Raw]
    assert (items[1].place.line, items[1].fault.reason) == (3, "wrong_type")
    assert items[1].fault.detail.startswith("the header row stands here again")

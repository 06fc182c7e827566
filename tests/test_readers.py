"""Input files: which are found, how their bytes become text, and what their readers note."""

import gzip
import io
import os
import re
from pathlib import Path

import pytest
from reading import (  # noqa: F401
    LINES,
    PACKED,
    in_an_empty_folder,
    items,
    notes,
    peak_memory,
    read,
    refusal,
    rejects,
)

from data_tools import readers
from data_tools.record import ConvertError

KNOWN = (
    ".csv .tsv .json .jsonl .ndjson .parquet .arrow .xlsx, "
    "the text ones also with .gz .zst .bz2 .xz, or .zip of these"
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "a\n1\n2\n"),
        ("a.tsv", "a\n1\n2\n"),
        ("a.json", '[\n{"a": "1"},\n{"a": "2"}]'),
        ("a.jsonl", '\n{"a": "1"}\n{"a": "2"}'),
        ("A.NDJSON", '\n{"a": "1"}\n{"a": "2"}'),
    ],
)
def test_the_ending_names_the_syntax_plain_and_compressed(name, content):
    expected = [(2, {"a": "1"}), (3, {"a": "2"})]
    assert read(name, content) == expected
    for ending, pack in PACKED.items():
        assert read(f"{name}{ending}", pack(content.encode())) == expected
        assert readers.syntax_of(f"{name}{ending}") == os.path.splitext(name.lower())[1]


@pytest.mark.parametrize("ending", ["", *PACKED])
def test_a_record_over_several_lines_has_the_line_where_it_starts(ending):
    for name, content in (
        (f"a.csv{ending}", b'a,b\r\n"x\r\n\r\ny",1\r\nz,2\r\n'),
        (f"a.json{ending}", b'[\n {\n  "a": 1\n },\n {\n  "a": 2\n }\n]'),
    ):
        found = items(name, PACKED[ending](content) if ending else content)
        assert [str(item.location) for item in found] == [f"{name}:2", f"{name}:5"]
        assert [item.location.record for item in found] == [1, 2]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.json", "a.jsonl"])
def test_a_file_without_records_is_noted(name):
    assert read(name, b"") == []
    for content in (b"", b"\xef\xbb\xbf", b"\n \n"):
        assert notes(name, content) == [f"{name}: has no records"]


@pytest.mark.parametrize("ending", ["", *PACKED])
def test_the_position_is_how_many_bytes_of_the_file_on_disk_were_read(ending):
    name, content = f"a.csv{ending}", b"a\n" + os.urandom(500_000).hex().encode() + b"\nlast\n"
    Path(name).write_bytes(PACKED[ending](content) if ending else content)
    reader = readers.FileReader(name)
    assert reader.position == 0
    assert [reader.position for _ in reader][0] > 400_000


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_file_is_read_once_where_its_content_decides_the_syntax(ending):
    name = f"a.json{ending}"
    assert len(read(name, PACKED[ending](LINES * 30_000))) == 60_000
    assert notes(name) == [f"{name}: read as JSON Lines, by its content"]


@pytest.mark.parametrize("ending", PACKED)
def test_a_compressed_file_that_breaks_off_is_refused_with_the_last_record(ending):
    lines = b"".join(b'{"a": "%s"}\n' % os.urandom(30).hex().encode() for _ in range(9000))
    name, packed = f"a.jsonl{ending}", PACKED[ending](lines)
    message = (
        rf"{name}: the compressed file breaks off or is damaged after record (\d+) \(.+\); "
        "fetch or compress it again"
    )
    for content in (packed[:-1], packed[:-1000], packed + packed[:20]):
        assert int(re.fullmatch(message, refusal(name, content))[1]) > 5000


def test_a_named_pipe_is_refused_without_waiting_for_it():
    os.mkfifo("a.jsonl")
    assert refusal("a.jsonl") == "a.jsonl: is no regular file; pipe its content in and name it -"


@pytest.fixture
def read_standard_input(monkeypatch):
    def read_twice(content):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        ((path, place),) = readers.find_inputs(("-",), ".").items()
        return read(path, place=place) + read(path, place=place)

    return read_twice


def test_standard_input_is_json_lines_and_can_be_read_twice(read_standard_input):
    assert read_standard_input(LINES) == [(1, {"a": 1}), (2, {"a": 2})] * 2


def test_standard_input_of_another_kind_is_refused(read_standard_input):
    for content, message in (
        (gzip.compress(LINES), "that of a .gz file; standard input is JSON Lines, so name .*"),
        (b"[\n1]", "a JSON array; save it as a .json file"),
    ):
        with pytest.raises(ConvertError, match=f"^-: its content is {message}$"):
            read_standard_input(content)


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_decides_the_encoding_whatever_ends_the_lines(mark, encoding, end):
    def marked(*lines):
        return mark + end.join(lines).encode(encoding)

    assert read("a.csv", marked("a,b", "é,2", "")) == [(2, {"a": "é", "b": "2"})]
    assert read("a.json", marked("[", '{"a": "é"}]')) == [(2, {"a": "é"})]
    for name in ("a.jsonl", "b.json"):
        assert read(name, marked('{"a": "é"}', '{"a": 2}')) == [(1, {"a": "é"}), (2, {"a": 2})]


def test_utf_16_that_breaks_off_within_a_character_rejects_its_last_record_only():
    content = '{"a": 1}\n{"a": 2}'.encode("utf-16")
    assert read("a.jsonl", content + b"\n") == [(1, {"a": 1}), (2, "bad_encoding")]
    content = "a,b\n1,2\n3,4".encode("utf-16")
    assert read("a.csv", content + b"x") == [(2, {"a": "1", "b": "2"}), (3, "bad_encoding")]


def test_a_csv_in_another_encoding_is_read_once_the_encoding_is_named():
    content = "Frage;Antwort\r\nWie spät ist es jetzt?;5 €\r\nwhy;so\r\n".encode("cp1252")
    assert read("a.csv", content, encoding="cp1252") == [
        (2, {"Frage": "Wie spät ist es jetzt?", "Antwort": "5 €"}),
        (3, {"Frage": "why", "Antwort": "so"}),
    ]
    assert notes("a.csv", encoding="cp1252") == ["a.csv: cells are separated by semicolons"]
    assert rejects("a.csv") == [
        (
            2,
            "bad_encoding",
            r"the row holds bytes that do not decode (near 'Wie sp\\xe4t ist es je'); name the "
            "file's encoding with --encoding, e.g. cp1252 or utf-16-le",
            r"Wie sp\xe4t ist es jetzt?;5 \x80",
        )
    ]


def test_a_byte_that_the_named_encoding_does_not_define_rejects_its_record():
    content = b'{"a": "\x81"}\n{"a": "\x80"}\n'
    assert read("a.jsonl", content, encoding="cp1252") == [(1, "bad_encoding"), (2, {"a": "€"})]


@pytest.mark.parametrize("name", ["utf-9", "hex", "rot13", "base64", "utf\0"])
def test_an_encoding_that_is_none_of_text_is_refused_with_examples(name):
    assert refusal("a.jsonl", LINES, encoding=name) == (
        f"--encoding {name}: no such encoding; examples: utf-8, utf-16, cp1252, latin-1"
    )


def test_an_encoding_that_does_not_fit_the_file_is_refused():
    assert refusal("a.jsonl", b"\xef\xbb\xbf" + LINES, encoding="cp1252") == (
        "--encoding cp1252: the file begins with the BOM of UTF-8, so it is not cp1252; "
        "remove the option"
    )
    assert refusal("a.jsonl", LINES, encoding="utf-16") == (
        "a.jsonl: is not utf-16 (UTF-16 stream does not start with BOM); "
        "name the file's encoding with --encoding"
    )


def test_a_path_that_cannot_be_read_is_refused():
    Path("d").mkdir()
    missing = "no such file; check the path (it is taken as given)"
    assert refusal("no/such.csv") == f"no/such.csv: {missing}"
    fix = f"rename, decompress or export it to one of {KNOWN}"
    assert refusal("a.txt", b"x") == f"a.txt: unknown ending; {fix}"
    assert refusal("d") == f"d: holds no preference files; known endings are {KNOWN}"
    Path("d/a.csv").symlink_to("missing.csv")
    assert refusal("d") == f"d/a.csv: {missing}"
    assert refusal(os.fsdecode(b"a\xff.jsonl"), LINES) == (
        r"a\xff.jsonl: the name is not UTF-8, so it could not be stored with its records; rename it"
    )


def touch(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_a_directory_gives_the_known_files_in_it_sorted():
    touch("z.csv", "d/b.csv", "d/a.jsonl.gz", "d/sub/c.json", "d/sub/d.parquet.zst")
    touch("d/notes.txt", "d/.hidden.csv", "d/.git/x.json", "d/sub/.a/b/y.csv", "d/.csv")
    found = readers.find_inputs(("z.csv", "d"))
    assert [*found] == ["z.csv", "d/a.jsonl.gz", "d/b.csv", "d/sub/c.json"]
    assert [*readers.find_inputs(("d/.git",))] == ["d/.git/x.json"]  # hidden, but named itself


def test_what_this_command_wrote_into_a_directory_is_not_read_as_its_input():
    touch("d/raw.csv", "d/out.rejects.jsonl", "d/out/report.json", "d/out/rejects.jsonl")
    touch("d/out/train.jsonl", "d/out/train/0.parquet")
    assert [*readers.find_inputs(("d",))] == ["d/raw.csv"]


def test_a_file_named_twice_is_read_once_in_its_first_spelling():
    touch("d/a.csv", "d/b.csv")
    Path("link.csv").symlink_to("d/a.csv")
    given = ("d/b.csv", "./d/b.csv", "d", "link.csv", "d/")
    assert [*readers.find_inputs(given)] == ["d/b.csv", "d/a.csv"]


def test_the_stem_is_the_name_without_its_known_endings():
    paths = ("x/pairs.csv.gz", "Pairs.JSON.zst", "a.b.jsonl", "x/dir/", "dir.v2")
    assert [readers.stem_of(path) for path in paths] == ["pairs", "Pairs", "a.b", "dir", "dir.v2"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_line_of_100_mb_takes_at_most_five_times_its_size(name):
    lines = [b'{"a": "' + b"long line " * 10_000_000 + b'"}', b'{"a": 1}']
    content = b"\n".join(lines) if name == "a.jsonl" else b"[" + b",\n".join(lines) + b"]"
    Path(name).write_bytes(content)
    assert peak_memory(name) < 5 * len(content)

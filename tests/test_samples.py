"""Sample files: each of tests/good converts whole, each of tests/bad as in expected.json.

An entry of expected.json holds the exit `status`, the number of rejects by reason, a part of the
`message` of the error or of the first reject, its `line`, and the `options` where there are any.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest
from converting import convert
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import PACKED, items

from data_tools import readers
from data_tools.readers import json_records, parquet
from data_tools.record import REASONS, ConvertError

GOOD, BAD = (Path(__file__).parent / folder for folder in ("good", "bad"))
EXPECTED = json.loads((BAD / "expected.json").read_text("utf-8"))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "expected.json")


@pytest.mark.parametrize("name", names(GOOD))
def test_a_good_sample_converts_whole(name, convert_file):
    done = convert_file((GOOD / name).read_bytes(), name=name)
    assert (done.status, done.rejects, done.err) == (0, [], "")
    assert done.report["records"]["read"] == done.report["records"]["converted"] > 0
    assert len(done.rows) == done.report["pairs"]["kept"] > 0


@pytest.mark.parametrize("name", [name for name in names(GOOD) if name.startswith("any_text")])
def test_the_same_texts_are_read_from_every_syntax(name, convert_file):
    done = convert_file((GOOD / name).read_bytes(), name=name)
    values = [json.loads(line) for line in (GOOD / "any_text.jsonl").read_text().splitlines()]
    assert [{field: row[field] for field in values[0]} for row in done.rows] == values
    locations = [item.location for item in items(name)]
    assert [row["source"] for row in done.rows] == list(map(str, locations))
    has_lines = not name.endswith((".parquet", ".arrow", ".xlsx"))
    assert all((location.line is not None) == has_lines for location in locations)


@pytest.mark.parametrize("name", names(BAD))
def test_a_bad_sample_is_refused_or_rejected_as_expected(name, convert_file):
    expected = EXPECTED[name]
    done = convert_file((BAD / name).read_bytes(), *expected.get("options", ()), name=name)
    reasons = [reject["reason"] for reject in done.rejects]
    assert done.status == expected["status"]
    assert {reason: reasons.count(reason) for reason in reasons} == expected["reasons"]
    if done.rejects:
        assert done.rejects[0]["line"] == expected["line"]
        assert expected["message"] in done.rejects[0]["detail"]
    else:
        assert len(done.err.splitlines()) == 1
        assert expected["message"] in done.err
        assert expected["line"] is None or f"{name}:{expected['line']}: " in done.err
        assert not done.directory.exists()


def test_every_bad_sample_has_an_entry_and_every_reason_and_syntax_a_sample():
    assert names(BAD) == sorted(EXPECTED)
    assert all(entry["message"] for entry in EXPECTED.values())
    assert {reason for entry in EXPECTED.values() for reason in entry["reasons"]} == set(REASONS)
    for folder in (GOOD, BAD):
        endings = {name.partition(".")[2] for name in names(folder)}
        assert {"csv", "tsv", "json", "jsonl", "ndjson", "parquet", "arrow", "xlsx"} <= endings
        assert {"csv.gz", "jsonl.zst"} <= endings


PIECES = {".json": (json_records, "_CHUNK", 3), ".parquet": (parquet, "_ROWS", 2)}
SAMPLES = [path for path in sorted([*GOOD.iterdir(), *BAD.iterdir()]) if path.suffix in PIECES]


def found_in(path):
    try:
        return items(str(path))
    except ConvertError as error:
        # The batch size decides how far a damaged Parquet file is read.
        return "damaged" if path.suffix == ".parquet" else str(error)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.name)
def test_a_sample_read_in_smaller_pieces_gives_the_same_records(path, monkeypatch):
    expected = found_in(path)
    monkeypatch.setattr(*PIECES[path.suffix])
    assert found_in(path) == expected


BYTES = st.sampled_from(
    [b'{"prompt": "p", "chosen": "c", "rejected": "r"}', b"prompt,chosen,rejected\n", b"p,c,r\n"]
    + [b"prompt\tchosen\trejected\n", b"p\tc\tr", b"[", b"]", b"{", b"}", b'"', b",", b"\n", b"\r"]
    + [b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"\\ud800", b"NaN", b" ", b";", b"PK\x03\x04"]
)
CONTENTS = st.binary(max_size=60) | st.lists(BYTES, max_size=20).map(b"".join)
ENDINGS = st.sampled_from([*readers.ENDINGS, *[".parquet", ".arrow", ".xlsx"] * 5])
ENCODINGS = st.sampled_from([None] * 6 + ["utf-16", "cp1252", "utf-7", "idna", "shift_jis"])


@settings(max_examples=300, deadline=None)
@given(CONTENTS, ENDINGS, st.booleans(), st.integers(0), ENCODINGS)
def test_any_bytes_under_any_ending_add_up_or_are_refused_in_one_line(
    content, ending, in_a_sample, at, encoding
):
    if in_a_sample:
        syntax, compression = os.path.splitext(ending) if ending.count(".") > 1 else (ending, "")
        sample = (GOOD / f"any_text{syntax}").read_bytes()
        at %= len(sample)
        content = sample[:at] + content + sample[at + len(content) :]
        content = PACKED[compression](content) if compression else content
    with tempfile.TemporaryDirectory() as folder:
        raw, out = Path(folder, f"raw{ending}"), Path(folder, "out")
        raw.write_bytes(content)
        more = {"format": "preference", "encoding": encoding, "workers": 1}
        try:
            done = convert((str(raw),), str(out), **more)
        except ConvertError as error:
            assert error.status in (1, 2)
            assert len(str(error).splitlines()) == 1
            assert os.listdir(folder) == [raw.name]
            return
        found = done.figures
        rejects = [json.loads(line) for line in Path(done.rejects).read_bytes().splitlines()]
        locations = [item.location for item in items(str(raw), encoding=encoding)]
    counts, pairs = found["records"], found["pairs"]
    assert counts["read"] == counts["converted"] + counts["rejected"] == len(locations)
    assert pairs["made"] == pairs["kept"] + pairs["rejected"]
    assert sum(found["reasons"].values()) == len(rejects)
    assert {reject["reason"] for reject in rejects} <= set(REASONS)
    assert [location.record for location in locations] == list(range(1, len(locations) + 1))
    lines = [location.line or 0 for location in locations]
    assert lines == sorted(lines)

"""What inputs stand for: saved datasets, Arrow files and archives."""

import io
import json
import re
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from converting import convert
from reading import (  # noqa: F401
    in_an_empty_folder,
    items,
    lines,
    refusal,
    rejects,
    sources,
)

from data_tools import readers

SIDES = {"prompt": ["P1", "P2"], "chosen": ["C1", "C2"], "rejected": ["R1", "R2"]}


def arrow(path, columns=SIDES, new=pa.ipc.new_stream, rows=None):
    table = pa.table(columns)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with new(str(path), table.schema) as writer:
        writer.write_table(table, rows)


def saved(folder, *columns, order=None):
    """A directory as `Dataset.save_to_disk` writes it, with one shard for each set of columns."""
    names = order or [f"data-{n:05d}-of-{len(columns):05d}.arrow" for n in range(len(columns))]
    for name, shard in zip(names, columns, strict=True):
        arrow(Path(folder, name), shard)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    Path(folder, "state.json").write_text(json.dumps(state))
    Path(folder, "dataset_info.json").write_text('{"citation": "", "features": {}}')


def zipped(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


# Arrow files and saved datasets.


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_an_arrow_file_or_stream_is_read_row_by_row(new):
    columns = {"a": list(range(1200)), "b": [b"\xff", *[None] * 1199]}
    arrow("a.arrow", columns, new, rows=700)
    found = items("a.arrow")
    assert [(str(i.location), i.value["a"]) for i in found] == [
        (f"a.arrow#{n + 1}", n) for n in range(1200)
    ]
    assert (found[0].location.line, found[0].value["b"]) == (None, {"base64": "/w=="})


@pytest.mark.parametrize("new", [pa.ipc.new_stream, pa.ipc.new_file])
def test_an_arrow_file_that_breaks_off_is_refused(new):
    arrow("a.arrow", {"a": ["x" * 50] * 3000}, new, rows=1000)
    content = Path("a.arrow").read_bytes()
    for size in (len(content) - 8, len(content) // 2, 100, 9):
        message = refusal("a.arrow", content[:size])
        assert message.startswith("a.arrow: the Arrow file breaks off or is damaged after record")
        assert message.endswith("; fetch or export it again")
    assert "its content does not" in refusal("a.arrow", b"text")
    assert refusal("a.csv", content) == (
        "a.csv: its content is that of a .arrow file; rename it to .arrow"
    )


def test_a_string_of_an_arrow_file_that_is_no_text_rejects_its_own_row():
    offsets, data = b"\0\0\0\0\3\0\0\0\4\0\0\0", b"\xed\xa0\x80a"
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    arrow("a.arrow", {"a": pa.Array.from_buffers(pa.string(), 2, buffers)})
    assert [reject[1] for reject in rejects("a.arrow")] == ["bad_encoding"]
    assert items("a.arrow")[1].value == {"a": "a"}


def test_a_saved_dataset_is_read_shard_by_shard_as_its_state_lists_them():
    saved("d", {"a": [1, 2]}, {"a": [3]}, order=["z.arrow", "b.arrow"])
    arrow("d/cache-0123.arrow", {"a": [9]})  # as `map` leaves next to them
    assert [*readers.find_inputs(("d",))] == ["d/z.arrow", "d/b.arrow"]
    assert [item.value["a"] for path in readers.find_inputs(("d/",)) for item in items(path)] == [
        *(1, 2, 3)
    ]


def test_a_saved_dataset_converts_alone_and_inside_a_directory():
    saved("in/d", SIDES)
    Path("in/more.jsonl").write_text(lines(7))
    assert sources("in/d") == {
        "in/d/data-00000-of-00001.arrow#1": "P1",
        "in/d/data-00000-of-00001.arrow#2": "P2",
    }
    assert [*sources("in")] == [
        *("in/d/data-00000-of-00001.arrow#1", "in/d/data-00000-of-00001.arrow#2"),
        "in/more.jsonl:1",
    ]


def test_what_datasets_itself_saves_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict(SIDES)
    data.save_to_disk("one", num_shards=2)
    assert [*sources("one").values()] == ["P1", "P2"]
    datasets.DatasetDict(train=data.select([0]), test=data.select([1])).save_to_disk("both")
    done = convert(["both"], "kept", keep_splits=True, workers=1)
    assert done.figures["splits"] == {"train": 1, "test": 1}


def test_a_saved_dataset_whose_shard_or_state_is_damaged_is_refused():
    saved("d", SIDES)
    Path("d/data-00000-of-00001.arrow").unlink()
    assert "d/data-00000-of-00001.arrow: no such file" in refusal("d")
    Path("d/state.json").write_text("{}")
    assert refusal("d").startswith("d/state.json: lists no files; save the dataset again")


@pytest.mark.parametrize("to", ["arrow", "jsonl", "parquet"])
def test_a_dataset_of_this_command_is_an_input_where_it_is_named_itself(to):
    Path("raw.jsonl").write_text(lines(1, 2) + lines(2))
    convert(["raw.jsonl"], "in/ours", test_size=0, to=to, workers=1)
    assert len(sources("in/ours")) == 2
    Path("in/more.jsonl").write_text(lines(3))
    assert [*sources("in")] == ["in/more.jsonl:1"]


# Archives.


def test_the_known_members_of_an_archive_are_read_as_files():
    table, sheet = io.BytesIO(), io.BytesIO()
    import openpyxl
    from pyarrow import parquet

    parquet.write_table(pa.table({k: [v[0] + "p"] for k, v in SIDES.items()}), table)
    book = openpyxl.Workbook()
    for row in ([*SIDES], ["Px", "Cx", "Rx"]):
        book.active.append(row)
    book.save(sheet)
    inner = io.BytesIO()
    zipped(inner, {"f.csv": "prompt,chosen,rejected\nPz,Cz,Rz\n"})
    members = {
        "b/rows.jsonl": lines(1),
        "e.zip": inner.getvalue(),
        "a.csv": "prompt,chosen,rejected\nPc,Cc,Rc\n",
        "c.parquet": table.getvalue(),
        "d.xlsx": sheet.getvalue(),
        **dict.fromkeys(("notes.txt", "__MACOSX/a.csv", ".b.csv", ".git/c.csv"), "x"),
    }
    zipped("raw.zip", members)
    expected = {
        "raw.zip/a.csv:2": "Pc",
        "raw.zip/b/rows.jsonl:1": "prompt1",
        "raw.zip/c.parquet#1": "P1p",
        "raw.zip/d.xlsx#1": "Px",
        "raw.zip/e.zip/f.csv:2": "Pz",
    }
    assert sources("raw.zip") == expected
    Path("dir").mkdir()
    shutil.move("raw.zip", "dir/raw.zip")
    assert sources("dir") == {f"dir/{source}": prompt for source, prompt in expected.items()}


def test_a_saved_dataset_in_an_archive_is_read_by_its_state():
    saved("d", SIDES)
    arrow("d/cache-1.arrow", {"a": [9]})
    zipped("d.zip", {str(path): path.read_bytes() for path in Path("d").iterdir()})
    assert [*sources("d.zip").values()] == ["P1", "P2"]


def test_the_dataset_of_an_archive_is_named_after_it():
    zipped("pairs.zip", {"a.jsonl": lines(1)})
    assert convert(["pairs.zip"], workers=1).output == "data/pairs"


def test_duplicates_in_an_archive_are_rejected_with_their_raw_record():
    zipped("a.zip", {"a.jsonl": lines(1, 1)})
    convert(["a.zip"], "out", workers=1)
    (reject,) = map(json.loads, Path("out/rejects.jsonl").read_text().splitlines())
    assert (reject["file"], reject["line"], reject["reason"]) == ("a.zip/a.jsonl", 2, "duplicate")
    assert reject["raw"]["prompt"] == "prompt1"


def test_archives_that_cannot_be_unpacked_are_refused_in_one_sentence():
    zipped("a.zip", {"a.jsonl": lines(*range(3000))})
    content = Path("a.zip").read_bytes()
    bad, locked, unknown = (bytearray(content) for _ in range(3))
    entry = content.rindex(b"PK\x01\x02")
    bad[2000] ^= 255
    unknown[8] = unknown[entry + 10] = 9
    locked[6] |= 1
    locked[entry + 8] |= 1
    fix = "fetch it again, or unpack it and convert its files"
    for damaged, why in (
        *((text, "File is not a zip file") for text in (b"", b"text", content[:-30])),
        (bytes(bad), ".*(CRC-32|Error -3|end-of-stream).*"),
        (bytes(locked), ".*a.jsonl.* is encrypted, password required for extraction"),
        (bytes(unknown), ".*compression.*not supported.*"),
    ):
        message = rf"a\.zip: the archive cannot be unpacked \({why}\); {fix}"
        assert re.fullmatch(message, refusal("a.zip", damaged))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_in_which_two_members_have_one_name_is_refused():
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a.jsonl", lines(1))
        archive.writestr("a.jsonl", lines(2))
    assert "cannot be unpacked (two members have one name)" in refusal("a.zip")


def test_what_was_unpacked_is_removed_again(tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    zipped("a.zip", {"a.jsonl": lines(1), "../b.jsonl": lines(2)})
    assert len(sources("a.zip")) == 2
    assert [*Path("temporary").iterdir()] == []


def test_an_archive_without_known_members_is_refused_and_in_a_directory_ignored():
    Path("d").mkdir()
    zipped("d/images.zip", {"a.png": "x"})
    assert refusal("d/images.zip").startswith(
        "d/images.zip: holds no preference files; known endings are .csv"
    )
    Path("d/a.jsonl").write_text(lines(1))
    assert [*readers.find_inputs(("d",), ".")] == ["d/a.jsonl"]


def test_an_archive_under_another_ending_is_named():
    zipped("a.zip", {"a.jsonl": lines(1)})
    assert refusal("a.csv", Path("a.zip").read_bytes()).endswith("a zip archive to .zip")

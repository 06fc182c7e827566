"""What is written, opened with `datasets` itself: the same rows, the same types, the same bytes."""

import json
from pathlib import Path

import datasets
import pytest

from data_tools import conversion, writer
from data_tools.convert import Options, convert
from data_tools.readers import stretches

STORES = ("arrow", "parquet", "jsonl")
CALLS = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": [None, "2"]}}}]
OTHER = [{"type": "function", "function": {"name": "g", "arguments": {"z": {"deep": True}}}}]


def pair(number, **more):
    return {"prompt": f"P{number}", "chosen": f"C{number}", "rejected": f"R{number}"} | more


def written(folder, records, **options):
    """A directory `out` in `folder`, converted from `records`."""
    folder.mkdir(exist_ok=True)
    raw = folder / "raw.jsonl"
    raw.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = {"inputs": (str(raw),), "output": str(folder / "out"), "test_size": 0.0} | options
    assert convert(Options(**options)).status == 0
    return folder / "out"


def opened(directory, to, cache):
    if to == "arrow":
        return datasets.load_from_disk(str(directory))
    return datasets.load_dataset(str(directory), cache_dir=str(cache))


def test_load_from_disk_opens_both_splits_in_place(tmp_path):
    directory = written(tmp_path, [pair(i) for i in range(40)], test_size=0.5)
    opened = datasets.load_from_disk(str(directory))
    assert list(opened) == ["train", "test"]
    assert opened.num_rows["train"] + opened.num_rows["test"] == 40
    for split in opened.values():
        assert split.column_names == ["prompt", "chosen", "rejected", "source"]
        assert all(feature == datasets.Value("string") for feature in split.features.values())
        assert all(Path(f["filename"]).is_relative_to(directory) for f in split.cache_files)
    found = sorted(
        (row for split in opened.values() for row in split), key=lambda row: int(row["prompt"][1:])
    )
    raw = tmp_path / "raw.jsonl"
    assert found == [pair(i, source=f"{raw}:{i + 1}") for i in range(40)]


@pytest.mark.parametrize("to", STORES)
def test_two_directories_of_one_name_each_open_their_own_rows(tmp_path, to):
    first = written(tmp_path / "a", [pair(1), pair(2), pair(1)], to=to)
    second = written(tmp_path / "b", [pair(3), pair(4)], to=to)
    cache = tmp_path / "cache"
    assert opened(first, to, cache)["train"]["prompt"][:] == ["P1", "P2"]
    assert opened(second, to, cache)["train"]["prompt"][:] == ["P3", "P4"]


@pytest.mark.parametrize("to", STORES)
def test_splits_open_under_their_names_and_nothing_else_with_them(tmp_path, to):
    records = [pair(i) for i in range(40)] + [pair(0), pair(50, chosen="")]
    directory = written(tmp_path, records, to=to, test_size=0.5)
    found = opened(directory, to, tmp_path / "cache")
    report = json.loads((directory / "report.json").read_text())
    assert found.num_rows == report["splits"]
    assert sum(report["splits"].values()) == 40


@pytest.mark.parametrize("to", STORES)
def test_a_split_without_rows_is_not_written(tmp_path, to):
    directory = written(tmp_path, [pair(1)], to=to)
    assert list(opened(directory, to, tmp_path / "cache")) == ["train"]
    assert not list(directory.glob("test*"))


@pytest.mark.parametrize("to", STORES)
def test_tool_calls_and_template_arguments_come_back_as_they_went_in(tmp_path, to):
    def user(text):
        return {"role": "user", "content": text}

    def assistant(text, **more):
        return {"role": "assistant", "content": text} | more

    records = [
        {
            "chosen": [user("a"), assistant(None, tool_calls=CALLS)],
            "rejected": [user("a"), assistant("no", name="bot")],
            "tools": [{"name": "f", "parameters": {}}],
            "chat_template_kwargs": {"enable_thinking": False},
        },
        {
            "chosen": [user("b"), assistant("x", tool_calls=OTHER)],
            "rejected": [user("b"), assistant("no")],
        },
    ]
    first, second = opened(written(tmp_path, records, to=to), to, tmp_path / "cache")["train"]
    none = {"name": None, "tool_calls": None}
    assert first["prompt"] == [user("a") | none]
    assert first["chosen"] == [assistant(None, tool_calls=CALLS, name=None)]
    assert first["rejected"] == [assistant("no", tool_calls=None, name="bot")]
    assert second["chosen"] == [assistant("x", tool_calls=OTHER, name=None)]
    assert (first["tools"], second["tools"]) == ('[{"name": "f", "parameters": {}}]', None)
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert second["chat_template_kwargs"] is None


@pytest.mark.parametrize("to", STORES)
def test_kept_columns_are_text_whatever_they_look_like(tmp_path, to):
    values = ["007", "NA", "2024-01-01", None, 7, 0.5, True, {"a": [1]}, "é"]
    records = [pair(i, note=value) for i, value in enumerate(values)]
    directory = written(tmp_path, records, to=to, keep=("note",))
    found = opened(directory, to, tmp_path / "cache")["train"]
    assert found["note"][:] == [
        "007",
        "NA",
        "2024-01-01",
        None,
        "7",
        "0.5",
        "true",
        '{"a": [1]}',
        "é",
    ]
    assert found.features["note"] == datasets.Value("string")


@pytest.mark.parametrize("to", ["arrow", "parquet"])
def test_text_that_looks_like_something_else_stays_text(tmp_path, to):
    records = [
        {"prompt": "2024-01-01", "chosen": value, "rejected": "True"}
        for value in ("NA", "null", "007", "None", "1e5")
    ]
    found = opened(written(tmp_path, records, to=to), to, tmp_path / "cache")["train"]
    assert found["chosen"][:] == ["NA", "null", "007", "None", "1e5"]
    assert found["prompt"][:] == ["2024-01-01"] * 5


def notes_as_json_lines(tmp_path, *records, **options):
    raw = tmp_path / "raw.jsonl"
    raw.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = {"to": "jsonl", "test_size": 0.0} | options
    return convert(Options((str(raw),), str(tmp_path / "out"), **options)).figures["notes"]


def date_note(what):
    return (
        f"every {what} of train.jsonl looks like a date, which datasets.load_dataset would turn "
        "into a timestamp; --to arrow keeps it text"
    )


def test_json_lines_whose_every_text_looks_like_a_date_say_so(tmp_path):
    dated = pair(1, prompt="2024-01-01", day="2024-01-01T10:00:00+02:00")
    assert notes_as_json_lines(tmp_path, dated, pair(2)) == []
    assert notes_as_json_lines(tmp_path, dated) == [date_note("prompt")]
    undated = pair(2, day=None)
    assert notes_as_json_lines(tmp_path, dated, undated, keep=("day",)) == [date_note("day")]
    assert notes_as_json_lines(tmp_path, undated, keep=("day",)) == []
    turn = {"role": "user", "content": "P", "day": "2024-01-01"}
    assert notes_as_json_lines(tmp_path, pair(1, prompt=[turn])) == [date_note("day")]
    assert notes_as_json_lines(tmp_path, dated, to="arrow", keep=("day",)) == []


@pytest.fixture
def small_shards(monkeypatch):
    """Blocks of a few records, each a shard of its own."""
    monkeypatch.setattr(stretches, "SIZE", 400)
    monkeypatch.setattr(conversion, "_SHARD", 3000)


def test_rows_beyond_one_batch_and_one_shard_are_all_there(tmp_path, monkeypatch, small_shards):
    monkeypatch.setattr(writer, "_BATCH", 7)
    directory = written(tmp_path, [pair(i) for i in range(100)])
    names = sorted(path.name for path in directory.glob("train/*.arrow"))
    assert len(names) > 2
    assert names == [f"data-{i:05d}-of-{len(names):05d}.arrow" for i in range(len(names))]
    found = datasets.load_from_disk(str(directory))["train"]
    assert found["prompt"][:] == [f"P{i}" for i in range(100)]


@pytest.mark.parametrize("to", ["parquet", "jsonl"])
def test_several_shards_open_as_one_split_and_rejects_stand_in_one_file(tmp_path, small_shards, to):
    records = [pair(i, chosen="" if i % 10 == 9 else f"C{i}") for i in range(100)]
    directory = written(tmp_path, records, to=to, test_size=0.5)
    for split in ("train", "test"):
        names = sorted(path.name for path in directory.glob(f"{split}*"))
        assert len(names) > 2
        assert names == [f"{split}-{i:05d}-of-{len(names):05d}.{to}" for i in range(len(names))]
    found = opened(directory, to, tmp_path / "cache")
    kept = [record["prompt"] for record in records if record["chosen"]]
    read = {name: found[name]["prompt"][:] for name in ("train", "test")}
    assert sorted(read["train"] + read["test"], key=kept.index) == kept
    for prompts in read.values():
        assert prompts == sorted(prompts, key=kept.index)
    rejects = (directory / "rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == list(range(10, 101, 10))
    others = {path.name for path in directory.iterdir() if "-of-" not in path.name}
    assert others == {"README.md", "rejects.jsonl", "report.json"}


def test_dates_are_told_of_all_shards_together(tmp_path, small_shards):
    dated = [pair(i, prompt=f"2024-01-{i:02d}", day="2024-01-01") for i in range(1, 32)]
    told = [date_note("prompt"), date_note("day")]
    assert notes_as_json_lines(tmp_path, *dated, keep=("day",)) == told
    dated[-1]["prompt"] = "no date"
    assert notes_as_json_lines(tmp_path, *dated, keep=("day",)) == told[1:]


def files(directory):
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


@pytest.mark.parametrize("to", STORES)
def test_the_same_input_gives_the_same_bytes_again_and_elsewhere(tmp_path, to):
    records = [pair(i, note="x") for i in range(50)] + [pair(1), {"prompt": "only"}]
    options = {"to": to, "keep": ("note",), "test_size": 0.3}
    before = files(written(tmp_path, records, **options))
    assert {"report.json", "rejects.jsonl", "README.md"} < before.keys()
    assert files(written(tmp_path, records, **options)) == before
    written(tmp_path, records, output=str(tmp_path / "b/c"), **options)
    assert files(tmp_path / "b/c") == before

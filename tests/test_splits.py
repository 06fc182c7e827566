"""--keep-splits: the inputs' own splits, and what of train is in test."""

import json

import pytest
from converting import pair, write_lines

from data_tools.convert import main


def splits_of(directory="out"):
    from pathlib import Path

    import pyarrow as pa

    return {
        split: [
            row["prompt"]
            for path in sorted(Path(directory, split).glob("*.arrow"))
            for row in pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
        ]
        for split in ("train", "test")
    }


@pytest.mark.parametrize(
    "name", ["test", "validation", "dev", "eval", "val", "Test", "test_prefs", "holdout"]
)
def test_a_column_of_splits_decides(convert_file, name):
    records = [pair(1, split="train"), pair(2, split=name), pair(3, split="train_prefs")]
    done = convert_file(records, "--keep-splits")
    assert splits_of() == {"train": ["P1", "P3"], "test": ["P2"]}
    assert done.report["splits"] == {"train": 2, "test": 1}
    assert done.report["columns"]["unread"] == {}


def test_files_and_folders_decide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw/validation").mkdir(parents=True)
    write_lines("raw/train-00000.jsonl", [pair(1)])
    write_lines("raw/pairs.test.jsonl", [pair(2)])
    write_lines("raw/validation/a.jsonl", [pair(3)])
    assert main(["raw", "-o", "out", "--keep-splits"]) == 0
    assert splits_of() == {"train": ["P1"], "test": ["P2", "P3"]}


def test_a_train_record_whose_prompt_is_in_test_is_leaked(convert_file):
    records = [
        pair(1, split="train"),
        pair(2, split="test"),
        pair(2, chosen="other", split="train"),
        pair(2, split="train"),
    ]
    done = convert_file(records, "--keep-splits")
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(3, "leaked"), (4, "leaked")]
    assert "raw.jsonl:2" in done.rejects[0]["detail"]
    assert done.report["prompts"] == {"train": 1, "test": 1, "shared": 0}


def test_without_the_option_a_note_names_it(convert_file):
    records = [pair(n, split="train" if n else "test") for n in range(4)]
    done = convert_file(records)
    assert any("--keep-splits" in note for note in done.report["notes"])


def test_without_splits_the_option_is_refused(convert_file):
    done = convert_file([pair(1), pair(2)], "--keep-splits")
    assert done.status == 2
    assert "--keep-splits" in done.err


def test_an_unknown_split_is_refused_by_name(convert_file):
    done = convert_file([pair(1, split="train"), pair(2, split="banana")], "--keep-splits")
    assert done.status == 2
    assert "banana" in done.err


def test_a_null_split_is_rejected(convert_file):
    records = [pair(1, split="train"), pair(2, split=None), pair(3, split="test")]
    done = convert_file(records, "--keep-splits")
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(2, "missing_field")]


def test_the_same_pair_in_test_twice_stays_once(convert_file):
    records = [pair(1, split="test"), pair(1, split="test"), pair(2, split="train")]
    done = convert_file(records, "--keep-splits")
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(2, "duplicate")]


def test_the_report_says_where_the_splits_came_from(convert_file):
    done = convert_file([pair(1, split="train"), pair(2, split="dev")], "--keep-splits", "--json")
    figures = json.loads(done.out)
    assert any("dev" in note and "test" in note for note in figures["notes"])

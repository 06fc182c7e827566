"""The quickstart's dirty file: what was planted is what the converter finds, row by row."""

import csv
import json
from pathlib import Path

import pytest
from converting import convert
from datasets import load_from_disk

from quickstart import grammar, make_data

ROOT = Path(__file__).parent.parent


def test_the_committed_file_is_what_the_generator_writes(tmp_path):
    assert make_data.main(["--out", str(tmp_path / "raw.csv")]) == 0
    assert (tmp_path / "raw.csv").read_bytes() == (ROOT / "data/raw.csv").read_bytes()


def test_another_seed_gives_other_rows():
    assert make_data.records(1) != make_data.records(0)


def test_flipping_turns_so_many_judgements_round_and_nothing_else(tmp_path):
    plain, flipped = make_data.records(0), make_data.records(0, flip=0.2)
    assert len(plain) == len(flipped)
    turned = [(a, b) for a, b in zip(plain, flipped, strict=True) if a != b]
    assert all(a[:3] == b[:3] and {a[3], b[3]} == {"response_a", "response_b"} for a, b in turned)
    assert make_data.main(["--flip", "0.2", "--out", str(tmp_path / "raw.csv")]) == 0
    convert((str(tmp_path / "raw.csv"),), output=str(tmp_path / "out"), test_size=0)
    rows = load_from_disk(str(tmp_path / "out"))["train"]
    wrong = [
        r for r in rows if grammar.true_reward(r["chosen"]) < grammar.true_reward(r["rejected"])
    ]
    assert abs(len(wrong) - 0.2 * len(rows)) < 0.02 * len(rows)


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan", "many"])
def test_a_share_that_cannot_be_flipped_is_a_fault_of_usage(share, tmp_path):
    with pytest.raises(SystemExit) as ended:
        make_data.main(["--flip", share, "--out", str(tmp_path / "raw.csv")])
    assert ended.value.code == 2 and not list(tmp_path.iterdir())


def test_the_converter_finds_every_planted_fault_and_nothing_else(tmp_path):
    report = convert((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out"))
    expected = make_data.expected()
    assert report.figures["reasons"] == expected["reasons"] == make_data.PLANTED
    assert report.figures["pairs"]["kept"] == expected["kept"] >= 1500
    assert report.figures["records"]["read"] == expected["read"]
    assert abs(report.figures["first_answer_wins"] - 0.5) < 0.05
    assert abs(report.figures["chosen_longer"] - 0.5) < 0.05


def test_every_kept_pair_prefers_the_greater_true_reward(tmp_path):
    convert((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out"))
    for rows in load_from_disk(str(tmp_path / "out")).values():
        for row in rows:
            chosen, rejected = row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]
            gap = grammar.true_reward(chosen) - grammar.true_reward(rejected)
            assert gap >= make_data.CLEAR
            for text in (chosen, rejected):  # a line break between sentences is no fault
                assert grammar.is_well_formed(text.replace("\n", " "))


def test_rejects_name_the_line_on_which_their_row_starts(tmp_path):
    report = convert((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out"))
    lines = (ROOT / "data/raw.csv").read_text(encoding="utf-8").split("\n")
    rejects = Path(report.rejects).read_text(encoding="utf-8").splitlines()
    for reject in map(json.loads, rejects):
        if isinstance(reject["raw"], str):
            assert lines[reject["line"] - 1] == reject["raw"]
        else:
            row = next(csv.reader("\n".join(lines[reject["line"] - 1 :]).splitlines(True)))
            assert row == list(reject["raw"].values())
    assert sum(1 for row in make_data.records() if any("\n" in cell for cell in row)) >= 10


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert make_data.main(["--out", str(tmp_path / "file" / "raw.csv")]) == 1
    assert "cannot be written: " in capsys.readouterr().err

"""The quickstart's dirty file: what was planted is what the converter finds, row by row."""

import csv
import json
from pathlib import Path

from datasets import load_from_disk

from data_tools.convert import Options, convert
from quickstart import grammar, make_data

ROOT = Path(__file__).parent.parent


def test_the_committed_file_is_what_the_generator_writes(tmp_path):
    assert make_data.main(["--out", str(tmp_path / "raw.csv")]) == 0
    assert (tmp_path / "raw.csv").read_bytes() == (ROOT / "data/raw.csv").read_bytes()


def test_another_seed_gives_other_rows():
    assert make_data.records(1) != make_data.records(0)


def test_the_converter_finds_every_planted_fault_and_nothing_else(tmp_path):
    report = convert(Options((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out")))
    expected = make_data.expected()
    assert report.figures["reasons"] == expected["reasons"] == make_data.PLANTED
    assert report.figures["pairs"]["kept"] == expected["kept"] >= 1500
    assert report.figures["records"]["read"] == expected["read"]
    assert abs(report.figures["first_answer_wins"] - 0.5) < 0.05
    assert abs(report.figures["chosen_longer"] - 0.5) < 0.05


def test_every_kept_pair_prefers_the_greater_true_reward(tmp_path):
    convert(Options((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out")))
    for rows in load_from_disk(str(tmp_path / "out")).values():
        for row in rows:
            chosen, rejected = row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]
            gap = grammar.true_reward(chosen) - grammar.true_reward(rejected)
            assert gap >= make_data.CLEAR
            for text in (chosen, rejected):  # a line break between sentences is no fault
                assert grammar.is_well_formed(text.replace("\n", " "))


def test_rejects_name_the_line_on_which_their_row_starts(tmp_path):
    report = convert(Options((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out")))
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

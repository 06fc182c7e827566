"""The quickstart's dirty file: what was planted is what the converter finds, row by row."""

import csv
import io
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
    assert make_data.make_rows(1) != make_data.make_rows(0)


def test_the_converter_finds_every_planted_fault_and_nothing_else(tmp_path):
    report = convert(Options((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out")))
    assert report.figures["reasons"] == make_data.PLANTED
    assert report.figures["pairs"]["kept"] == make_data.GOOD >= 1500
    assert report.figures["records"]["read"] == make_data.GOOD + sum(make_data.PLANTED.values())
    assert abs(report.figures["first_answer_wins"] - 0.5) < 0.05
    assert abs(report.figures["chosen_longer"] - 0.5) < 0.05


def test_every_kept_pair_prefers_the_greater_true_reward(tmp_path):
    convert(Options((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out")))
    for rows in load_from_disk(str(tmp_path / "out")).values():
        for row in rows:
            chosen, rejected = row["prompt"] + row["chosen"], row["prompt"] + row["rejected"]
            assert grammar.true_reward(chosen) > grammar.true_reward(rejected)
            assert grammar.is_well_formed(chosen) and grammar.is_well_formed(rejected)


def test_rejects_name_the_line_on_which_their_row_starts(tmp_path):
    report = convert(Options((str(ROOT / "data/raw.csv"),), output=str(tmp_path / "out")))
    lines = (ROOT / "data/raw.csv").read_text(encoding="utf-8").split("\n")
    rejects = Path(report.rejects).read_text(encoding="utf-8").splitlines()
    for reject in map(json.loads, rejects):
        raw = reject["raw"]
        start = raw if isinstance(raw, str) else next(iter(raw.values()))
        cell = next(csv.reader(io.StringIO(lines[reject["line"] - 1])))[0]
        assert start.strip('"').startswith(cell[:20])
    assert any("\n" in row[4] for row in make_data.make_rows(0) if len(row) == 5)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys):
    assert make_data.main(["--out", str(tmp_path / "none" / "raw.csv")]) == 1
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err

"""bench: what is claimed about speed is printed by a command that runs."""

import csv
import json
import statistics
from pathlib import Path

import pytest

from bench import convert as bench_convert
from bench import dialogues, frontier, raw_pairs, train_throughput
from bench import suspects as bench_suspects


def test_invented_dialogues_have_the_lengths_of_hh():
    pairs = dialogues.texts_of(None, 2000)
    for name, lengths in (("prompt", dialogues.PROMPTS), ("chosen", dialogues.ANSWERS)):
        words = [text.count(" w") for text in (pair[name] for pair in pairs)]
        for share in (20, 50, 80):
            expected = lengths[dialogues.SHARES.index(share)]
            found = statistics.quantiles(words, n=100)[share - 1]
            assert found == pytest.approx(expected, rel=0.15), (name, share)
    assert pairs == dialogues.texts_of(None, 2000)


@pytest.mark.slow
def test_the_comparison_prints_every_kind_and_that_the_losses_agree(monkeypatch, capsys):
    monkeypatch.setattr(train_throughput, "HH", dialogues.HH.with_name("none"))
    options = ["--batches", "2", "--steps", "2", "--runs", "1", "--threads", "1"]
    assert train_throughput.main(options) == 0
    said = capsys.readouterr().out
    assert "gpt2-14m, LoRA, fp32, 1 CPU threads, invented dialogues, 2 steps per run" in said
    rows = {line[:20].strip(): line[20:].split() for line in said.splitlines() if "MiB" in line}
    assert [*rows] == [*train_throughput.KINDS]
    # Pairs/s, tokens/s, over TRL, of the bare loop, tokens per distinct token, memory.
    assert float(rows["stock TRL"][4]) > 1.2 > float(rows["shared prompts"][4]) >= 0.99
    assert rows["stock TRL"][2] == rows["bare loop"][3] == "1.00"
    assert "losses of stock TRL and of shared prompts: at most " in said


def row(loss, beta, steps, kl, reward):
    spread = {"kl_sd": 0.1, "reward_sd": 0.02, "well_formed": 0.97}
    spread |= {"kl_formed": kl - 0.1, "reward_formed": reward}
    return {"loss": loss, "beta": beta, "steps": steps, "kl": kl, "reward": reward} | spread


def test_frontiers_are_compared_at_equal_kl_and_only_where_both_have_one():
    rows = [row("sigmoid", 1, 585, 0.2, 0.2), row("sigmoid", 0.1, 585, 1.2, 0.7)]
    assert frontier.reward_at(rows, 0.7) == pytest.approx(0.45)
    assert frontier.reward_at(rows, 1.3) is None and frontier.reward_at(rows, 0.1) is None
    rows += [row("sft", None, 65, 0.7, 0.4), row("sft", None, 900, 5.0, 0.6)]
    rows += [row("sigmoid", 1, 195, 0.1, 0.1)]  # of another length, so of another line
    *_, last = frontier.table(rows)
    assert last == "sigmoid, 585 steps over sft at equal KL: +0.05 at 0.70 nats"


def test_points_of_one_setting_are_one_mean_over_seeds():
    points = [
        frontier.Point("ipo", 1.0, 195, seed, kl, 0.5, 0.9, kl - 0.5, 0.5, 0.8)
        for seed, kl in ((1, 1.0), (2, 2.0), (3, 3.0))
    ]
    (found,) = frontier.means(points)
    assert (found["seeds"], found["kl"], found["kl_sd"], found["reward_sd"]) == (3, 2.0, 1.0, 0.0)


@pytest.fixture
def small_base(tmp_path, monkeypatch):
    """The quickstart's model, hardly trained, in place of the one that the benches build."""
    from quickstart import build_model

    assert build_model.main([str(tmp_path / "work/model"), "--steps", "3"]) == 0
    monkeypatch.setattr(build_model, "main", lambda words: 0)
    return tmp_path


@pytest.mark.slow
def test_the_frontier_is_a_table_its_data_and_a_plot(small_base, capsys):
    words = ["--out", str(small_base / "docs"), "--work", str(small_base / "work"), "--seeds", "1"]
    words += ["--samples", "4", "--steps", "2", "--losses", "sigmoid", "--betas", "1"]
    assert frontier.main(words) == 0
    said = capsys.readouterr().out
    assert "best possible    0.2" in said and "sigmoid            1      2" in said
    head, *lines = (small_base / "docs/frontier.csv").read_text().splitlines()
    assert head == "loss,beta,steps,seed,kl,reward,well_formed,kl_formed,reward_formed,accuracy"
    assert len(lines) == len(frontier.OPTIMA) + 1
    assert (small_base / "docs/frontier.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_flipped_labels_are_looked_for_both_ways(small_base, monkeypatch, capsys):
    words = ["--work", str(small_base / "work"), "--shares", "0.2", "--seeds", "1"]
    words += ["--samples", "4", "--set", "max_steps=2", "--set", "eval_strategy=no"]
    words += ["--set", "eval_steps=null"]
    assert bench_suspects.main(words) == 0
    figures = capsys.readouterr().out.splitlines()[-1].split()
    assert figures[0] == "20%" and 550 < int(figures[1]) < 610
    # Two steps teach next to nothing: by chance every fifth would be right.
    assert 0 <= float(figures[2]) <= 1 and 0 <= float(figures[3]) <= 1


def table_rows(text):
    """The cells of a Markdown table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ") for line in lines[1:]]


def test_convert_is_measured_on_every_kind_of_file(capsys, tmp_path):
    words = ["--records", "60", "--runs", "1", "--short", "--folder", str(tmp_path)]
    assert bench_convert.main(words) == 0
    rows = table_rows(capsys.readouterr().out)
    assert [row[:3] for row in rows] == [[k, "60", bench_convert.CONVERT] for k in raw_pairs.KINDS]
    assert {row[-1] for row in rows} == {"1.0"}
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("kind", bench_convert.RIVALS)
def test_convert_is_measured_next_to_its_rivals(kind, capsys, tmp_path):
    words = ["--records", "3000", "--runs", "1", "--kinds", kind, "--folder", str(tmp_path)]
    assert bench_convert.main(words) == 0
    text = capsys.readouterr().out
    programs = [bench_convert.CONVERT, *bench_convert.RIVALS[kind]]
    assert [row[2] for row in table_rows(text)] == programs
    assert text.endswith("(3,001 records read).\n") == (kind == bench_convert.BROKEN)
    assert not list(tmp_path.iterdir())


def test_two_workers_are_compared_with_one(capsys, tmp_path):
    words = ["--records", "60", "--runs", "1", "--kinds", "jsonl", "--scaling"]
    assert bench_convert.main([*words, "--folder", str(tmp_path)]) == 0
    ((kind, records, one, two, ratio),) = table_rows(capsys.readouterr().out)
    assert (kind, records) == ("jsonl", "60")
    assert float(ratio) == pytest.approx(float(one) / float(two), rel=0.5)


def test_startup_is_measured(capsys, tmp_path):
    words = ["--runs", "1", "--kinds", "wide", "--startup", "--folder", str(tmp_path)]
    assert bench_convert.main(words) == 0
    (help_, records) = table_rows(capsys.readouterr().out)
    assert (help_[0], records[0]) == ("--help", "100 records, wide")
    assert 0 < float(help_[1]) < float(records[1])


def test_a_failing_command_ends_the_bench_with_its_error():
    with pytest.raises(SystemExit, match=r"exit status 2\n(.|\n)*none.csv: no such file"):
        bench_convert.measure(bench_convert.convert(Path("none.csv"), Path("out")))


FAULTS = {"empty_prompt", "empty_response", "identical_pair", "contradictory", "duplicate"}
LABEL_FAULTS = {"ragged_row", "null_label", "unknown_label", "tie"}
REASONS = {
    "ascii": FAULTS | LABEL_FAULTS,
    "wide": FAULTS | LABEL_FAULTS,
    "jsonl": FAULTS | {"missing_field", "history_mismatch"},
    "ranked": FAULTS | {"null_label", "tie"},
    "annotated": FAULTS | LABEL_FAULTS | {"disagreement"},
}


@pytest.mark.parametrize("kind", raw_pairs.KINDS)
def test_raw_pairs_are_the_same_every_time_and_have_every_fault(kind, tmp_path):
    from data_tools.convert import main

    path = raw_pairs.write(tmp_path, kind, 3000, short=True)
    before = path.read_bytes()
    assert raw_pairs.write(tmp_path, kind, 3000, short=True).read_bytes() == before
    assert main([str(path), "-o", str(tmp_path / "out")]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["reasons"].keys() == REASONS[kind]
    assert report["records"]["read"] == 3000
    assert report["warnings"]["html"] > 20


@pytest.mark.parametrize("kind", raw_pairs.KINDS)
def test_raw_pairs_have_about_2_kilobytes_a_record(kind, tmp_path):
    path = raw_pairs.write(tmp_path, kind, 600)
    assert path.stat().st_size / 600 == pytest.approx(2250, rel=0.15)
    assert path.read_bytes().isascii() == (kind != "wide")


def test_wide_texts_have_accents_and_chinese(tmp_path):
    words = raw_pairs.write(tmp_path, "wide", 600).read_text("utf-8").split()
    chinese = sum(any(char >= "一" for char in word) for word in words)
    accented = sum(any("ß" <= char <= "œ" for char in word) for word in words)
    assert chinese / len(words) == pytest.approx(0.1, rel=0.2)
    assert accented / len(words) == pytest.approx(0.25, rel=0.2)


def test_three_annotators_judge_each_comparison(tmp_path):
    with raw_pairs.write(tmp_path, "annotated", 900).open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 900
    names = {}
    for row in rows:
        if None not in row.values():  # a ragged row
            key = row["prompt"], frozenset((row["response_a"], row["response_b"]))
            names.setdefault(key, set()).add(row["annotator_id"])
    judged = sum(own == set(raw_pairs.ANNOTATORS) for own in names.values())
    assert judged > 0.8 * len(names) > 200


def test_ranked_records_have_four_answers(tmp_path):
    lines = raw_pairs.write(tmp_path, "ranked", 300).read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert {len(record["answers"]) for record in records} == {4}
    ranks = [{answer["rank"] for answer in record["answers"]} for record in records]
    assert sum(found == {1, 2, 3, 4} for found in ranks) > 0.9 * len(records)

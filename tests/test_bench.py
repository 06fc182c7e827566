"""bench: what is claimed about speed is printed by a command that runs."""

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
    assert "gpt2-14m, LoRA, fp32, 1 CPU threads, invented dialogues, 2 steps a run" in said
    rows = {line[:20].strip(): line[20:].split() for line in said.splitlines() if "MiB" in line}
    assert [*rows] == [*train_throughput.KINDS]
    # Pairs a second, tokens a second, over TRL, of the bare loop, tokens a distinct one, memory.
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_convert_takes_is_printed_beside_what_others_take(kind, capsys, tmp_path):
    words = ["--records", "3000", "--runs", "1", "--kinds", kind, "--folder", str(tmp_path)]
    assert bench_convert.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    ways = [bench_convert.OURS, *bench_convert.OTHERS[kind]]
    assert [line.split(" | ")[1] for line in lines[2 : 2 + len(ways)]] == ways
    assert kind != "csv" or lines[-1].endswith("(3,001 records read)")
    assert not list(tmp_path.iterdir())


def test_the_raw_pairs_are_the_same_every_time_and_hold_every_fault(tmp_path, monkeypatch):
    from data_tools.convert import main

    monkeypatch.chdir(tmp_path)
    faults = {"empty_prompt", "empty_response", "identical_pair", "contradictory", "duplicate"}
    own = {".csv": {"ragged_row", "null_label", "unknown_label", "tie"}}
    own[".jsonl"] = {"missing_field", "history_mismatch"}
    for ending, more in own.items():
        paths = [Path(f"{name}{ending}") for name in ("one", "other")]
        for path in paths:
            raw_pairs.write(path, 2000, short=True)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert main([str(paths[0]), "-o", f"out{ending}"]) == 0
        report = json.loads(Path(f"out{ending}/report.json").read_text())
        assert report["reasons"].keys() == faults | more
        assert report["records"]["read"] == 2000
        assert report["warnings"]["html"] > 30

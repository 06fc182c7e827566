"""bench: what is claimed about speed is printed by a command that runs."""

import statistics

import pytest

from bench import dialogues, train_throughput


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

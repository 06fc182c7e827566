"""dpo_wrap/metrics/rouge.py: ROUGE by hand, and without a network."""

from pathlib import Path

import evaluate
import pytest

MODULE = Path(__file__).parent.parent / "dpo_wrap/metrics/rouge.py"


def test_rouge_is_that_of_hand_worked_overlaps():
    metric = evaluate.load(str(MODULE), experiment_id="rouge-by-hand")
    found = metric.compute(
        predictions=["the cat sat down", "nothing alike"],
        references=["the cat lay down", "other words here"],
    )
    # Words: 3 of 4 both ways. Pairs of words: 1 of 3. Longest common subsequence: the cat down.
    assert found["rouge1_per_example"] == pytest.approx([0.75, 0.0])
    assert found["rouge2_per_example"] == pytest.approx([1 / 3, 0.0])
    assert found["rougeL_per_example"] == pytest.approx([0.75, 0.0])
    assert found["rouge1"] == pytest.approx(0.375)


def test_inflections_count_as_one_word():
    metric = evaluate.load(str(MODULE), experiment_id="rouge-stems")
    assert metric.compute(predictions=["walking dogs"], references=["walked dog"])["rouge1"] == 1.0

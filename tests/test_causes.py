"""causes: which measurements of a flat run are suspicious, in which order."""

from dataclasses import replace

import pytest

from dpo_wrap.diagnostics.answer_similarity import Survey
from dpo_wrap.diagnostics.causes import Measured, likely

FINE = Measured(
    step=200,
    steps=2000,
    pairs_seen=1600,
    margin=0.004,
    accuracy=0.9,
    beta=0.1,
    peak_rate=2e-4,
    rate_now=2e-4,
    warmup=0,
    gradient=1.5,
    adapter=True,
    moved=0.8,
    half=False,
    pairs=Survey(pairs=2000, alike=0.02, cut=0.1, chosen_longer=0.55, closest=()),
)


def test_where_nothing_is_suspicious_every_figure_is_shown():
    suspicious, others = likely(FINE)
    assert suspicious == []
    assert ", ".join(others) == (
        "gradient norm 1.5, learning_rate 0.0002, warmup 0 steps, the adapter's B matrices moved "
        "by 0.8, beta 0.1, 2 % of pairs almost alike, 10 % cut, reward accuracy 0.90, 1,600 pairs "
        "seen, chosen longer in 55 %"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gradient": 0.0}, "gradient norm 0: nothing that is learned reaches the weights"),
        ({"gradient": float("nan")}, "gradient norm nan: nothing"),
        ({"peak_rate": 1e-6, "rate_now": 1e-6}, "learning_rate 1e-06 is low for an adapter"),
        (
            {"peak_rate": 1e-8, "rate_now": 1e-8, "adapter": False},
            "learning_rate 1e-08 is low; 5e-7 to 5e-6 is usual for full weights",
        ),
        ({"peak_rate": 0.3, "rate_now": 0.3}, "learning_rate 0.3 is high"),
        (
            {"half": True, "adapter": False, "peak_rate": 1e-6, "rate_now": 1e-6},
            "the trained weights are kept in half precision, which rounds steps of 1e-06 away",
        ),
        ({"warmup": 150}, "warmup takes 150 of 2000 steps"),
        ({"rate_now": 1e-6}, "the learning rate is 1e-06 now, of a peak of 0.0002"),
        ({"moved": 0.0}, "the adapter's B matrices have not changed at all"),
        ({"beta": 0.001}, "beta 0.001 makes this margin of 4.00 nats between the answers"),
        ({"pairs": replace(FINE.pairs, alike=0.5)}, "50 % of the pairs have two answers of almost"),
        ({"pairs": replace(FINE.pairs, cut=0.4)}, "40 % of the pairs are cut by max_length"),
        ({"pairs": replace(FINE.pairs, chosen_longer=0.95)}, "in 95 % of the pairs the chosen"),
        ({"accuracy": 0.51}, "reward accuracy 0.51 is a coin's"),
        ({"pairs_seen": 80, "step": 20}, "only 80 pairs were seen in 20 steps"),
    ],
)
def test_each_measurement_out_of_its_range_is_a_cause(change, said):
    (found,), others = likely(replace(FINE, **change))
    assert found.startswith(said) or said in found
    assert len(others) < len(likely(FINE)[1]) or "high" in said or "half" in said


def test_the_likeliest_cause_comes_first():
    lines, _ = likely(replace(FINE, peak_rate=1e-6, rate_now=1e-6, accuracy=0.5, pairs_seen=80))
    assert [line.split()[0] for line in lines] == ["learning_rate", "reward", "only"]

"""The sentences on an evaluation's figures, from figures made up for them."""

import pytest

from dpo_wrap.evaluation.findings import findings


def figures(**changes):
    """Figures of a run that did well; a key of a group is given as `length_matched__accuracy`."""
    found = {
        "examples": 400,
        "ties": 0,
        "split": "test",
        "reward_accuracy": 0.8,
        "reward_accuracy_interval": [0.76, 0.84],
        "caution": None,
        "baselines": {
            "longer": {"accuracy": 0.6},
            "shorter": {"accuracy": 0.4},
            "reference": {"accuracy": 0.55},
        },
        "first_answer": None,
        "length_matched": {"accuracy": 0.78, "accuracy_interval": [0.73, 0.82], "pairs": 350},
        "groups": {},
        "slices": {},
        "ceiling": None,
        "samples": 64,
        "kl_per_sequence": 4.0,
        "kl_per_token": 0.05,
        "length_ratio": 1.02,
        "eos_rate": {"reference": 0.98, "policy": 0.97},
        "distinct_2": {"reference": 0.95, "policy": 0.94},
    }
    for name, value in changes.items():
        outer, _, inner = name.partition("__")
        found[outer] = {**found[outer], inner: value} if inner else value
    return found


def found(**changes):
    return [(one["tone"], one["text"]) for one in findings(figures(**changes))]


def warnings(**changes):
    return [text for tone, text in found(**changes) if tone == "warning"]


def test_a_good_run_is_reported_with_the_best_baseline():
    assert found() == [
        (
            "good",
            "The policy prefers the chosen answer in 80.0% (95 % interval 76.0% to 84.0%) of 400 "
            "held-out pairs: the best baseline is always choosing the longer answer (60.0%)",
        ),
        (
            "neutral",
            "With lengths matched it is right in 78.0% (95 % interval 73.0% to 82.0%) of 350 "
            "pairs: length does not explain the accuracy",
        ),
        (
            "neutral",
            "The policy's KL from its reference is 4.00 nats per answer and 0.050 per token; its "
            "answers are 1.02 times as long",
        ),
    ]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reward_accuracy_interval": [0.48, 0.84]}, "pairs: not distinguishable from chance"),
        ({"reward_accuracy": 0.3, "reward_accuracy_interval": [0.2, 0.4]}, "less than chance"),
        (
            {"baselines__longer": {"accuracy": 0.77}},
            "better than always choosing the longer",
        ),
        (
            {"baselines__shorter": {"accuracy": 0.9}},
            "better than always choosing the shorter",
        ),
        ({"baselines__reference": {"accuracy": 0.79}}, "that the reference finds likelier"),
        (
            {"first_answer": {"accuracy": 0.1}},
            "better than always choosing the answer shown last",
        ),
        ({"caution": "Only 12 prompts"}, "Only 12 prompts"),
        ({"length_matched__accuracy": 0.65}, "part of what the policy learned is length"),
        ({"length_matched__accuracy_interval": [0.45, 0.6]}, "may have learned length alone"),
        ({"ties": 80}, "80 are ties, so it has hardly moved"),
        (
            {"ties": 400, "reward_accuracy": 0.0, "reward_accuracy_interval": [0.0, 0.02]},
            "400 are ties",
        ),
        ({"length_matched__accuracy": None}, "may be a preference for length"),
        ({"length_ratio": 1.6}, "much longer answers"),
        ({"length_ratio": 0.5}, "much shorter answers"),
        ({"kl_per_token": 0.48}, "answers may degenerate"),
        ({"eos_rate__policy": 0.4}, "The policy ends 40.0% of its answers, its reference 98.0%"),
        ({"distinct_2__policy": 0.5}, "The policy repeats itself"),
    ],
)
def test_a_problem_is_one_warning(changes, text):
    assert len([line for line in warnings(**changes) if text in line]) == 1


def test_a_group_that_is_below_chance_is_reported_as_perhaps_swapped():
    def group(examples, accuracy, bounds):
        names = ("examples", "reward_accuracy", "reward_accuracy_interval")
        return dict(zip(names, (examples, accuracy, bounds), strict=True)) | {"ties": 0}

    ann, bob = group(80, 0.1, [0.05, 0.2]), group(5, 0.4, [0.1, 0.8])
    groups = {"annotator": {"ann": ann, "bob": bob, "eve": group(0, None, None)}}
    (line,) = warnings(groups=groups)
    start = "annotator ann: the policy disagrees with 72 of 80 labels (60.0% elsewhere)"
    assert line.startswith(start)
    assert "may be swapped" in line and "fix or remove them all" in line
    # A tie contradicts no label.
    assert warnings(groups={"annotator": {"ann": ann | {"ties": 72}}}) == []
    (line,) = warnings(slices={"data/b": ann})
    assert line.startswith("dataset data/b: ")


@pytest.mark.parametrize(
    ("ceiling", "text"),
    [
        (
            {"share": 0.73, "judgements": 900},
            "in 73.0% of 900 judgements: the policy is above that",
        ),
        ({"share": 0.9, "judgements": 1}, "of 1 judgement: a higher accuracy is hardly possible"),
    ],
)
def test_annotator_agreement_is_reported_as_the_ceiling(ceiling, text):
    assert any(text in line for _, line in found(ceiling=ceiling))


def test_without_pairs_verdicts_or_samples_there_are_no_findings_on_them():
    assert findings({"examples": 0}) == []
    assert found(win_rate=win_rate(None, None)) == found()
    assert not any("nats" in text for _, text in found(samples=0, kl_per_token=None))


def win_rate(rate, bounds):
    return {"win_rate": rate, "win_rate_interval": bounds, "pairs": 60}


@pytest.mark.parametrize(
    ("tone", "rate", "bounds"),
    [
        ("good", 0.64, [0.55, 0.72]),
        ("warning", 0.3, [0.2, 0.4]),
        ("neutral", 0.5, [0.4, 0.6]),
    ],
)
def test_the_win_rate_follows_the_accuracy(tone, rate, bounds):
    line = found(win_rate=win_rate(rate, bounds))[1]
    assert line[0] == tone
    assert (
        f"in {rate:.1%} (95 % interval {bounds[0]:.1%} to {bounds[1]:.1%}) of 60 prompts" in line[1]
    )


def test_length_is_not_reported_where_nothing_was_learned():
    for accuracy, bounds in ((0.505, [0.48, 0.53]), (0.0, [0.0, 0.1])):
        lines = found(reward_accuracy=accuracy, reward_accuracy_interval=bounds)
        assert not any("lengths matched" in text for _, text in lines)


def test_few_samples_give_no_warning():
    changes = {"length_ratio": 3.0, "eos_rate__policy": 0.0, "kl_per_token": 0.9}
    assert len(warnings(**changes)) == 3 and warnings(samples=5, **changes) == []


def test_a_kl_estimate_below_zero_is_reported_as_about_zero():
    assert "reference is about 0; its answers" in found(kl_per_sequence=-0.4)[-1][1]

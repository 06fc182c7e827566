"""What an evaluation's figures mean, said of figures made up for it."""

import pytest

from dpo_wrap.evaluation.findings import findings


def figures(**changes):
    """Those of a run that did well; a key of a group as `length_matched__accuracy`."""
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
            "reference_per_token": {"accuracy": 0.52},
        },
        "first_answer": None,
        "length_matched": {
            "accuracy": 0.78,
            "accuracy_interval": [0.73, 0.82],
            "pairs": 350,
            "bins": [],
        },
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


def said(**changes):
    return [(one["tone"], one["text"]) for one in findings(figures(**changes))]


def warnings(**changes):
    return [text for tone, text in said(**changes) if tone == "warning"]


def test_a_run_that_did_well_is_said_to_have_with_what_would_score_without_it():
    first, *others = said()
    assert first == (
        "good",
        "it prefers the chosen answer in 80.0% of 400 held-out pairs (95 % interval 76.0% to "
        "84.0%); without training the best is 60.0%, by always taking the longer answer",
    )
    assert warnings() == []
    carried = "among 350 pairs of like lengths it is right in 78.0%"
    carried = f"length is not what carries it: {carried}"
    assert ("neutral", carried) in others


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reward_accuracy_interval": [0.48, 0.84]}, "cannot be told from a coin"),
        ({"reward_accuracy": 0.3, "reward_accuracy_interval": [0.2, 0.4]}, "the wrong way round"),
        ({"baselines__longer": {"accuracy": 0.77}}, "no better than always taking the longer"),
        ({"baselines__shorter": {"accuracy": 0.9}}, "no better than always taking the shorter"),
        ({"baselines__reference": {"accuracy": 0.79}}, "what the reference finds likelier"),
        ({"first_answer": {"accuracy": 0.1}}, "no better than always taking the last answer"),
        ({"caution": "only 12 prompts"}, "only 12 prompts"),
        ({"length_matched__accuracy": 0.65}, "part of what it learned is length"),
        ({"length_matched__accuracy_interval": [0.45, 0.6]}, "may be length alone"),
        ({"ties": 80}, "and neither answer in 80"),
        ({"length_matched__accuracy": None}, "cannot be told from a taste for length"),
        ({"length_ratio": 1.6}, "much longer answers"),
        ({"kl_per_token": 0.48}, "its texts may fall apart"),
        ({"length_ratio": 0.5}, "much shorter answers"),
        ({"eos_rate__policy": 0.4}, "it may have forgotten to stop"),
        ({"distinct_2__policy": 0.5}, "it repeats itself"),
    ],
)
def test_what_is_amiss_is_a_warning(changes, text):
    changes.setdefault("reward_accuracy_interval", [0.76, 0.84])
    assert len([line for line in warnings(**changes) if text in line]) == 1


def test_a_group_that_is_surely_below_a_coin_looks_turned_round():
    def group(examples, accuracy, bounds):
        names = ("examples", "reward_accuracy", "reward_accuracy_interval")
        return dict(zip(names, (examples, accuracy, bounds), strict=True)) | {"ties": 0}

    ann, bob = group(80, 0.1, [0.05, 0.2]), group(5, 0.4, [0.1, 0.8])
    groups = {"annotator": {"ann": ann, "bob": bob, "eve": group(0, None, None)}}
    (line,) = warnings(groups=groups)
    assert line.startswith(
        "annotator ann: it disagrees with 72 of its 80 labels, elsewhere with 60"
    )
    assert "look swapped" in line and "mend or leave out all of them" in line
    assert (
        warnings(groups={"annotator": {"ann": ann | {"ties": 72}}}) == []
    )  # it disagrees with none
    (line,) = warnings(slices={"data/b": ann})
    assert line.startswith("dataset data/b: ")


def test_the_ceiling_is_quoted():
    lines = said(ceiling={"share": 0.73, "judgements": 900})
    assert any("in 73.0% of 900 judgements; it is above that" in text for _, text in lines)
    lines = said(ceiling={"share": 0.9, "judgements": 1})
    assert any("of 1 judgement: more than that is hardly" in text for _, text in lines)


def test_where_it_is_weakest_by_length_is_said_of_enough_pairs():
    def text(pairs):
        one = {"from": 2.0, "accuracy_where_longer": 0.6, "chosen_longer": pairs}
        one |= {"accuracy_where_shorter": 0.9, "chosen_shorter": 90}
        return next(t for _, t in said(length_matched__bins=[one]) if "carries" in t)

    assert text(34).endswith(
        "weakest where the chosen answer is over 2 times longer than the rejected one: 60.0% of 34"
    )
    assert "weakest" not in text(5)


def test_without_pairs_or_samples_nothing_is_said_of_them():
    assert findings({"examples": 0}) == []
    assert not any("nats" in text for _, text in said(samples=0, kl_per_token=None))


def win_rate(rate, bounds, bias=0.5, bias_bounds=(0.4, 0.6)):
    return {
        "win_rate": rate,
        "win_rate_interval": bounds,
        "pairs": 60,
        "identical": 0,
        "position_bias": bias,
        "position_bias_interval": bias_bounds,
    }


def test_what_judges_say_is_told_and_how_far_they_go_by_the_place():
    lines = said(win_rate=win_rate(0.64, [0.55, 0.72]))
    assert lines[1][0] == "good" and "in 64.0% of 60 prompts, ties as halves" in lines[1][1]
    assert said(win_rate=win_rate(0.3, [0.2, 0.4]))[1][0] == "warning"
    assert said(win_rate=win_rate(0.5, [0.4, 0.6]))[1][0] == "neutral"
    biased = warnings(win_rate=win_rate(0.5, [0.4, 0.6], 0.9, [0.8, 0.95]))
    assert len(biased) == 1 and biased[0].startswith(
        "90.0% of the judges' verdicts name the answer"
    )
    assert len(said(win_rate=win_rate(None, None))) == len(said())


def test_length_is_not_spoken_of_where_nothing_was_learned():
    for accuracy, bounds in ((0.505, [0.48, 0.53]), (0.0, [0.0, 0.1])):
        lines = said(reward_accuracy=accuracy, reward_accuracy_interval=bounds)
        assert not any("length" in text for _, text in lines[1:] if "like lengths" in text)


def test_ties_are_no_labels_turned_round():
    (first, *_) = said(reward_accuracy=0.0, reward_accuracy_interval=[0.0, 0.02], ties=400)
    assert "neither answer in 400" in first[1] and "wrong way" not in first[1]


def test_a_few_samples_are_no_ground_for_a_warning():
    odd = {"length_ratio": 3.0, "eos_rate__policy": 0.0, "kl_per_token": 0.9}
    assert len(warnings(**odd)) == 3 and warnings(samples=5, **odd) == []


def test_a_kl_below_nought_is_no_distance():
    (line,) = [text for _, text in said(kl_per_sequence=-0.4) if "its own answers" in text]
    assert line == "its own answers are no measurable way from those before training, and 1.02 " \
        "times as long"  # fmt: skip

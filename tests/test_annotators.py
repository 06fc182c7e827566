"""Krippendorff's alpha against published and hand-worked numbers, and what each annotator does."""

import random
from itertools import permutations

import numpy as np
import pytest

from data_tools.annotators import LISTED, Agreement, alpha

A, B, TIE = 0, 1, None


def by_counts(units):
    """Lists of values as `alpha` takes them; a missing value is written `.`."""
    values = sorted({value for unit in units for value in unit} - {"."})
    return np.array([[unit.count(value) for value in values or "."] for unit in units or [""]])


def by_definition(units):
    """One minus observed over expected disagreement, each a mean over pairs of values."""
    units = [[value for value in unit if value != "."] for unit in units]
    units = [unit for unit in units if len(unit) > 1]
    values = [value for unit in units for value in unit]
    if len(set(values)) < 2:
        return None
    observed = sum(
        sum(a != b for a, b in permutations(unit, 2)) / (len(unit) - 1) for unit in units
    ) / len(values)
    pairs = list(permutations(values, 2))
    return 1 - observed / (sum(a != b for a, b in pairs) / len(pairs))


def test_alpha_is_that_of_the_published_examples():
    # Rows are observers, columns units, as printed in Krippendorff (2011), sections A to C.
    published = {
        0.095: ["0100000010", "1110010000"],
        0.692: ["aabbdcccedda", "babbbccceddd"],
        0.743: ["123321412...", "1233224125.3", ".3332342251.", "12332441251."],
    }
    for expected, observers in published.items():
        assert round(alpha(by_counts(list(zip(*observers, strict=True)))), 3) == expected


def test_alpha_of_a_few_units_by_hand():
    # Coincidences: AA 2, BB 2, AB and BA 1 each; n = 6, 3 of each: 1 - 5 · 2 / (36 - 18) = 4/9.
    assert alpha(by_counts(["AA", "BB", "AB"])) == pytest.approx(4 / 9)
    assert alpha(by_counts(["AA", "BB", "AAA"])) == 1
    assert alpha(by_counts(["AB", "BA"])) == pytest.approx(-0.5)  # 1 - 3 · 4 / (16 - 8)


def test_alpha_is_undefined_where_values_do_not_vary_or_are_never_paired():
    for units in ([], ["A", "B"], ["AA", "AA"], ["AA", "B"]):
        assert alpha(by_counts(units)) is None


def test_alpha_is_its_slow_definition_on_random_values_with_gaps():
    for seed in range(30):
        dice = random.Random(seed)
        alphabet = "ABT"[: dice.randint(2, 3)] + "." * dice.randint(0, 3)
        units = ["".join(dice.choices(alphabet, k=dice.randint(1, 6))) for _ in range(25)]
        assert alpha(by_counts(units)) == pytest.approx(by_definition(units))


def figures(*ballots):
    found = Agreement()
    for ballot in ballots:
        found.add(*ballot)
    return found.figures()


def ballot(key, swapped=False, **votes):
    return tuple(votes.items()), key.encode().ljust(16), swapped


def rows(found, *names):
    return [tuple(row[name] for name in names) for row in found["per_annotator"]]


def test_fewer_than_two_annotators_have_no_figures():
    assert figures() is None
    assert figures(ballot("x", ann=A), ballot("x", ann=B), ballot("y")) is None


def test_every_figure_of_four_comparisons_by_hand():
    found = figures(
        ballot("w", ann=A, bob=A, cat=B),
        ballot("x", ann=TIE, bob=TIE),
        ballot("y", ann=B, bob=A, cat=TIE),
        ballot("z", ann=TIE),
        ballot("none"),
    )
    names = ("annotator", "judgements", "compared", "differs", "first_answer_wins", "ties")
    assert rows(found, *names) == [
        ("ann", 4, 1, 0.0, 0.5, 0.5),  # w has no majority without ann, nor y; z nobody else
        ("bob", 3, 1, 0.0, 1.0, 0.3333),
        ("cat", 2, 1, 1.0, 0.0, 0.5),
    ]
    del found["per_annotator"]
    # Coincidences off the diagonal: w 2·2/2 = 2 pairs of ways, y 6/2 = 3, x none: 5 of n = 8, of
    # which A 3, B 2 and ties 3: 1 - 7 · 5 / (64 - 9 - 4 - 9) = 1/6.
    counts = {"annotators": 3, "comparisons": 4, "judged_twice": 3, "disagreeing": 2}
    shares = {"disagreeing_share": 0.6667, "majority_ties": 2, "alpha": 0.1667}
    assert found == counts | shares | {"other_annotators": 0}


@pytest.mark.parametrize("first_swapped", [False, True])
def test_judgements_are_compared_in_whichever_order_the_answers_were_shown(first_swapped):
    agreed = figures(
        ballot("x", first_swapped, ann=A),
        ballot("x", not first_swapped, bob=B),
        ballot("y", first_swapped, ann=B),
        ballot("y", first_swapped, bob=B),
        ballot("z", first_swapped, ann=TIE),
        ballot("z", not first_swapped, bob=TIE),
    )
    assert agreed["comparisons"] == agreed["judged_twice"] == 3
    assert (agreed["disagreeing"], agreed["alpha"]) == (0, 1)
    # Both prefer the same answer of x, but bob was shown it as the second one.
    assert rows(agreed, "annotator", "first_answer_wins") == [("ann", 0.5), ("bob", 0)]
    assert figures(ballot("x", ann=A), ballot("x", True, bob=A))["disagreeing"] == 1


def test_the_order_of_the_ballots_changes_no_figure():
    dice = random.Random(0)
    ballots = [
        ballot(str(i), **{name: dice.choice([A, B, TIE])})
        for name in ("ann", "bob", "cat", "dan")
        for i in dice.sample(range(40), 30)
    ]
    found = figures(*ballots)
    assert 0 < found["disagreeing"] < found["judged_twice"]
    dice.shuffle(ballots)
    assert figures(*ballots) == found


def test_an_annotators_first_judgement_of_a_comparison_counts():
    once = [ballot("x", ann=A, bob=A), ballot("y", ann=A, bob=B)]
    assert figures(*once, ballot("x", ann=B)) == figures(*once)


def test_a_file_given_twice_looks_no_more_agreed_than_given_once():
    dice = random.Random(1)
    names = ("ann", "bob", "cat")
    once = [ballot(str(i), **{n: dice.choice([A, A, B, TIE]) for n in names}) for i in range(500)]
    twice = [((vote,), key) for votes, key, _ in once * 2 for vote in votes]
    assert figures(*twice) == figures(*once)


def test_the_annotators_with_most_judgements_are_first_and_the_list_has_an_end():
    names = [f"a{i:04}" for i in range(LISTED + 5)]
    all_of_them = tuple((name, A) for name in names), b"x" * 16
    found = figures(all_of_them, ballot("y", a1004=A), ballot("y", bob=B))
    assert (found["annotators"], found["other_annotators"]) == (LISTED + 6, 6)
    assert rows(found, "annotator")[:3] == [("a1004",), ("a0000",), ("a0001",)]
    assert len(found["per_annotator"]) == LISTED

"""Krippendorff's alpha against published and hand-worked numbers, and what each annotator does."""

import random
from collections import Counter
from itertools import permutations

import pytest

from data_tools.annotators import LISTED, Agreement, alpha, one_each

A, B, TIE = 0, 1, None


def by_counts(units):
    """Lists of values as `alpha` takes them; a missing value is written `.`."""
    values = sorted({value for unit in units for value in unit} - {"."})
    counts = (tuple(unit.count(value) for value in values) for unit in units)
    return Counter(given for given in counts if sum(given) > 1)


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
    for votes, swapped in ballots:
        found.add(votes, swapped)
    return found.figures()


def ballot(swapped="", **votes):
    """The votes on one comparison; `swapped` names who was shown its answers the other way."""
    return [*votes.items()], [name in swapped for name in votes]


def rows(found, *names):
    return [tuple(row[name] for name in names) for row in found["per_annotator"]]


def test_fewer_than_two_annotators_have_no_figures():
    assert figures() is None
    assert figures(ballot(ann=A), ballot(ann=B), ballot()) is None


def test_every_figure_of_four_comparisons_by_hand():
    found = figures(
        ballot(ann=A, bob=A, cat=B),
        ballot(ann=TIE, bob=TIE),
        ballot(ann=B, bob=A, cat=TIE),
        ballot(ann=TIE),
        ballot(),
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


def test_judgements_are_compared_in_whichever_order_the_answers_were_shown():
    agreed = figures(
        ballot("bob", ann=A, bob=B),
        ballot(ann=B, bob=B),
        ballot("ann", ann=TIE, bob=TIE),
    )
    assert agreed["comparisons"] == agreed["judged_twice"] == 3
    assert (agreed["disagreeing"], agreed["alpha"]) == (0, 1)
    # Both prefer the same answer of the first, but bob was shown it as the second one.
    assert rows(agreed, "annotator", "first_answer_wins") == [("ann", 0.5), ("bob", 0)]


def test_counts_of_blocks_in_any_order_give_the_same_figures():
    dice = random.Random(0)
    ballots = [
        ballot(**{name: dice.choice([A, B, TIE]) for name in dice.sample(["ann", "bob", "cat"], 2)})
        for _ in range(40)
    ]
    found = figures(*ballots)
    assert 0 < found["disagreeing"] < found["judged_twice"]
    one, other = Agreement(), Agreement()
    for at, (votes, swapped) in enumerate(ballots):
        (one if at % 3 else other).add(votes, swapped)
    other.merge(one)
    assert other.figures() == found


def test_who_voted_both_ways_has_no_vote():
    votes = [("ann", A), ("bob", B), ("ann", B), ("cat", TIE), ("bob", B)]
    assert one_each(votes) == [("bob", B), ("cat", TIE)]


def test_the_annotators_with_most_judgements_are_first_and_the_list_has_an_end():
    names = [f"a{i:04}" for i in range(LISTED + 5)]
    found = figures(ballot(**dict.fromkeys(names, A)), ballot(a1004=A), ballot(bob=B))
    assert (found["annotators"], found["other_annotators"]) == (LISTED + 6, 6)
    assert rows(found, "annotator")[:3] == [("a1004",), ("a0000",), ("a0001",)]
    assert len(found["per_annotator"]) == LISTED

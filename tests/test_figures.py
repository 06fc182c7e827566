"""The figures of a conversion: they add up, in their order, with the first place of each."""

import random
from collections import Counter

import numpy as np

from data_tools.figures import Figures, _percentiles
from data_tools.odd import PAIR_WARNINGS
from data_tools.record import Fault, Pair, Place
from data_tools.side import size


def keep(found, split, *pairs):
    """Count pairs, each with its place and its warnings, as kept in one split."""
    shown = [pair for _, pair, _ in pairs]
    found.keep(
        {
            "odd": np.array(
                [sum(1 << PAIR_WARNINGS.index(code) for code in odd) for *_, odd in pairs],
                np.uint16,
            ),
            "prompt_size": np.array([size(pair.prompt) for pair in shown], np.uint32),
            "chosen_size": np.array([size(pair.chosen) for pair in shown], np.uint32),
            "rejected_size": np.array([size(pair.rejected) for pair in shown], np.uint32),
            "first_won": np.array(
                [-1 if pair.first_won is None else pair.first_won for pair in shown], np.int8
            ),
        },
        np.full(len(shown), split == "test"),
        lambda row: pairs[row][0],
    )


def figures(notes=()):
    """Three records: one pair kept in train, one rejected, one that made no pair."""
    found = Figures("hh", "as --format says", ["a.jsonl"], {"to": "arrow"}, list(notes))
    keep(found, "train", (Place("a.jsonl", 1, 1), Pair("PPP", "CC", "R", True), ("html",)))
    found.reject(
        Place("a.jsonl", 2, 2), Fault("duplicate", "the same pair stands at a.jsonl:1"), made=True
    )
    found.reject(Place("a.jsonl", 4, 3), Fault("bad_json", "x" * 400))
    found.read, found.converted, found.made = 3, 1, 2
    found.prompts = {"train": 1, "test": 0, "shared": 0}
    return found


def test_the_counts_add_up():
    found = figures().as_dict()
    assert found["records"] == {"read": 3, "converted": 1, "rejected": 2}
    assert found["pairs"] == {"made": 2, "kept": 1, "rejected": 1}
    assert found["reasons"] == {"bad_json": 1, "duplicate": 1}
    assert found["splits"] == {"train": 1, "test": 0}
    assert found["warnings"] == {"html": 1}
    assert found["warning_examples"] == {"html": "a.jsonl:1"}


def test_reasons_stand_in_their_order_with_the_first_example_of_each():
    found = figures()
    found.reject(Place("a.jsonl", 9, 9), Fault("bad_json", "later"))
    found = found.as_dict()
    assert list(found["reasons"]) == ["bad_json", "duplicate"]
    assert found["examples"]["bad_json"] == "a.jsonl:4: " + "x" * 400


def test_a_warning_keeps_its_first_place_and_counts_every_pair():
    found = figures()
    pair = Pair("Q", "C", "R")
    keep(
        found,
        "train",
        (Place("a.jsonl", 6, 6), pair, ()),
        (Place("a.jsonl", 7, 7), pair, ("html", "zero_width")),
        (Place("a.jsonl", 8, 8), pair, ("zero_width",)),
    )
    found = found.as_dict()
    assert found["warnings"] == {"html": 2, "zero_width": 2}
    assert found["warning_examples"] == {"html": "a.jsonl:1", "zero_width": "a.jsonl:7"}


def test_lengths_and_shares_are_of_the_pairs_that_were_kept():
    found = Figures("hh", "", [], {})
    pairs = [Pair("P" * i, "C" * 2, "R" * (i % 4), i % 4 == 0) for i in range(101)]
    keep(found, "train", *((Place("f", i, i), pair, ()) for i, pair in enumerate(pairs)))
    found = found.as_dict()
    assert found["characters"]["prompt"] == {"p5": 5, "p50": 50, "p95": 95, "p100": 100}
    assert found["chosen_longer"] == round(51 / 101, 4)
    assert found["chosen_shorter"] == round(25 / 101, 4)
    assert found["first_answer_wins"] == round(26 / 101, 4)
    assert found["ordered_pairs"] == 101


def test_repeats_are_shares_of_the_pairs_made_and_ties_of_the_judgements():
    found = Figures("hh", "", [], {})
    found.made = 8
    reasons = ["duplicate", "duplicate", "contradictory", "contradictory", "contradictory"]
    for reason in reasons:
        found.reject(Place("f", 1, 1), Fault(reason, "d"), made=True)
    for _ in range(2):  # records that made no pair, since neither answer won
        found.reject(Place("f", 1, 1), Fault("tie", "d"))
    shares = found.as_dict()
    assert (shares["duplicates"], shares["contradictions"]) == (0.25, 0.375)
    assert shares["ties"] == 0.2
    for _ in range(99):  # messages given again, which are no pairs
        found.reject(Place("f", 1, 1), Fault("duplicate", "d"))
    assert found.as_dict()["duplicates"] == round(101 / 107, 4)


def test_shares_of_nothing_are_none():
    found = Figures("hh", "", [], {}).as_dict()
    names = ("chosen_longer", "chosen_shorter", "first_answer_wins", "ties", "pairs_per_prompt")
    assert {found[name] for name in (*names, "duplicates", "contradictions")} == {None}
    assert found["characters"]["prompt"] == {}
    assert found["agreement"] is None
    assert found["warnings"] == found["warning_examples"] == {}


def test_messages_are_measured_by_their_text(convert_file):
    turns = [{"role": "user", "content": "four"}, {"role": "assistant", "content": None}]
    turns[1]["tool_calls"] = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    turns.append({"role": "user", "content": "more"})
    answers = {"chosen": [{"role": "assistant", "content": "yes"}], "rejected": "no"}
    found = convert_file([{"prompt": turns} | answers]).report
    assert [found["characters"][side]["p100"] for side in ("prompt", "chosen", "rejected")] == [
        8,
        3,
        2,
    ]


def test_a_split_is_counted_in_its_own_place_and_order():
    found = figures()
    pairs = [Pair("Q", "C", "R", won) for won in (True, False, False, None)]
    keep(found, "test", *((Place("a.jsonl", i, i), pair, ()) for i, pair in enumerate(pairs, 5)))
    found = found.as_dict()
    assert found["splits"] == {"train": 1, "test": 4}
    assert found["order_by_split"] == {
        "train": {"pairs": 1, "first_wins": 1},
        "test": {"pairs": 3, "first_wins": 1},
    }
    assert (found["ordered_pairs"], found["first_answer_wins"]) == (4, 0.5)


def happening(chance, number):
    """Something to be counted that stands at place `number`: a reject, or some pairs."""
    place = Place("f", number, number)
    if chance.random() < 0.4:
        reason = chance.choice(("tie", "duplicate", "bad_json"))
        made = chance.random() < 0.5
        return lambda found: found.reject(place, Fault(reason, f"at {number}"), made)
    pairs = []
    for _ in range(chance.randint(1, 4)):
        texts = ("x" * chance.randint(0, 9) for _ in range(3))
        odd = [code for code in PAIR_WARNINGS if chance.random() < 0.2]
        pairs.append((place, Pair(*texts, chance.choice((True, False, None))), odd))
    split = chance.choice(("train", "test"))
    return lambda found: keep(found, split, *pairs)


def test_pieces_that_are_merged_in_order_equal_the_whole():
    for seed in range(60):
        chance = random.Random(seed)
        whole = Figures("hh", "why", ["f"], {}, ["a note"])
        merged = Figures("hh", "why", ["f"], {}, ["a note"])
        number = 0
        for _ in range(chance.randint(1, 5)):
            piece = Figures("", "", [], {})
            for _ in range(chance.randint(0, 6)):
                number += 1
                happens = happening(chance, number)
                happens(whole)
                happens(piece)
            piece.notes.append(f"note {number}")
            whole.notes.append(f"note {number}")
            for name in ("read", "converted", "made"):
                more = chance.randint(0, 3)
                setattr(piece, name, more)
                setattr(whole, name, getattr(whole, name) + more)
            merged.merge(piece)
        assert merged.as_dict() == whole.as_dict()


def test_percentiles_from_counts_equal_those_of_the_sorted_list():
    for seed in range(300):
        chance = random.Random(seed)
        sizes = [chance.randint(0, chance.choice((1, 5, 1000))) for _ in range(seed)]
        ordered, last = sorted(sizes), len(sizes) - 1
        plain = {f"p{p}": ordered[round(p / 100 * last)] for p in (5, 50, 95, 100)} if sizes else {}
        assert _percentiles(Counter(sizes)) == plain

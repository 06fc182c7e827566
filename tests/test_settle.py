"""What needs every pair: duplicates, contradictions, and a split that no row order changes."""

import random

import pytest

from data_tools.keys import pair_key, prompt_key
from data_tools.record import Fault, Pair, Place
from data_tools.settle import Settlement


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def verdicts(pairs, test_size=0.0, seed=0):
    """The split or the reason of every pair, then what settling them found out."""
    settled = settle(pairs, test_size, seed)
    found = [settled.next(Place("f", i, i)) for i in range(1, len(pairs) + 1)]
    return [item.reason if isinstance(item, Fault) else item for item in found], settled


def settle(pairs, test_size=0.0, seed=0):
    settlement = Settlement(test_size, seed)
    for pair in pairs:
        settlement.add(pair)
    return settlement.finish()


def many(count=300):
    """Two pairs of every prompt."""
    return [Pair(f"prompt {i // 2}", f"good {i}", f"bad {i}") for i in range(count)]


def test_the_first_of_equal_pairs_stays_and_later_ones_name_it():
    pairs = [Pair("P", "a", "b"), Pair("Q", "a", "b"), Pair("P", "a", "b"), Pair("P", "a ", "b\n")]
    found, _ = verdicts(pairs)
    assert found == ["train", "train", "duplicate", "duplicate"]
    settled = settle(pairs)
    told = [settled.next(Place("f", i, i)) for i in range(1, len(pairs) + 1)]
    assert told[3].detail == "the same pair stands at f:1, which is kept"


def comparison(pair):
    return pair_key(pair, prompt_key(pair.prompt))


def test_a_pair_that_is_kept_elsewhere_though_it_is_excluded_is_said():
    pairs = [Pair("P", "a", "b"), Pair("P", "b", "a"), Pair("Q", "a", "b")]
    settlement = Settlement(0.0, 0)
    settlement.add(pairs[0])
    settlement.add(pairs[2])
    settlement.exclude(comparison(pairs[0]), Place("f", 9, 9))
    settlement.exclude(comparison(Pair("Q", "b", "a")), Place("f", 8, 8))  # the other way round
    settled = settlement.finish()
    assert [settled.next(Place("f", i, i)) for i in (1, 2)] == ["train", "train"]
    (note,) = settled.notes
    assert note.startswith("f:1: kept, though the same pair is listed in --exclude-rows as f:9")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Pair("caf\u00e9", "a", "b"), Pair("cafe\u0301", "a", "b")),
        (Pair("P  x", "a", "b"), Pair(" P\tx\n", "a", "b")),
        (Pair("P", "a", "b"), Pair([user("P")], [assistant("a")], [assistant("b")])),
        (Pair([user("P", name=None)], [assistant("a")], [assistant("b")]), Pair("P", "a", "b")),
        (Pair("P", "a", "b", first_won=True), Pair("P", "a", "b", first_won=False)),
    ],
)
def test_pairs_equal_but_for_form_are_duplicates(one, other):
    assert verdicts([one, other])[0] == ["train", "duplicate"]


@pytest.mark.parametrize(
    "other",
    [
        Pair("p", "a", "b"),
        Pair("P", "a", "c"),
        Pair("P", "a", "b", tools="[]"),
        Pair("P", "a", "b", chat_template_kwargs={}),
        Pair([{"role": "system", "content": "P"}], "a", "b"),
        Pair([user("P", name="x")], "a", "b"),
        Pair("P", [assistant("a", tool_calls=[1])], "b"),
        Pair([user("P"), user("")], "a", "b"),
    ],
)
def test_pairs_that_differ_in_anything_else_both_stay(other):
    assert verdicts([Pair("P", "a", "b"), other])[0] == ["train", "train"]


def test_a_contradictory_group_goes_whole_and_names_the_first():
    pairs = [
        Pair("P", "a", "b"),
        Pair("P", "a", "c"),
        Pair("P", "b", "a"),
        Pair("P", "a", "b "),
    ]
    assert verdicts(pairs)[0] == ["contradictory", "train", "contradictory", "contradictory"]
    settled = settle(pairs)
    told = [settled.next(Place("f", i, i)) for i in range(1, len(pairs) + 1)]
    begins = "the same two answers to this prompt are also judged the other way, "
    ends = "; decide which is right and drop the other"
    assert told[0].detail == f"{begins}further on{ends}"
    assert told[2].detail == f"{begins}at f:1 or beside it{ends}"


def test_both_orders_of_one_comparison_have_one_key_per_prompt_only():
    assert verdicts([Pair("P", "a", "b"), Pair("Q", "b", "a")])[0] == ["train", "train"]


def test_a_prompt_is_never_in_both_splits():
    pairs = many()
    found, settled = verdicts(pairs, test_size=0.3)
    sides = {
        split: {p.prompt for p, s in zip(pairs, found, strict=True) if s == split}
        for split in ("train", "test")
    }
    assert not sides["train"] & sides["test"]
    assert settled.prompts == {
        "train": len(sides["train"]),
        "test": len(sides["test"]),
        "shared": 0,
    }
    assert 25 < len(sides["test"]) < 65  # 45 of 150 expected


def test_the_split_depends_on_no_row_order_and_on_no_other_row():
    pairs = many()
    found = dict(zip(pairs_key(pairs), verdicts(pairs, 0.3)[0], strict=True))
    shuffled = random.Random(1).sample(pairs, len(pairs))
    assert dict(zip(pairs_key(shuffled), verdicts(shuffled, 0.3)[0], strict=True)) == found
    half = pairs[::3]
    assert verdicts(half, 0.3)[0] == [found[key] for key in pairs_key(half)]


def pairs_key(pairs):
    return [(pair.prompt, pair.chosen) for pair in pairs]


def test_prompts_equal_but_for_form_fall_on_the_same_side():
    for i in range(50):
        forms = [
            Pair(f"caf\u00e9 {i}", "a", "b"),
            Pair(f" cafe\u0301\n{i}", "c", "d"),
            Pair([user(f"caf\u00e9 {i}")], [assistant("e")], [assistant("f")]),
        ]
        assert len(set(verdicts([*forms, *many(40)], 0.5)[0][:3])) == 1


def test_the_seed_salts_the_split():
    pairs = many()
    assert verdicts(pairs, 0.3, seed=0)[0] == verdicts(pairs, 0.3, seed=0)[0]
    assert verdicts(pairs, 0.3, seed=0)[0] != verdicts(pairs, 0.3, seed=1)[0]


def test_a_larger_share_only_adds_to_test():
    pairs = many()
    small, large = verdicts(pairs, 0.1)[0], verdicts(pairs, 0.4)[0]
    assert all(b == "test" for a, b in zip(small, large, strict=True) if a == "test")


def test_a_share_of_nothing_writes_train_only():
    found, settled = verdicts(many(), 0.0)
    assert set(found) == {"train"}
    assert settled.notes == []


def test_train_is_never_empty():
    found, settled = verdicts([Pair("P", "a", "b")], 0.999999)
    assert found == ["train"]
    assert settled.prompts == {"train": 1, "test": 0, "shared": 0}
    assert settled.notes == ["train would have been empty, so every pair is in train"]


def test_rejected_pairs_count_as_no_prompts():
    _, settled = verdicts([Pair("P", "a", "b"), Pair("P", "b", "a"), Pair("Q", "a", "b")])
    assert settled.prompts == {"train": 1, "test": 0, "shared": 0}
    assert verdicts([])[1].prompts == {"train": 0, "test": 0, "shared": 0}


def test_the_prompt_key_is_sixteen_bytes_that_fold_form():
    assert len(prompt_key("P")) == 16
    assert prompt_key(" caf\u00e9  x") == prompt_key([user("cafe\u0301 x\n")])
    assert prompt_key("P") != prompt_key("p")
    assert prompt_key("a b") != prompt_key("ab")

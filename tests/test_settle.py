"""What needs every pair: duplicates, contradictions, and a split that no row order changes."""

import random
from collections import defaultdict

import numpy as np
import pytest

from data_tools.keys import pair_key, prompt_key
from data_tools.record import ConvertError, Pair, Place
from data_tools.settle import Settlement, Split, entry

NAMES = ("train", "test", "contradictory", "duplicate")


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def verdicts(pairs, test_size=0.0, seed=0):
    """The split or the reason of every pair, then what settling them found out."""
    split = Split(test_size, seed)
    settled = settle([entry(pair, split) for pair in pairs])
    return [NAMES[verdict] for verdict in settled.verdicts], settled


def settle(entries, excluded=(), **how):
    """What becomes of these pairs, whose entries come in pieces of up to three."""
    settlement = Settlement(**how)
    for start in range(0, len(entries), 3):
        settlement.add(b"".join(entries[start : start + 3]))
    for comparison, place in excluded:
        settlement.exclude(comparison, place)
    return settlement.finish()


def many(count=300):
    """Two pairs of every prompt."""
    return [Pair(f"prompt {i // 2}", f"good {i}", f"bad {i}") for i in range(count)]


def record(pair):
    return {"prompt": pair.prompt, "chosen": pair.chosen, "rejected": pair.rejected}


def test_the_first_of_equal_pairs_stays_and_later_ones_name_it(convert_file):
    pairs = [Pair("P", "a", "b"), Pair("Q", "a", "b"), Pair("P", "a", "b"), Pair("P", "a ", "b\n")]
    found, settled = verdicts(pairs)
    assert found == ["train", "train", "duplicate", "duplicate"]
    assert (settled.dropped.tolist(), settled.first.tolist()) == ([2, 3], [0, 0])
    rejects = convert_file([record(pair) for pair in pairs]).rejects
    assert [(reject["line"], reject["reason"]) for reject in rejects] == [
        (3, "duplicate"),
        (4, "duplicate"),
    ]
    assert rejects[1]["detail"] == "the same pair stands at raw.jsonl:1, which is kept"


def comparison(pair):
    return pair_key(pair, prompt_key(pair.prompt))


def test_a_pair_that_is_kept_elsewhere_though_it_is_excluded_is_told():
    pairs = [Pair("P", "a", "b"), Pair("Q", "a", "b")]
    entries = [entry(pair, Split(0.0, 0)) for pair in pairs]
    place, other = Place("f", 9, 9), Place("f", 8, 8)
    around = Pair("Q", "b", "a")
    excluded = [(comparison(pairs[0]), place), (comparison(around), other)]
    settled = settle(entries, excluded)
    assert settled.verdicts.tolist() == [0, 0]
    assert settled.again == {0: place}


def test_what_is_kept_though_it_is_excluded_elsewhere_is_a_note(convert_file, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"source": "raw.jsonl:3"}\n{"source": "raw.jsonl:4"}\n')
    pairs = [Pair("P", "a", "b"), Pair("Q", "a", "b"), Pair("P", "a", "b"), Pair("Q", "b", "a")]
    done = convert_file([record(pair) for pair in pairs], "--exclude-rows", "rows.jsonl")
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1", "raw.jsonl:2"]
    assert done.report["notes"] == [
        "raw.jsonl:1: kept, though the same pair is listed in --exclude-rows as raw.jsonl:3; "
        "list this place too, if neither is wanted"
    ]


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


def test_a_contradictory_group_goes_whole_and_names_the_first(convert_file):
    pairs = [
        Pair("P", "a", "b"),
        Pair("P", "a", "c"),
        Pair("P", "b", "a"),
        Pair("P", "a", "b "),
    ]
    found, settled = verdicts(pairs)
    assert found == ["contradictory", "train", "contradictory", "contradictory"]
    assert (settled.dropped.tolist(), settled.first.tolist()) == ([0, 2, 3], [0, 0, 0])
    done = convert_file([record(pair) for pair in pairs])
    details = {reject["line"]: reject["detail"] for reject in done.rejects}
    begins = "the same two answers to this prompt are also judged the other way, "
    ends = "; decide which is right and drop the other"
    assert details == {
        1: f"{begins}further on{ends}",
        3: f"{begins}at raw.jsonl:1 or beside it{ends}",
        4: f"{begins}at raw.jsonl:1 or beside it{ends}",
    }


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


# The same, one pair after the other and with nothing but dictionaries.


def slowly(pairs, split, excluded):
    """What becomes of every pair, the first of its group, the prompts, and what is kept again."""
    groups, order = defaultdict(list), []
    for number, pair in enumerate(pairs):
        key, forward = comparison(pair)
        groups[key].append((number, forward))
        order.append(key)
    found, first, kept, again = [], {}, defaultdict(set), {}
    listed = {}
    for what, place in excluded:
        listed.setdefault(what, place)
    for number, (pair, key) in enumerate(zip(pairs, order, strict=True)):
        group = groups[key]
        if len({forward for _, forward in group}) == 2:
            verdict = "contradictory"
        elif group[0][0] < number:
            verdict = "duplicate"
        else:
            verdict = "test" if split.in_test(prompt_key(pair.prompt)) else "train"
            kept[verdict].add(pair.prompt)
            if place := listed.get(comparison(pair)):
                again[number] = place
        if verdict in ("contradictory", "duplicate"):
            first[number] = group[0][0]
        found.append(verdict)
    if kept["test"] and not kept["train"]:
        found = ["train" if verdict == "test" else verdict for verdict in found]
        kept = {"train": kept["test"], "test": set()}
    prompts = {"train": len(kept["train"]), "test": len(kept["test"])}
    return found, first, prompts | {"shared": 0}, again


def anything(chance):
    """Random pairs of few prompts and fewer answers, and some that are excluded elsewhere."""
    answers = "abcd"[: chance.randint(2, 4)]
    most = chance.choice((1, 3, 40))

    def one():
        return Pair(f"P{chance.randrange(most)}", *chance.sample(answers, 2))

    pairs = [one() for _ in range(chance.randint(0, 80))]
    excluded = [(comparison(one()), Place("f", n, n)) for n in range(chance.randint(0, 4))]
    return pairs, excluded


@pytest.mark.parametrize("spilled", [False, True])
def test_settling_by_sorted_keys_equals_settling_by_dictionaries(tmp_path, spilled):
    for number in range(150):
        chance = random.Random(number)
        split = Split(chance.choice((0.0, 0.3, 0.9)), chance.randrange(5))
        pairs, excluded = anything(chance)
        how = {"folder": str(tmp_path), "limit": chance.choice((0, 16, 200))} if spilled else {}
        settled = settle([entry(pair, split) for pair in pairs], excluded, **how)
        found, first, prompts, again = slowly(pairs, split, excluded)
        assert [NAMES[verdict] for verdict in settled.verdicts] == found
        assert dict(zip(settled.dropped.tolist(), settled.first.tolist(), strict=True)) == first
        assert settled.prompts == prompts
        assert settled.again == again
        start, stop = sorted(chance.choices(range(len(pairs) + 1), k=2))
        some, leaders = settled.between(start, stop)
        assert [NAMES[verdict] for verdict in some] == found[start:stop]
        assert leaders.tolist() == [first[n] for n in range(start, stop) if n in first]
        assert not list(tmp_path.iterdir())


def test_pairs_that_were_spilled_all_leave_no_keys_in_memory(tmp_path):
    pairs = many()
    split = Split(0.3, 0)
    settlement = Settlement(str(tmp_path), limit=64)
    for pair in pairs:
        settlement.add(entry(pair, split))
        assert settlement._size <= 64
    assert len(list(tmp_path.iterdir())) > 30  # of the 64 ranges
    assert np.array_equal(settlement.finish().verdicts, verdicts(pairs, 0.3)[1].verdicts)


def test_more_pairs_than_numbers_can_tell_apart_are_refused(monkeypatch):
    monkeypatch.setattr("data_tools.settle._MOST", 5)
    with pytest.raises(ConvertError) as caught:
        settle([entry(pair, Split(0.0, 0)) for pair in many(6)])
    assert str(caught.value) == "more than 5 pairs; convert the input in pieces"
    assert caught.value.status == 1

"""What needs every pair: duplicates, contradictions, and a split that no row order changes."""

import random
from collections import defaultdict

import numpy as np
import pytest

from data_tools import dedupe
from data_tools.dedupe import FORWARD, IN_TEST
from data_tools.keys import pair_key, prompt_key
from data_tools.record import ConvertError
from data_tools.splits import Split

NAMES = ("train", "test", "contradictory", "duplicate")
NO_TEST = Split(0.0, 0)


def key_of(pair, split=NO_TEST):
    """What the deduplicator gets of a pair: 16 bytes whose last two bits are flags."""
    key, forward = pair_key(*pair)
    flags = FORWARD * forward | IN_TEST * split.in_test(prompt_key(pair[0]))
    return key[:15] + bytes([key[15] & 0xFC | flags])


def deduplicated(pairs, split=NO_TEST, **options):
    """The verdicts on these pairs, which are in blocks of up to three."""
    keys = np.frombuffer(b"".join(key_of(pair, split) for pair in pairs), dedupe.KEY)
    blocks = [keys[start : start + 3] for start in range(0, len(keys), 3)]
    return dedupe.dedupe(lambda: iter(blocks), len(keys), **options)


def names(verdicts):
    return [NAMES[verdict] for verdict in verdicts.of]


def test_prompts_that_differ_only_in_form_fall_on_the_same_side():
    split = Split(0.5, 0)
    for i in range(50):
        forms = (f"caf\u00e9 {i}", f" cafe\u0301\n{i}", [{"role": "user", "content": f"café {i}"}])
        assert len({split.in_test(prompt_key(form)) for form in forms}) == 1


def test_the_seed_salts_the_split_and_a_larger_share_only_adds_to_test():
    keys = [prompt_key(str(i)) for i in range(300)]

    def in_test(*split):
        return {key for key in keys if Split(*split).in_test(key)}

    assert in_test(0.0, 0) == set()
    assert in_test(0.1, 0) < in_test(0.4, 0) == in_test(0.4, 0)
    assert in_test(0.4, 0) != in_test(0.4, 1)


def with_dictionaries(pairs, split):
    """The verdict on every pair, the first of its group, and the prompts."""
    groups = defaultdict(list)
    for number, pair in enumerate(pairs):
        key, forward = pair_key(*pair)
        groups[key].append((number, forward))
    found, first, kept = [], {}, defaultdict(set)
    for number, pair in enumerate(pairs):
        group = groups[pair_key(*pair)[0]]
        if len({forward for _, forward in group}) == 2:
            verdict = "contradictory"
        elif group[0][0] < number:
            verdict = "duplicate"
        else:
            verdict = "test" if split.in_test(prompt_key(pair[0])) else "train"
            kept[verdict].add(pair[0])
        if verdict in ("contradictory", "duplicate"):
            first[number] = group[0][0]
        found.append(verdict)
    if kept["test"] and not kept["train"]:
        found = ["train" if verdict == "test" else verdict for verdict in found]
        kept = {"train": kept["test"], "test": set()}
    prompts = {"train": len(kept["train"]), "test": len(kept["test"]), "shared": 0}
    return found, first, prompts


@pytest.mark.parametrize("in_ranges", [False, True], ids=["at once", "in ranges"])
def test_sorted_keys_give_what_plain_dictionaries_give(in_ranges):
    for seed in range(150):
        dice = random.Random(seed)
        answers, prompts = "abcd"[: dice.randint(2, 4)], dice.choice((1, 3, 40))

        def one(dice=dice, answers=answers, prompts=prompts):
            return f"P{dice.randrange(prompts)}", *dice.sample(answers, 2)

        pairs = [one() for _ in range(dice.randint(0, 80))]
        split = Split(dice.choice((0.0, 0.3, 0.9)), dice.randrange(5))
        limit = {"limit": dice.choice((1, 2, 20))} if in_ranges else {}
        found = deduplicated(pairs, split, **limit)
        expected, first, counts = with_dictionaries(pairs, split)
        assert names(found) == expected
        assert dict(zip(found.dropped.tolist(), found.first.tolist(), strict=True)) == first
        assert found.prompts == counts
        start, stop = sorted(dice.choices(range(len(pairs) + 1), k=2))
        some, leaders = found.between(start, stop)
        assert [NAMES[verdict] for verdict in some] == expected[start:stop]
        assert leaders.tolist() == [first[n] for n in range(start, stop) if n in first]


def test_more_pairs_than_32_bits_can_number_are_refused(monkeypatch):
    monkeypatch.setattr(dedupe, "_MOST", 5)
    with pytest.raises(ConvertError) as caught:
        deduplicated([("P", str(i), "b") for i in range(6)])
    assert str(caught.value) == "more than 5 pairs; convert the input in parts"
    assert caught.value.status == 1

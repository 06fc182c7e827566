"""prefix_sharing.layout: a padded batch as a row of distinct tokens."""

import pytest
import torch
from sharing_models import EOS, asked, padded, pairs

from dpo_wrap.prefix_sharing.layout import IGNORED, Span, layout_of

NAMES = ("input_ids", "attention_mask", "labels")


def laid_out(batch):
    return layout_of(*(asked(batch)[name] for name in NAMES))


def by_hand(batch):
    """The same in plain Python, token by token: ids, positions, places and spans."""
    ids, mask = batch["input_ids"].tolist(), batch["attention_mask"].tolist()
    rows = [
        [i for i, real in zip(*row, strict=True) if real] for row in zip(ids, mask, strict=True)
    ]
    half, tokens, positions, places, spans = len(rows) // 2, [], [], {}, []
    for pair in range(half):
        chosen, rejected = rows[pair], rows[half + pair]
        shared = 0
        while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
            shared += 1
        for place, token in enumerate(chosen):
            places[pair, place] = len(tokens)
            tokens.append(token)
            positions.append(place)
        for place, token in enumerate(rejected):
            if place < shared:
                places[half + pair, place] = places[pair, place]
                continue
            places[half + pair, place] = len(tokens)
            tokens.append(token)
            positions.append(place)
        spans.append(Span(shared, len(chosen), len(rejected)))
    return tokens, positions, places, spans


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_counting_token_by_token_gives(seed):
    options = [{}, {"max_length": 15}, {"max_length": 15, "truncation_mode": "keep_end"}]
    batch = padded(pairs(seed, count=1 + seed % 6), **options[seed % 3])
    layout = laid_out(batch)
    tokens, positions, places, spans = by_hand(batch)
    assert layout.input_ids.tolist() == [tokens]
    assert layout.position_ids.tolist() == [positions]
    assert list(layout.spans) == spans
    for (row, place), number in places.items():
        assert layout.places[row, place] == number
    # Back in the batch every token of the row is itself, at a place of its own.
    assert batch["input_ids"].flatten()[layout.origins].tolist() == tokens
    assert len(set(layout.origins.tolist())) == len(tokens)


@pytest.mark.parametrize("seed", range(6))
def test_every_answer_token_is_scored_from_the_state_before_it(seed):
    batch = padded(pairs(seed))
    layout, places = laid_out(batch), by_hand(batch)[2]
    labels = asked(batch)["labels"]
    expected = [
        (places[row, place], labels[row, place + 1].item())
        for row in range(layout.rows)
        for place in range(layout.width - 1)
        if labels[row, place + 1] != IGNORED
    ]
    found = zip(layout.scored_places.tolist(), layout.labels[0].tolist(), strict=True)
    assert list(found) == expected
    assert len(expected) == sum(
        len(row[side]) for row in pairs(seed) for side in ("chosen_ids", "rejected_ids")
    )


def test_no_token_stands_twice_and_no_padding_is_left():
    row = {"prompt_ids": [5] * 30, "chosen_ids": [6, 7, EOS], "rejected_ids": [6, 8, 9, EOS]}
    layout = laid_out(padded([row, {**row, "prompt_ids": [5]}]))
    # The answers' common beginning is shared like the prompt.
    assert layout.spans == (Span(31, 33, 34), Span(2, 4, 5))
    assert layout.input_ids.numel() == (30 + 1 + 2 + 3) + (1 + 1 + 2 + 3)


def test_an_answer_that_is_the_beginning_of_the_other_has_nothing_of_its_own():
    row = {"prompt_ids": [5, 6], "chosen_ids": [7], "rejected_ids": [7, 8]}
    layout = laid_out(padded([row]))
    assert layout.spans == (Span(3, 3, 4),)
    # The prompt's last state is scored for both.
    assert layout.scored_places.tolist() == [1, 1, 2]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda batch: {name: value.flip(1) for name, value in batch.items()},
        lambda batch: {name: value[1:] for name, value in batch.items()},
        lambda batch: batch | {"attention_mask": batch["attention_mask"].scatter(1, HOLE, 0)},
    ],
    ids=["padded on the left", "an odd row", "a hole"],
)
def test_a_batch_that_is_none_of_trls_has_no_layout(spoil):
    batch = padded(pairs(3, count=2))
    assert laid_out(batch) is not None
    assert laid_out(spoil(batch)) is None


HOLE = torch.zeros(4, 1, dtype=torch.long)

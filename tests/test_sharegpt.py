"""LLaMA-Factory's ShareGPT records: turns to messages, and which turn is at fault."""

import pytest

from data_tools.formats import FORMATS
from data_tools.formats.shape import Meaning
from data_tools.record import Fault


def made(record):
    """[(prompt, chosen, rejected)] or (reason, detail) of a record."""
    found = FORMATS["sharegpt"].pairs(record, Meaning())
    if isinstance(found, Fault):
        return found.reason, found.detail
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in found]


def test_sharegpt_turns_become_messages():
    record = {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"},
        ],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": "bad",
        "system": "s",
    }
    assert made(record) == [
        (
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"},
            ],
            [{"role": "assistant", "content": "good"}],
            [{"role": "assistant", "content": "bad"}],
        ),
    ]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"conversations": "x"}, "wrong_type", "conversations is 'x'; it must be a list of turns"),
        (
            {"conversations": None},
            "missing_field",
            "conversations is None; it must be a list of turns",
        ),
        (
            {"conversations": [{"from": "bot", "value": "x"}]},
            "bad_roles",
            "turn 1 of conversations is from 'bot'; known are assistant, gpt, human, observation, "
            "system, tool, user",
        ),
        (
            {"conversations": ["x"]},
            "wrong_type",
            "turn 1 of conversations is 'x'; it must be an object with from and value",
        ),
        ({"chosen": {"from": "gpt"}}, "missing_field", "value of chosen is None; it must be text"),
        (
            {"chosen": None, "rejected": 7},
            "wrong_type",
            "rejected is 7; it must be an object with from and value",
        ),
        ({"system": 7}, "wrong_type", "system is 7; it must be text"),
    ],
)
def test_a_sharegpt_record_that_is_no_pair_says_which_turn_and_why(change, reason, detail):
    assert made(FORMATS["sharegpt"].passing | change) == (reason, detail)

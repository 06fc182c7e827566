"""Sides of a pair: what they may be, and how whole dialogues give up their prompt."""

import pytest

from data_tools.formats import FORMATS
from data_tools.formats.shape import Meaning
from data_tools.record import Fault


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def made(record):
    """[(prompt, chosen, rejected)] or (reason, detail) of a record."""
    found = FORMATS["preference"].pairs(record, Meaning())
    if isinstance(found, Fault):
        return found.reason, found.detail
    return [(pair.prompt, pair.chosen, pair.rejected) for pair in found]


def test_messages_are_taken_as_they_are():
    record = {"prompt": [user("P")], "chosen": [assistant("C")], "rejected": [assistant("R")]}
    assert made(record) == [([user("P")], [assistant("C")], [assistant("R")])]


def test_one_message_without_a_list_around_it_is_one_message():
    record = {"prompt": user("P"), "chosen": assistant("C"), "rejected": "R"}
    assert made(record) == [([user("P")], [assistant("C")], [assistant("R")])]


def test_whole_dialogues_beside_a_text_prompt_are_split_at_the_turn_that_it_is():
    record = {
        "prompt": "P",
        "chosen": [user("P"), assistant("C")],
        "rejected": [user("P"), assistant("R")],
    }
    assert made(record) == [([user("P")], [assistant("C")], [assistant("R")])]
    assert made(record | {"prompt": " P\n"}) == made(record)
    assert made(record | {"prompt": "other"}) == (
        "history_mismatch",
        "the prompt's text is no user turn of the two dialogues",
    )


def test_whole_dialogues_beside_prompt_messages_must_begin_with_them():
    record = {
        "prompt": [user("P")],
        "chosen": [user("P"), assistant("C")],
        "rejected": [user("P"), assistant("R")],
    }
    assert made(record) == [([user("P")], [assistant("C")], [assistant("R")])]
    assert made(record | {"prompt": [user("Q")]}) == (
        "history_mismatch",
        "the dialogues do not begin with the turns of the prompt",
    )
    assert made(record | {"rejected": [assistant("R")]}) == (
        "history_mismatch",
        "one answer is a whole dialogue and the other is not; give both or neither the history",
    )


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"chosen": None}, "missing_field", "chosen is missing or null; give it a text"),
        ({"prompt": 7}, "wrong_type", "prompt is 7; it must be text or a list of messages"),
        (
            {"chosen": None, "rejected": 1.5},
            "wrong_type",
            "rejected is 1.5; it must be text or a list of messages",
        ),
        ({"chosen": ["C"]}, "wrong_type", "chosen is ['C']; it must be text or a list of messages"),
        (
            {"chosen": [{"content": "C"}]},
            "missing_field",
            "message 1 of chosen has no role that is text (None)",
        ),
        (
            {"chosen": [{"role": 1, "content": "C"}]},
            "wrong_type",
            "message 1 of chosen has no role that is text (1)",
        ),
        (
            {"chosen": [assistant(None)]},
            "missing_field",
            "message 1 of chosen has no content; give it a text",
        ),
        (
            {"chosen": [assistant(7)]},
            "wrong_type",
            "the content of message 1 of chosen is 7, not text",
        ),
        (
            {"chosen": [assistant([{"type": "image_url", "image_url": "x"}])]},
            "wrong_type",
            "message 1 of chosen holds a block of type 'image_url'; only text blocks can be "
            "trained on here",
        ),
        (
            {"chosen": [assistant([{"type": "text"}])]},
            "wrong_type",
            "a text block of message 1 of chosen holds no text",
        ),
        ({"tools": 7}, "wrong_type", "tools is 7; it must be a list or a JSON string"),
        (
            {"chat_template_kwargs": "x"},
            "wrong_type",
            "chat_template_kwargs is 'x'; it must be an object",
        ),
    ],
)
def test_a_record_that_is_no_pair_says_which_field_and_why(change, reason, detail):
    record = {"prompt": "P", "chosen": "C", "rejected": "R"} | change
    assert made(record) == (reason, detail)


def test_text_blocks_of_one_message_are_joined():
    blocks = [{"type": "text", "text": "one "}, {"type": "text", "value": "two"}]
    record = {"prompt": "P", "chosen": [assistant(blocks)], "rejected": "R"}
    assert made(record)[0][1] == [assistant("one two")]


def test_tool_calls_tools_and_template_arguments_pass_unaltered():
    calls = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}]
    record = {
        "prompt": "P",
        "chosen": [assistant(None, tool_calls=calls)],
        "rejected": "R",
        "tools": [{"name": "f"}],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    (pair,) = FORMATS["preference"].pairs(record, Meaning())
    assert pair.chosen == [assistant(None, tool_calls=calls)]
    assert pair.tools == '[{"name": "f"}]'
    assert pair.chat_template_kwargs == {"enable_thinking": False}

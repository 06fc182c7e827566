"""Text and messages asked the same questions."""

import pytest

from data_tools.side import as_messages, fold, size, texts

TURNS = [{"role": "user", "content": "four"}, {"role": "assistant", "content": None}]


def test_a_text_is_the_one_message_that_it_stands_for():
    assert as_messages("x", "user") == [{"role": "user", "content": "x"}]
    assert as_messages(TURNS, "assistant") is TURNS


def test_texts_and_sizes_leave_out_what_has_no_content():
    assert (texts("four"), texts(TURNS), texts([])) == (["four"], ["four"], [])
    assert (size("four"), size(TURNS), size([])) == (4, 4, 0)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("", ""),
        (" a\r\n\tb\u3000c ", "a b c"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u212b", "\u00c5"),
        ("A\u200bb", "A\u200bb"),
    ],
)
def test_folding_takes_unicode_form_and_white_space_and_nothing_else(text, folded):
    assert fold(text) == folded

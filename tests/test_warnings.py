"""What is unusual but kept: warnings for single pairs and for shares of the whole dataset."""

import time

import pytest
from converting import assistant, pair, user

from data_tools.checks import (
    PAIR_WARNINGS,
    TEMPLATE_TOKENS,
    WARNINGS,
    pair_warnings,
    share_warnings,
)
from data_tools.keys import Column

CLEAN = [
    "plain < text > with a & b, x[0] and [[1, 2], [3, 4]]",
    "I wrote Copy code on the button, and Regenerate response below it.",
    "a block ▌ in the middle",
    "The network error due to high traffic is gone.",
    "[[D]] is no verdict, nor is [[7]] alone; [the start of assistant]",
    "<|im start|> <channel> [inst] <S>",
    "NÃO, NÃ… and â€ alone",
    "#N/A is an error, # is none",
    "x" * 32_766,
    "a\u200db",  # a zero-width joiner, which emoji and Persian need
]
UNUSUAL = [
    ("one<br/>two", ("html",)),
    ("&nbsp;", ("html",)),
    ("caf\ufffd", ("replacement_character",)),
    ("itâ€™s", ("mojibake",)),
    ("â€œyesâ€\x9d", ("mojibake",)),
    ("cafÃ©", ("mojibake",)),
    ("#NAME?", ("spreadsheet_error",)),
    (" #REF!\n", ("spreadsheet_error",)),
    ("x" * 32_767, ("cell_limit",)),
    ("a\u200bb", ("zero_width",)),
    ("end</s>", ("template_tokens",)),
    ("<|im_start|>user <b>x</b>", ("html", "template_tokens")),
    ("NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE", ("page_residue",)),
    ("$MODERATION$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES.", ("page_residue",)),
    ("still writing▌", ("page_residue",)),
    ("still writing ▌ \n", ("page_residue",)),
    ("print(1)\n  Copy code \nprint(2)", ("page_residue",)),
    ("print(1)\r\nCopy code\r\nprint(2)", ("page_residue",)),
    ("an answer\nRegenerate response", ("page_residue",)),
    ("so my verdict is [[A]]", ("judge_residue",)),
    ("a tie: [[C]]", ("judge_residue",)),
    ("[[A>>B]]", ("judge_residue",)),
    ("[[A=B]]", ("judge_residue",)),
    ("Rating: [[7]]", ("judge_residue",)),
    ("Rating: [[7.5]]", ("judge_residue",)),
    ("[The Start of Assistant A's Answer]", ("judge_residue",)),
    ("<|The Start of Assistant A's Conversation with User|>", ("judge_residue",)),
    ("<|The End of Reference Answer|>", ("judge_residue",)),
]


def warned(*sides):
    """The warnings of one pair, which is next to two clean ones."""
    texts = isinstance(sides[0], str)
    clean = ("Q", "yes", "no") if texts else ([user("Q")], [assistant("yes")], [assistant("no")])
    columns = [Column([c, side, c], "user") for c, side in zip(clean, sides, strict=True)]
    before, bits, after = pair_warnings(columns)
    assert before == after == 0
    return tuple(code for at, code in enumerate(PAIR_WARNINGS) if bits >> at & 1)


def test_a_pair_is_warned_of_whichever_of_its_sides_is_unusual():
    for text, codes in [*UNUSUAL, *((text, ()) for text in CLEAN)]:
        turns = [user("P"), assistant(text)]
        for sides in ((text, "C", "R"), ("P", text, "R"), ("P", "C", text)):
            assert warned(*sides) == codes, text
        assert warned(turns, [assistant("C")], [assistant("R")]) == codes, text


def test_every_template_token_is_found_as_it_is_spelt_and_not_in_part():
    families = {"<|im_start|>", "<|eot_id|>", "<<SYS>>", "<start_of_turn>", "<｜Assistant｜>"}
    assert families < {*TEMPLATE_TOKENS}
    for token in TEMPLATE_TOKENS:
        assert "template_tokens" in warned(f"before{token}after", "C", "R"), token
        for part in (token[1:], token[:-1]):
            if not any(other in part for other in TEMPLATE_TOKENS):
                assert "template_tokens" not in warned(part, "C", "R"), part


def test_every_warning_has_its_sentence():
    whole = {"alike_across_splits", "unread_context", "first_answer_bias", "length_bias"}
    found = {code for _, codes in UNUSUAL for code in codes} | {"prompt_repeated"}
    assert found == {*PAIR_WARNINGS}
    assert {*PAIR_WARNINGS} | whole == {*WARNINGS}


def test_no_pattern_is_slow_on_a_long_text():
    texts = ["<" * 100_000, "[" * 100_000, "<p " * 33_000, "&aaaaaa" * 14_000]
    texts += ["▌" + " " * 99_999 + "x", ("▌" + " " * 99) * 1_000 + "x", " " * 99_999 + "Copy codes"]
    for text in (*texts, "Rating: [[" * 10_000, "[The Start of " * 7_000):
        start = time.process_time()
        warned(text, "C", "R")
        assert time.process_time() - start < 0.5, text[:20]


@pytest.mark.parametrize(
    ("wins", "of", "larger"),
    [
        (70, 100, 70),
        (30, 100, 70),
        (10, 10, 10),
        (61_000, 100_000, 61_000),
        (59_999, 100_000, None),  # 190 standard errors off, but not far
        (61, 100, None),  # far, but 2.2 standard errors
        (5, 5, None),
        (65, 100, None),  # exactly three standard errors
        (66, 100, 66),
        (50, 100, None),
        (0, 0, None),
    ],
)
def test_a_share_far_from_one_half_and_not_by_chance_is_a_warning(wins, of, larger):
    first = {} if larger is None else {"first_answer_bias": larger}
    length = {} if larger is None else {"length_bias": larger}
    assert share_warnings(wins, of, 0, 0) == first
    assert share_warnings(0, 0, wins, of) == length
    assert share_warnings(wins, of, wins, of) == first | length


def test_a_warning_counts_every_kept_pair_and_names_the_first(convert_file):
    texts = ["C", "<br>", "<br>\u200b", "<br>", "\u200b"]
    records = [pair(number, chosen=text) for number, text in enumerate(texts)]
    done = convert_file([*records, records[1], pair(9, chosen="", rejected="<br>")])
    assert done.report["warnings"] == {"html": 3, "zero_width": 2}
    assert done.report["warning_examples"] == {"html": "raw.jsonl:2", "zero_width": "raw.jsonl:3"}
    assert "          3 html                  raw.jsonl:2: HTML tags or entities\n" in done.out

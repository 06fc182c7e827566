"""What looks odd but is kept: in one pair, between the splits, and over the whole dataset."""

import time

import pytest

from data_tools import odd
from data_tools.record import Pair


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CLEAN = [
    "plain < text > with a & b, x[0] and [[1, 2], [3, 4]]",
    "I wrote Copy code on the button, and Regenerate response below it.",
    "a block ▌ in the middle",
    "The network error due to high traffic is gone.",
    "[[D]] is no verdict, nor is [[7]] alone; [the start of assistant]",
    "<|im start|> <channel> [inst] <S>",
    "a\u200db",  # a zero-width joiner, which emoji and Persian need
]
ODD = [
    ("one<br/>two", ("html",)),
    ("&nbsp;", ("html",)),
    ("caf\ufffd", ("replacement_character",)),
    ("a\u200bb", ("zero_width",)),
    ("end</s>", ("template_tokens",)),
    ("<|im_start|>user <b>x</b>", ("html", "template_tokens")),
    ("NETWORK ERROR DUE TO HIGH TRAFFIC. PLEASE REGENERATE", ("page_residue",)),
    (
        "$MODERATION$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES.",
        ("page_residue",),
    ),
    ("still writing▌", ("page_residue",)),
    ("still writing ▌ \n", ("page_residue",)),
    ("print(1)\n  Copy code \nprint(2)", ("page_residue",)),
    ("print(1)\r\nCopy code\r\nprint(2)", ("page_residue",)),
    ("an answer\nRegenerate response", ("page_residue",)),
    ("so my verdict is [[A]]", ("judge_residue",)),
    ("[[B]]", ("judge_residue",)),
    ("a tie: [[C]]", ("judge_residue",)),
    ("[[A>>B]]", ("judge_residue",)),
    ("[[A=B]]", ("judge_residue",)),
    ("Rating: [[7]]", ("judge_residue",)),
    ("Rating: [[7.5]]", ("judge_residue",)),
    ("[The Start of Assistant A's Answer]", ("judge_residue",)),
    ("[The End of Assistant B's Answer]", ("judge_residue",)),
    ("<|The Start of Assistant A's Conversation with User|>", ("judge_residue",)),
    ("<|The End of Reference Answer|>", ("judge_residue",)),
]


@pytest.mark.parametrize(
    ("text", "codes"),
    [*ODD, *((text, ()) for text in CLEAN)],
    ids=lambda value: ascii(value)[:40] if isinstance(value, str) else "",
)
def test_what_looks_odd_but_is_kept_is_a_warning_wherever_it_stands(text, codes):
    assert odd.warnings(Pair(text, "C", "R")) == codes
    assert odd.warnings(Pair("P", text, "R")) == codes
    assert odd.warnings(Pair("P", "C", text)) == codes
    assert odd.warnings(Pair([user("P")], [assistant("C")], [assistant(text)])) == codes


@pytest.mark.parametrize("token", odd.TEMPLATE_TOKENS, ids=ascii)
def test_every_template_token_is_seen_as_it_is_spelt_and_not_in_part(token):
    assert "template_tokens" in odd.warnings(Pair(f"before{token}after", "C", "R"))
    for part in (token[1:], token[:-1]):
        if not any(other in part for other in odd.TEMPLATE_TOKENS):
            assert "template_tokens" not in odd.warnings(Pair(part, "C", "R"))


def test_the_template_tokens_of_the_well_known_families_are_among_them():
    assert {
        "<|im_start|>",
        "<|start_header_id|>",
        "<|eot_id|>",
        "<<SYS>>",
        "[/INST]",
        "<start_of_turn>",
        "<|assistant|>",
        "<|end|>",
        "<|channel|>",
        "<｜Assistant｜>",
        "<|endoftext|>",
    } <= set(odd.TEMPLATE_TOKENS)


def test_every_warning_has_its_word():
    seen = {code for _, codes in ODD for code in codes}
    whole = {"alike_across_splits", "first_answer_bias", "length_bias"}
    assert seen | whole == set(odd.WARNINGS)


@pytest.mark.parametrize(
    "text",
    [
        "<" * 100_000,
        "[" * 100_000,
        "<p " * 33_000,
        "&aaaaaa" * 14_000,
        "▌" + " " * 99_999 + "x",
        ("▌" + " " * 99) * 1_000 + "x",
        " " * 99_999 + "Copy codes",
        "Rating: [[" * 10_000,
        "[The Start of " * 7_000,
    ],
    ids=lambda text: text[:10].strip(),
)
def test_no_long_text_makes_a_pattern_crawl(text):
    start = time.process_time()
    odd.warnings(Pair(text, "C", "R"))
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("wins", "of", "heavier"),
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
def test_a_share_far_from_one_half_and_not_by_chance_is_a_warning(wins, of, heavier):
    first = {} if heavier is None else {"first_answer_bias": heavier}
    length = {} if heavier is None else {"length_bias": heavier}
    assert odd.share_warnings(wins, of, 0, 0) == first
    assert odd.share_warnings(0, 0, wins, of) == length
    assert odd.share_warnings(wins, of, wins, of) == first | length

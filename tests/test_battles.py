"""Battles of two models and compared summaries: who won, and whose judgement it is."""

import pytest
from reading_formats import (
    EXAMPLES,
    assistant,
    cases,
    check_fault,
    fault,
    outcome,
    pairs,
    results,
    system,
    user,
)


def arena(winner, **more):
    sides = {f"conversation_{x}": [user("P"), assistant(x.upper())] for x in "ab"}
    return sides | {"winner": winner} | more


def row(*winner, **more):
    record = {"prompt": '["P"]', "response_a": '["A"]', "response_b": '["B"]'}
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    return record | dict(zip(names, winner, strict=True)) | more


def compared(choice, **more):
    info = {"subreddit": "tea", "title": "T", "post": "P"}
    return {"info": info, "summaries": [{"text": "A"}, {"text": "B"}], "choice": choice} | more


OUTCOMES = {
    ("arena", "first"): [arena("model_a"), arena("A"), arena("model_a", model_a="m1", turn=1)],
    ("arena", "second"): [arena("model_b"), arena("model_b", judge="ann")],
    ("arena", "tie"): [arena("tie"), arena("tie (bothbad)"), arena("tie", judge="ann")],
    ("arena", "null_label"): [arena(None), arena("", judge="ann")],
    ("arena", "unknown_label"): [arena("vicuna", judge="ann"), arena("m1", model_a="m2"), arena(1)],
    ("arena-55k", "first"): [row(one, zero, zero) for one in (1, 1.0, "1.0") for zero in (0, "0")],
    ("arena-55k", "second"): [row("", 1, None), row("0", "1", "0")],
    ("arena-55k", "tie"): [row(0, 0, 1)],
    ("arena-55k", "null_label"): [row(0, 0, 0), row("", None, "")],
    ("arena-55k", "unknown_label"): [row(1, 0, "1"), row(0, 2, 0), row(True, 0, 0)],
    ("summarize-from-feedback", "first"): [compared(0), compared("0"), compared(0, worker="w")],
    ("summarize-from-feedback", "second"): [compared(1), compared(1.0)],
    ("summarize-from-feedback", "null_label"): [compared(None)],
    ("summarize-from-feedback", "unknown_label"): [compared(2), compared(False)],
}


@pytest.mark.parametrize(("name", "won", "record"), cases(OUTCOMES))
def test_the_label_names_the_first_answer_the_second_or_neither(name, won, record):
    assert outcome(name, record) == won


@pytest.mark.parametrize(
    ("name", "field"), [("arena", "judge"), ("summarize-from-feedback", "worker")]
)
@pytest.mark.parametrize(
    ("judge", "who"),
    [("ann", "ann"), (["gpt-4", "pair-v2"], "gpt-4, pair-v2"), (17, "17"), (None, "")],
)
def test_a_named_judgement_waits_for_those_of_other_records(name, field, judge, who):
    record = arena("model_b") if name == "arena" else compared(1)
    (part,) = results(name, record | {field: judge})
    assert (part.votes, part.across_records) == (((who, 1),), True)
    assert pairs(name, record) == [(part.prompt, part.second, part.first)]


def test_an_arena_prompt_is_the_history_that_both_conversations_share():
    history = [user("a"), assistant("b"), user([{"type": "text", "text": "c", "image": None}])]
    record = arena("model_a")
    for x in "ab":
        record[f"conversation_{x}"] = [*history, assistant(x)]
    prompt = [user("a"), assistant("b"), user("c")]
    assert pairs("arena", record) == [(prompt, [assistant("a")], [assistant("b")])]
    assert pairs("arena", record | {"system": "s"})[0][0] == [system("s"), *prompt]


def test_the_label_option_defines_bare_numbers_of_an_arena(convert_file):
    assert "the label holds bare numbers or booleans (1)" in convert_file([arena(1)]).err
    assert outcome("arena", arena(1), label="first=0,second=1") == "second"


def test_the_turns_of_a_battle_become_messages():
    cells = {"prompt": ["P", "Q"], "response_a": ["s", "A"], "response_b": '["s", "B"]'}
    history = [user("P"), assistant("s"), user("Q")]
    answers = [assistant("A")], [assistant("B")]
    assert pairs("arena-55k", row(1, 0, 0) | cells) == [(history, *answers)]
    cells["response_b"] = ["t", "B"]
    assert fault("arena-55k", row(1, 0, 0) | cells).startswith(
        "history_mismatch: the two dialogues"
    )
    assert pairs("arena-55k", row(1, 0, 0, response_b='[""]'))[0][2] == [assistant("")]


@pytest.mark.parametrize(
    ("info", "prompt"),
    [
        (
            {"subreddit": "tea", "title": "T", "post": "P"},
            "SUBREDDIT: r/tea\n\nTITLE: T\n\nPOST: P\n\nTL;DR:",
        ),
        ({"post": " P\n", "title": None}, "POST:  P\n\n\nTL;DR:"),
        ({"post": "P", "title": "T", "subreddit": ""}, "TITLE: T\n\nPOST: P\n\nTL;DR:"),
        ({"article": "A", "title": "T", "post": None, "site": "cnn"}, "A\n\nTL;DR:"),
        ({"article": "A", "post": ""}, "A\n\nTL;DR:"),
        ({"article": "", "post": "P"}, "POST: P\n\nTL;DR:"),
    ],
)
def test_a_post_is_framed_by_the_fields_that_it_has(info, prompt):
    assert pairs("summarize-from-feedback", compared(0, info=info)) == [(prompt, "A", "B")]


def test_a_choice_compares_two_summaries():
    record = compared(1) | {"summaries": [{"text": "A"}, {"text": "B"}, {"text": "C"}]}
    expected = "there are 3 answers, of which the label compares two; remove the others"
    assert pairs("summarize-from-feedback", record) == [f"wrong_type: {expected}"]
    (fault,) = pairs("summarize-from-feedback", record | {"summaries": [{"text": "A"}]})
    assert fault == "unpaired: 1 answer to this prompt; a pair needs two"


def test_the_axis_records_of_the_summaries_are_not_converted(convert_file):
    axis = {"info": {"post": "P"}, "summary": {"text": "x", "axes": {"overall": 6}}, "worker": "w"}
    assert convert_file([axis]).status == 2


IMAGE = [user([{"type": "image", "image": "x"}]), assistant("A")]
OTHER = [user("r"), assistant("A")]
EMPTY = dict.fromkeys(("prompt", "response_a", "response_b"), "[]")
FAULTS = {
    "arena": [
        ({"conversation_a": IMAGE}, "wrong_type: conversation_a 'image' only text"),
        ({"winner": "vicuna"}, "unknown_label: 'vicuna' known are first, second, tie --label"),
        ({"conversation_a": OTHER}, "history_mismatch: differ before the answer (turn 1)"),
        ({"conversation_a": []}, "bad_roles: no user turn prompt"),
    ],
    "arena-55k": [
        ({"response_a": "[null]"}, "missing_field: response_a text"),
        ({"response_a": '["x", 7]'}, "wrong_type: response_a 7 text"),
        ({"response_a": '["\\ud83d"]'}, "bad_encoding: response_a surrogate"),
        ({"winner_model_b": 2}, "unknown_label: winner_model_b 0 or 1"),
        ({"winner_tie": 1}, "unknown_label: winner_model_a and winner_tie 1"),
        ({"winner_model_a": 0}, "null_label: winner_model_a winner_model_b winner_tie"),
        ({"response_b": '["y", "z"]'}, "bad_roles: prompt (1) response_b (2) number"),
        (EMPTY, "bad_roles: no user turn prompt"),
    ],
    "summarize-from-feedback": [
        ({"info": {"post": "P", "title": 7}}, "wrong_type: info.title is 7 text"),
        ({"info": {"title": "T"}}, "missing_field: info either post or article"),
        ({"info": {"post": "P", "article": "A"}}, "wrong_type: either post or article"),
        ({"info": {"post": " "}}, "missing_field: info post article"),
        ({"summaries": [{"text": "x"}]}, "unpaired: 1 answer two"),
        ({"summaries": [{"text": "x"}, {}]}, "missing_field: summaries[1] text"),
        ({"summaries": ["x", {"text": "y"}]}, "wrong_type: summaries[0] 'x' object"),
        ({"choice": 2}, "unknown_label: label 2"),
    ],
}


@pytest.mark.parametrize(("name", "change", "expected"), cases(FAULTS))
def test_a_battle_that_is_no_pair_names_the_field_and_the_fault(name, change, expected):
    check_fault(name, EXAMPLES[name] | change, expected)

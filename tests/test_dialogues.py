"""Messages and transcripts: one prompt for two answers, in the formats of trainers and vendors."""

import json

import pytest
from reading_formats import (
    EXAMPLES,
    assistant,
    cases,
    check_fault,
    fault,
    pairs,
    rejected,
    results,
    system,
    user,
)

TOOLS = [{"type": "function", "function": {"name": "add"}}]
CALL = assistant(None, tool_calls=[{"id": "1", "function": {"arguments": '{"a":1}'}}])
RESULT = {"role": "tool", "content": "4", "tool_call_id": "1"}
IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
GOOD, BAD = [assistant("good")], [assistant("bad")]
ANSWERED = [user("a"), assistant("b")]
HISTORY = [user("a"), assistant("b"), user("c")]


def whole(good=GOOD, bad=BAD, history=HISTORY):
    """Two whole dialogues with one history."""
    return {"chosen": [*history, *good], "rejected": [*history, *bad]}


def test_messages_are_taken_as_they_are():
    record = {"prompt": [user("P")], "chosen": GOOD, "rejected": BAD}
    assert pairs("preference", record) == [([user("P")], GOOD, BAD)]
    record = {"prompt": user("P"), "chosen": assistant("good"), "rejected": "bad"}
    assert pairs("preference", record) == [([user("P")], GOOD, BAD)]


def test_a_message_that_says_two_different_things_is_not_guessed():
    same = {"from": "gpt", "value": "good", "role": "assistant", "content": "good"}
    for message, both in (
        (same | {"value": "other"}, "content and value"),
        ({"role": "assistant", "content": "c", "parts": [{"text": "d"}]}, "content and parts"),
    ):
        record = {"prompt": "P", "chosen": [message], "rejected": "bad"}
        assert fault("preference", record) == (
            f"wrong_type: message 1 of chosen has both {both}, which differ; keep the right one"
        )
    text = {"type": "output_text", "text": "good", "annotations": []}
    blocks = {"role": "assistant", "content": [text], "parts": None}
    for message in (same, blocks):
        ((_, chosen, _),) = pairs("preference", {"prompt": "P", "chosen": message, "rejected": "x"})
        assert (chosen[0]["role"], chosen[0]["content"]) == ("assistant", "good")


def test_text_blocks_of_a_message_are_joined():
    blocks = [{"type": "input_text", "text": "one "}, {"type": "text", "value": "two"}]
    record = {"prompt": "P", "chosen": [assistant(blocks)], "rejected": "R"}
    assert pairs("preference", record)[0][1] == [assistant("one two")]


def test_texts_in_the_content_of_a_message_are_text_blocks():
    record = {"prompt": [user(["one ", {"type": "text", "text": "two"}])]}
    assert pairs("preference", record | {"chosen": "C", "rejected": "R"})[0][0] == [user("one two")]


def test_a_call_is_known_by_its_role_in_any_capitals():
    call = {"from": "Function_Call", "value": '{"name": "f", "arguments": {}}'}
    calls = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    record = {"conversations": [{"from": "human", "value": "q"}], "chosen": call, "rejected": "bad"}
    assert pairs("sharegpt", record) == [([user("q")], [assistant(None, tool_calls=calls)], BAD)]


def test_whole_dialogues_next_to_a_text_prompt_are_split_at_the_turn_with_that_text():
    record = whole(history=[user("P")])
    for prompt in ("P", " P\n"):
        assert pairs("preference", record | {"prompt": prompt}) == [([user("P")], GOOD, BAD)]
    assert fault("preference", record | {"prompt": "other"}).startswith(
        "history_mismatch: the turns of the two dialogues do not hold the prompt"
    )


def test_whole_dialogues_next_to_prompt_messages_must_begin_with_them():
    record = whole(history=[user("P")]) | {"prompt": [user("P")]}
    assert pairs("preference", record) == [([user("P")], GOOD, BAD)]
    assert fault("preference", record | {"prompt": [user("Q")]}).startswith(
        "history_mismatch: the turns of the two dialogues do not hold the prompt"
    )
    assert fault("preference", record | {"rejected": BAD}).startswith(
        "history_mismatch: one answer is a whole dialogue and the other is not"
    )


def test_dialogues_share_their_prompt():
    assert pairs("implicit-messages", whole()) == [(HISTORY, GOOD, BAD)]
    sides = {f"{name}_messages": side for name, side in whole().items()}
    assert pairs("llamafactory-v1", sides) == [(HISTORY, GOOD, BAD)]


def test_tool_turns_that_both_dialogues_share_belong_to_the_prompt():
    shared = [user("2+2?"), CALL, RESULT]
    assert pairs("implicit-messages", whole(history=shared)) == [(shared, GOOD, BAD)]
    other = RESULT | {"content": "5"}
    record = whole([CALL, RESULT, *GOOD], [CALL, other, *BAD], [user("2+2?")])
    expected = ([user("2+2?")], [CALL, RESULT, *GOOD], [CALL, other, *BAD])
    assert pairs("implicit-messages", record) == [expected]


def test_an_answer_that_ends_where_the_other_continues_keeps_its_last_turn():
    longer, shorter = [CALL, RESULT, assistant("4")], [CALL]
    for answers in ((longer, shorter), (shorter, longer)):
        record = whole(*answers, [user("a")])
        assert pairs("implicit-messages", record) == [([user("a")], *answers)]


def hh(*turns, human="Human"):
    speakers = (human, "Assistant")
    return "".join(f"\n\n{speakers[i % 2]}: {turn}" for i, turn in enumerate(turns))


def chatml(*turns):
    return "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in turns)


def test_a_transcript_is_split_at_its_last_assistant_turn():
    record = {"chosen": hh("a", "b", "c", "good"), "rejected": hh("a", "b", "c", "bad")}
    assert pairs("hh", record) == [(HISTORY, GOOD, BAD)]
    head = (system("s"), user("a\nb"))
    record = {"chosen": chatml(*head, *GOOD), "rejected": chatml(*head, *BAD)}
    assert pairs("chatml", record) == [([*head], GOOD, BAD)]
    expected = "missing_field: 'x<|im_start|> does not begin with a turn marker"
    check_fault("chatml", record | {"rejected": "x" + record["rejected"]}, expected)


def test_a_user_may_be_marked_in_short(convert_file):
    short = hh("a", "b", "c", "good", human="Hum")
    record = {"chosen": short.replace("Hum", "Human", 1), "rejected": hh("a", "b", "c", "bad")}
    assert pairs("hh", record) == [(HISTORY, GOOD, BAD)]
    record["chosen"] = short
    assert convert_file([record]).report["format"] == "hh"


@pytest.mark.parametrize("answer", ["Human: x\nAssistant: y", "Hum: b\nHum: c", "Yes, it is"])
def test_a_turn_is_never_cut_inside_a_line(answer):
    record = {"chosen": hh("a", answer), "rejected": hh("a", "Yes, it was")}
    assert pairs("hh", record) == [
        ([user("a")], [assistant(answer)], [assistant("Yes, it was")]),
    ]


@pytest.mark.parametrize("name", ["hh", "chatml"])
def test_windows_line_ends_are_line_ends_of_markers_too(convert_file, name):
    windows = {side: text.replace("\n", "\r\n") for side, text in EXAMPLES[name].items()}
    assert pairs(name, windows) == pairs(name, EXAMPLES[name])
    assert convert_file([windows]).report["format"] == name


def test_a_system_text_that_the_dialogue_begins_with_is_not_repeated():
    record = whole(history=[system("Be brief."), user("a")]) | {"system": "Be brief."}
    assert pairs("implicit-messages", record)[0][0] == [system("Be brief."), user("a")]


def test_openai_tools_are_taken_from_the_input():
    record = EXAMPLES["openai"]
    (pair,) = results("openai", record | {"input": record["input"] | {"tools": TOOLS}})
    assert json.loads(pair.tools) == TOOLS


def test_tool_calls_are_unaltered_and_metadata_is_removed():
    history = [user("2+2?"), CALL, RESULT]
    record = {"messages": [*history, *GOOD]}
    expected = [(history, GOOD, BAD)]
    assert pairs("openpipe", record | {"rejected_message": BAD[0]}) == expected
    assert pairs("ms-swift", record | {"rejected_response": "bad"}) == expected
    record = {"input": {"messages": [user("2+2?")]}, "non_preferred_output": BAD}
    record["preferred_output"] = [CALL, RESULT, *GOOD]
    assert pairs("openai", record) == [([user("2+2?")], [CALL, RESULT, *GOOD], BAD)]
    record = {"prompt": "P", "chosen": [CALL | {"loss_weight": 1.0}], "rejected": "R"}
    assert pairs("preference", record)[0][1] == [CALL]


def test_a_history_of_several_turns_stays_whole():
    sides = {"chosen": "good", "rejected": assistant("bad")}
    assert pairs("axolotl-chat", {"messages": HISTORY} | sides) == [(HISTORY, GOOD, BAD)]
    record = {"messages": [*HISTORY, *GOOD], "rejected_messages": [*HISTORY, *BAD]}
    assert pairs("ms-swift", record) == [(HISTORY, GOOD, BAD)]


def test_every_rejected_response_is_a_pair_and_a_bad_one_a_fault_of_its_own():
    record = {"messages": ANSWERED, "rejected_response": ["c", None, 7, "d"]}
    first, null, number, last = pairs("ms-swift", record)
    assert first == ([user("a")], [assistant("b")], [assistant("c")])
    assert null.startswith("missing_field: ") and "rejected_response" in null
    assert number.startswith("wrong_type: ") and "rejected_response" in number
    assert last == ([user("a")], [assistant("b")], [assistant("d")])


def test_an_empty_cell_leaves_the_rejected_answer_to_the_other_field():
    record = {"messages": ANSWERED, "rejected_messages": ""}
    pair = ([user("a")], [assistant("b")], [assistant("c")])
    assert pairs("ms-swift", record | {"rejected_response": "c"}) == [pair]
    dialogue = {"rejected_response": "", "rejected_messages": [user("a"), assistant("c")]}
    assert pairs("ms-swift", record | dialogue) == [pair]
    assert pairs("ms-swift", record | {"rejected_response": ""})[0][2] == [assistant("")]


def test_sharegpt_turns_become_messages_and_keep_their_other_keys():
    record = {
        "conversations": [
            {"from": "human", "value": "a", "name": "Ann", "role": None},
            {"from": "gpt", "value": "b"},
            {"from": "human", "value": "c"},
        ],
        "chosen": {"from": "gpt", "value": "good", "tool_calls": [{"id": "1"}]},
        "rejected": "bad",
    }
    prompt = [user("a") | {"name": "Ann"}, assistant("b"), user("c")]
    assert pairs("sharegpt", record) == [
        (prompt, [assistant("good", tool_calls=[{"id": "1"}])], BAD),
    ]


BLOCK = [assistant([{"type": "text"}])]
TWO_KINDS = {"from": "gpt", "value": "x", "content": "y"}
OTHER = {"rejected_response": None, "rejected_messages": ANSWERED}
FAULTS = {
    "preference": [
        ({"chosen": [1]}, "wrong_type: chosen [1] text messages"),
        ({"chosen": [{"content": "C"}]}, "missing_field: chosen message 1 role"),
        ({"chosen": [{"role": 1, "content": "C"}]}, "wrong_type: chosen message 1 role text"),
        ({"chosen": [assistant(None)]}, "missing_field: chosen message 1 content"),
        ({"chosen": [assistant(7)]}, "wrong_type: chosen message 1 content 7 text"),
        ({"chosen": [assistant([IMAGE])]}, "wrong_type: chosen message 1 'image_url' only text"),
        ({"chosen": BLOCK}, "missing_field: chosen message 1 block text"),
        ({"images": ["x.png"]}, "wrong_type: images cannot be trained on here"),
    ],
    "implicit-messages": [
        ({"chosen": GOOD, "rejected": BAD}, "bad_roles: no user turn prompt"),
        ({"chosen": ANSWERED}, "history_mismatch: differ before the answer (turn 1)"),
        ({"rejected": "x"}, "missing_field: text 'x' turn marker"),
    ],
    "hh": [
        ({"chosen": hh("a", "b")}, "history_mismatch: differ before the fix its history"),
        ({"rejected": "x"}, r"missing_field: 'x' turn marker (\n\nHuman:"),
    ],
    "llamafactory-v1": [
        ({"rejected_messages": [user([IMAGE])]}, "wrong_type: rejected_messages 'image_url'"),
        ({"rejected_messages": ANSWERED}, "history_mismatch: differ before the answer (turn 1)"),
        ({"rejected_messages": BAD}, "bad_roles: no user turn prompt"),
    ],
    "axolotl-chat": [
        ({"rejected": {"content": "x"}}, "missing_field: rejected role"),
    ],
    "ms-swift": [
        ({"rejected_response": {"a": 1}}, "wrong_type: rejected_response {'a': 1} text or a list"),
        ({"rejected_response": []}, "unpaired: rejected_response empty list"),
        ({"rejected_response": [7]}, "wrong_type: rejected_response text"),
        ({"rejected_messages": ANSWERED}, "wrong_type: rejected_response rejected_messages both"),
        (OTHER, "history_mismatch: differ before the answer (turn 1)"),
    ],
    "openai": [
        ({"input": {}}, "missing_field: input.messages missing"),
        ({"non_preferred_output": [user([IMAGE])]}, "wrong_type: non_preferred_output 'image_url'"),
    ],
    "sharegpt": [
        ({"conversations": ["x"]}, "wrong_type: conversations 'x' messages"),
        ({"chosen": {"from": "gpt"}}, "missing_field: chosen value"),
        ({"chosen": TWO_KINDS}, "wrong_type: chosen both content and value"),
    ],
}


@pytest.mark.parametrize(("name", "change", "expected"), cases(FAULTS))
def test_a_record_that_is_no_pair_names_the_field_and_the_fault(name, change, expected):
    check_fault(name, EXAMPLES[name] | change, expected)


def test_an_answer_that_does_not_end_with_the_assistant_has_bad_roles(convert_file):
    change = {"messages": HISTORY[:2], "rejected_message": []}
    done = convert_file([EXAMPLES["openpipe"] | change])
    assert rejected(done) == [(1, "bad_roles")]


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("preference", whole() | {"prompt": "c", "messages": ANSWERED}),
        ("implicit-messages", whole() | {"messages": ANSWERED}),
        ("hh", {"messages": ANSWERED, "chosen": hh("a", "b"), "rejected": hh("a", "c")}),
        ("axolotl-chat", {"messages": [user("a")], "chosen": GOOD, "rejected": BAD}),
        ("axolotl-chat", {"messages": [user("a")], "chosen": GOOD[0], "rejected": BAD[0]}),
    ],
)
def test_messages_next_to_two_answers_do_not_decide_the_format(convert_file, name, record):
    assert convert_file([record]).report["format"] == name
    assert convert_file([EXAMPLES["ms-swift"] | {"chosen_response": "x"}]).status == 2

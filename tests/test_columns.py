"""Every column is read, kept or counted as unread; none that the model would see is dropped."""

import io
import json
import shlex

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from converting import assistant, pair, user


def system(text):
    return {"role": "system", "content": text}


BY_HAND = "add it to the prompt before converting"


def as_parquet(records):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), file)
    return file.getvalue()


def sides(done):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in done.rows]


def only(done):
    """What a single pair holds: the contents of its messages."""
    ((prompt, chosen, rejected),) = sides(done)
    turns = [(m["role"], m["content"]) for m in prompt]
    return turns, chosen[-1]["content"], rejected[-1]["content"]


def test_every_column_is_read_kept_or_counted_as_unread(convert_file):
    records = [pair(n, id=n, model="m", note=None) for n in range(3)] + [pair(9, model="m")]
    done = convert_file(records, "--keep", "model")
    assert done.report["columns"] == {
        "read": ["chosen", "prompt", "rejected"],
        "kept": ["model"],
        "unread": {"id": 3},
    }
    assert "columns   unread: id (3 records)" in done.out
    assert "id (3 records)" in (done.directory / "README.md").read_text()


def test_unread_columns_keep_their_own_names_and_rejected_records_count(convert_file):
    text = "Prompt,chosen,rejected,Model Name,empty\nP,C,R,m,\nP2,C,C,m,\n"
    done = convert_file(text, name="a.csv")
    assert done.report["columns"]["unread"] == {"Model Name": 2}
    assert done.report["columns"]["read"] == ["Prompt", "chosen", "rejected"]


def test_a_file_without_other_columns_has_no_line_about_them(convert_file):
    assert "unread" not in convert_file([pair()]).out


@pytest.mark.parametrize("column", ["system", "system_prompt", "system_message", "system prompt"])
@pytest.mark.parametrize(
    ("record", "options"),
    [
        (pair(), []),
        ({"question": "P1", "chosen": "C1", "rejected": "R1"}, []),
        ({"instruction": "P1", "chosen": "C1", "rejected": "R1"}, []),
        ({"prompt": "P1", "response_a": "C1", "response_b": "R1", "winner": "A"}, []),
        ({"prompt": "P1", "better": "C1", "worse": "R1"}, []),
        (
            {"q": "P1", "good": "C1", "bad": "R1"},
            ["--map", "prompt=q", "chosen=good", "rejected=bad"],
        ),
        ({"messages": [user("P1"), assistant("C1")], "rejected_response": "R1"}, []),
        ({"chosen": [user("P1"), assistant("C1")], "rejected": [user("P1"), assistant("R1")]}, []),
    ],
)
def test_a_system_text_under_any_of_its_names_is_the_first_turn(
    convert_file, record, options, column
):
    done = convert_file([record | {column: "S"}], *options)
    assert only(done) == ([("system", "S"), ("user", "P1")], "C1", "R1")
    assert done.report["columns"]["unread"] == {}


def test_two_system_texts_that_differ_are_not_guessed_between(convert_file):
    records = [
        pair(1, system="S", system_prompt="T"),
        pair(2, system="S", system_prompt=""),
        pair(3, system="S", system_message="S"),
    ]
    done = convert_file(records)
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]
    assert "system and system_prompt differ" in done.rejects[0]["detail"]
    assert len(done.rows) == 2


EARLIER = [("user", "hi"), ("assistant", "hello"), ("user", "P1")]


@pytest.mark.parametrize(
    "more",
    [
        {"history": [["hi", "hello"]]},
        {"history": [user("hi"), assistant("hello")]},
        {"history": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"messages": [user("hi"), assistant("hello")]},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"messages": [user("hi"), assistant("hello"), user("P1")]},
        {"messages": [user("hi"), assistant("hello"), user("P1"), assistant("C1")]},
    ],
)
@pytest.mark.parametrize(
    ("record", "options"),
    [
        (pair(), []),
        ({"question": "P1", "chosen": "C1", "rejected": "R1"}, []),
        ({"prompt": "P1", "response_a": "C1", "response_b": "R1", "winner": "A"}, []),
        (
            {"query": "P1", "response": "C1", "rejected_response": "R1"},
            ["--map", "prompt=query", "chosen=response", "rejected=rejected_response"],
        ),
    ],
)
def test_earlier_turns_next_to_a_prompt_are_part_of_it(convert_file, record, options, more):
    done = convert_file([record | more], *options)
    assert only(done) == (EARLIER, "C1", "R1")
    assert done.report["columns"]["unread"] == {}


STORY = [("user", "on"), ("assistant", "s1"), ("user", "P1"), ("assistant", "s2"), ("user", "P1")]


@pytest.mark.parametrize(
    "more",
    [
        {"history": [["on", "s1"], ["P1", "s2"]]},
        {"messages": [user("on"), assistant("s1"), user("P1"), assistant("s2")]},
    ],
)
def test_an_earlier_question_like_the_prompt_keeps_its_answer(convert_file, more):
    assert only(convert_file([pair() | more])) == (STORY, "C1", "R1")


def test_an_answer_that_an_earlier_turn_also_gave_is_no_fault(convert_file):
    done = convert_file([pair(history=[["hi", "C1"]])])
    assert only(done)[0] == [("user", "hi"), ("assistant", "C1"), ("user", "P1")]


WITH_ANSWER = [user("hi"), assistant("hello"), user("P1"), assistant(" C1\n")]


def test_the_answer_that_ends_the_messages_is_no_part_of_the_prompt(convert_file):
    asked = {"prompt": "hi", "messages": WITH_ANSWER}
    whole = {"chosen": WITH_ANSWER, "rejected": [*WITH_ANSWER[:3], assistant("R1")]}
    marked = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: P1\n\nAssistant: {}"
    texts = {"chosen": marked.format("C1"), "rejected": marked.format("R1")}
    for record in (pair(), {"chosen": [assistant("C1")], "rejected": "R1"}, whole, texts):
        assert only(convert_file([record | asked]))[0] == EARLIER
    other = {"prompt": "P1", "messages": [*WITH_ANSWER[:3], assistant("another")]}
    assert only(convert_file([whole | other]))[0] == EARLIER
    done = convert_file([pair(prompt="Q: hi\nA:", messages=WITH_ANSWER)])
    assert [(r["reason"]) for r in done.rejects] == ["history_mismatch"]
    assert "messages ends with an answer" in done.rejects[0]["detail"]


def test_earlier_turns_that_two_columns_hold_are_in_the_prompt_once(convert_file):
    turns = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello "}]
    for more in ({"history": [["hi", "hello"]]}, {"prompt": [*WITH_ANSWER[:2], user("P1")]}):
        assert only(convert_file([pair() | more | {"conversations": turns}]))[0] == EARLIER


@pytest.mark.parametrize("nothing", ["none", " ", "N/A", None, [], "null"])
def test_a_history_of_a_word_for_nothing_is_none(convert_file, nothing):
    assert only(convert_file([pair(system="S", history=nothing)]))[0][1:] == [("user", "P1")]


OTHER = [{"input": "P1", "output": "C0"}]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ([pair(1, conversation="conv-77"), pair(2, conversation=None)], "a.jsonl"),
        ([pair(1, conversation=OTHER), pair(2, conversation=[])], "a.jsonl"),
        ("prompt,chosen,rejected,conversation\nP1,C1,R1,[{x\nP2,C2,R2,\n", "a.csv"),
        ('prompt,chosen,rejected,Conversation\nP1,C1,R1,"[{""a"": 1}]"\nP2,C2,R2,\n', "a.csv"),
    ],
)
def test_a_conversation_that_is_no_turns_is_unread(convert_file, content, name):
    done = convert_file(content, name=name)
    assert sides(done) == [(f"P{n}", f"C{n}", f"R{n}") for n in (1, 2)]
    columns = done.report["columns"]
    assert columns["read"] == ["chosen", "prompt", "rejected"]
    assert [*map(str.lower, columns["unread"])] == ["conversation"]
    assert [*columns["unread"].values()] == [1]


def test_a_conversation_of_turns_is_read(convert_file):
    done = convert_file([pair(conversation=[["hi", "hello"]]), pair(2, conversation="id")])
    assert [m["content"] for m in done.rows[0]["prompt"]] == ["hi", "hello", "P1"]
    assert "conversation" in done.report["columns"]["read"]
    assert done.report["columns"]["unread"] == {"conversation": 1}


def test_earlier_turns_in_the_cells_of_a_table_are_part_of_the_prompt(convert_file):
    text = 'prompt,chosen,rejected,history\nP1,C1,R1,"[[""hi"", ""hello""]]"\nP2,C2,R2,\n'
    done = convert_file(text, name="a.csv")
    assert [m["content"] for m in done.rows[0]["prompt"]] == ["hi", "hello", "P1"]
    assert [m["content"] for m in done.rows[1]["prompt"]] == ["P2"]


@pytest.mark.parametrize("history", ["hi", {"a": 1}, [["hi"]], [1], [["a", "b", "c"]]])
def test_a_history_of_another_form_is_rejected_and_not_dropped(convert_file, history):
    done = convert_file([pair(1, history=history), pair(2, history=None), pair(3, history=[])])
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]
    assert "history" in done.rejects[0]["detail"]


def test_messages_that_answer_another_prompt_are_rejected(convert_file):
    done = convert_file(
        [pair(1, messages=[user("other"), assistant("hello"), user("more")]), pair(2)]
    )
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "history_mismatch")]


# Context in other columns: named, never folded in by guess.


@pytest.mark.parametrize("column", ["context", "passage", "document", "initial_reason_steps"])
def test_context_that_is_not_read_is_a_warning_whose_advice_works(convert_file, column):
    records = [pair(n, **{column: f"Facts {n}"}) for n in range(3)]
    done = convert_file(records)
    assert done.report["warnings"] == {"unread_context": 3}
    advice = f"--map 'prompt={{{column}}}\\n\\n{{prompt}}'"
    assert advice in done.out
    followed = convert_file(records, "--map", f"prompt={{{column}}}\\n\\n{{prompt}}")
    assert followed.rows[1]["prompt"] == "Facts 1\n\nP1"
    assert followed.report["warnings"] == {}


@pytest.mark.parametrize(
    "value",
    [["Passage one", "two"], [{"title": "T", "text": "Facts"}], {"text": "Facts"}, [user("hi")]],
)
@pytest.mark.parametrize("name", ["context", "documents", "evidence", "knowledge", "reference"])
@pytest.mark.parametrize("write", [list, as_parquet])
def test_context_that_is_no_text_is_named_without_a_map(convert_file, value, name, write):
    done = convert_file(
        write([pair(n, **{name: value}) for n in range(3)]),
        name="a.jsonl" if write is list else "a.parquet",
    )
    assert done.report["warnings"] == {"unread_context": 3}
    assert done.report["warning_examples"]["unread_context"] == f"{name}: {BY_HAND}"


@pytest.mark.parametrize("value", [[], [""], {"text": None}, "None", 5, True])
def test_a_column_of_context_that_holds_nothing_is_no_warning(convert_file, value):
    assert convert_file([pair(n, context=value) for n in range(3)]).report["warnings"] == {}


def test_context_and_media_as_unsound_json_hold_something(convert_file):
    text = r'{"a": "\u0000"}'
    assert convert_file([pair(1, context=text)]).report["warnings"] == {"unread_context": 1}
    assert convert_file([pair(1, image=text)]).rejects[0]["reason"] == "wrong_type"


def test_lists_of_texts_that_are_nowhere_in_the_pair_are_named(convert_file):
    facts = "The sky over the harbour was grey, and {} boats were out at sea that day."
    records = [pair(n, story=[facts.format(n), "b"], all=[f"C{n}", facts]) for n in range(5)]
    found = convert_file(records).report["warning_examples"]["unread_context"]
    assert found == f"story: {BY_HAND}"


TURNS = [user("q1"), assistant("a1"), user("q2")]


@pytest.mark.parametrize(
    "record",
    [
        pair(prompt=[system("S"), *TURNS], chosen="aa", rejected="bb"),
        {"instruction": "Sum up", "input": "Text", "chosen": "aa", "rejected": "bb"},
        pair(chosen="\n\nHuman: P1\n\nAssistant: C", rejected="\n\nHuman: P1\n\nAssistant: R"),
    ],
)
def test_no_map_is_advised_that_would_lose_or_garble_a_part_of_the_prompt(convert_file, record):
    done = convert_file([record | {"context": "Facts"}])
    assert done.report["warning_examples"]["unread_context"] == f"context: {BY_HAND}"


def test_no_map_is_advised_where_answers_begin_with_their_prompt_or_some_lack_context(convert_file):
    whole = [pair(n, chosen=f"P{n} yes", rejected=f"P{n} no", context="Facts") for n in range(3)]
    some = [pair(1, context="Facts"), pair(2)]
    for records in (whole, some):
        found = convert_file(records).report["warning_examples"]["unread_context"]
        assert found == f"context: {BY_HAND}"


def test_texts_under_any_name_that_are_nowhere_in_the_pair_are_named(convert_file):
    facts = "The sky over the harbour was grey, and {} boats were out at sea that day."
    records = [pair(n, story=facts.format(n), seen=f"P{n}", tag="a b") for n in range(20)]
    done = convert_file(records)
    assert done.report["warnings"] == {"unread_context": 20}
    assert "story" in done.report["warning_examples"]["unread_context"]
    assert "seen" not in done.report["warning_examples"]["unread_context"]


def test_a_column_that_explains_the_judgement_is_no_context(convert_file):
    why = "The first answer is better, because it names all of the {} facts."
    done = convert_file([pair(n, rationale=why.format(n)) for n in range(20)])
    assert done.report["warnings"] == {}


# Media.


@pytest.mark.parametrize(
    "name",
    [
        "image",
        "images",
        "image_path",
        "image_url",
        "img",
        "video",
        "videos",
        "audio",
        "audios",
        "Image",
    ],
)
def test_media_next_to_the_text_are_rejected_by_any_name(convert_file, name):
    done = convert_file(
        [pair(1, **{name: "a.png"}), pair(2, **{name: None}), pair(3, **{name: []})]
    )
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]
    assert name.lower() in done.rejects[0]["detail"].lower()


def test_a_placeholder_on_a_line_of_its_own_stands_for_media(convert_file):
    records = [
        pair(1, prompt="<image>\nWhat is this?"),
        pair(2, prompt="What is this?\n <video> "),
        pair(3, prompt="Write an <image> tag"),
        pair(4, prompt=[user("<image>\nHi")], chosen=[assistant("C")], rejected=[assistant("R")]),
        pair(5, chosen="```html\n<img>\n```"),
    ]
    done = convert_file(records)
    assert [(r["line"], r["reason"]) for r in done.rejects] == [
        (line, "wrong_type") for line in (1, 2, 4)
    ]
    assert "<image>" in done.rejects[0]["detail"]


def test_bytes_of_an_image_in_parquet_are_media(convert_file, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    sides = {name: ["a", "b"] for name in ("prompt",)} | {
        "chosen": ["C", "C"],
        "rejected": ["R", "R"],
    }
    table = pa.table(sides | {"image": pa.array([b"\xff\xd8\xff", None], pa.binary())})
    pq.write_table(table, tmp_path / "a.parquet")
    done = convert_file((tmp_path / "a.parquet").read_bytes(), name="a.parquet")
    assert [(r["record"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]
    assert "image" in done.rejects[0]["detail"]


@pytest.mark.parametrize(
    "name",
    [
        "video_urls",
        "audio_paths",
        "image_file",
        "image1",
        "image_2",
        "image_bytes",
        "image_base64",
        "photo",
        "photos",
        "media",
        "frames",
        "imageUrl",
    ],
)
def test_media_under_plural_and_numbered_names_are_rejected(convert_file, name):
    done = convert_file([pair(1, **{name: ["a.png"]}), pair(2, **{name: ""})])
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]


@pytest.mark.parametrize("value", [[None], [""], {"bytes": None, "path": None}, "None", "nan"])
def test_media_columns_that_hold_nothing_reject_no_record(convert_file, value):
    assert convert_file([pair(1, images=value)]).rejects == []
    text = f'prompt,chosen,rejected,images\nP,C,R,"{value}"\n'
    assert convert_file(text, name="a.csv").rejects == []


@pytest.mark.parametrize(
    "message",
    [
        user("what?", images=["a.png"]),
        user("what?", audio={"id": "x"}),
        user("what?", attachments=[{"url": "a.pdf"}]),
        user([{"type": "text", "text": "q", "image": "x"}]),
    ],
)
def test_media_under_a_key_of_a_message_or_block_are_rejected(convert_file, message):
    answers = {"chosen": [assistant("C")], "rejected": [assistant("R")]}
    records = [{"prompt": [message]} | answers, {"prompt": [user("q", images=[])]} | answers]
    done = convert_file(records)
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]
    assert "prompt[]" in done.rejects[0]["detail"]


@pytest.mark.parametrize("line", ["<image><image>", "<IMAGE>", "<image> <Video>"])
def test_a_line_of_several_placeholders_or_capitals_stands_for_media(convert_file, line):
    done = convert_file([pair(1, prompt=f"{line}\nWhat?"), pair(2, prompt=f"{line} is a tag")])
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "wrong_type")]


# Other keys of messages.


def test_other_keys_of_a_message_are_no_content_and_are_listed(convert_file):
    chosen = [user("P", id=1), assistant("C", model="x", name="bot")]
    rejected = [user("P", id=2), assistant("R", model="y", name="bot")]
    done = convert_file([{"chosen": chosen, "rejected": rejected, "n": 1}])
    assert done.rows[0]["chosen"] == [{"role": "assistant", "content": "C", "name": "bot"}]
    unread = {
        "chosen[].id": 1,
        "chosen[].model": 1,
        "n": 1,
        "rejected[].id": 1,
        "rejected[].model": 1,
    }
    assert done.report["columns"]["unread"] == unread


def test_the_advice_for_context_works_for_labels_and_names_with_capitals(convert_file):
    text = "Prompt,Response A,Response B,Winner,Context\nP,x,y,A,Facts\nQ,x,y,B,More facts\n"
    done = convert_file(text, name="a.csv")
    advice = done.report["warning_examples"]["unread_context"].partition("add it with ")[2]
    followed = convert_file(text, *shlex.split(advice), name="a.csv")
    assert sides(followed) == [("Facts\n\nP", "x", "y"), ("More facts\n\nQ", "y", "x")]


RATED = [{"prompt": "P", "response": f"a{n}", "score": n, "context": "Facts"} for n in range(2)]
EVALUATED = [
    {"instruction": f"P{n}", "output_1": "x", "output_2": "y", "preference": n, "context": "Facts"}
    for n in (1, 2)
]
TASK = [
    {"prompt": "In 3 words:", "chosen": [user(f"q{n}"), assistant("C")]}
    | {"rejected": [user(f"q{n}"), assistant("R")]}
    for n in range(3)
]


@pytest.mark.parametrize(
    ("records", "prompt"),
    [
        (RATED, "Facts\n\nP"),
        (EVALUATED, "Facts\n\nP1"),
        ([pair(1, context="Facts", passage="More")], "Facts\n\nMore\n\nP1"),
        ([pair(prompt=TURNS, context="Facts")], [system("Facts"), *TURNS]),
        ([pair(prompt=json.dumps(TURNS), context="Facts")], [system("Facts"), *TURNS]),
        (TASK, [system("In 3 words:"), user("q0")]),
    ],
)
def test_the_map_of_a_warning_adds_the_context_in_every_layout(convert_file, records, prompt):
    done = convert_file(records)
    advice = done.report["warning_examples"]["unread_context"].partition("add it with ")[2]
    followed = convert_file(records, *shlex.split(advice))
    assert followed.rows[0]["prompt"] == prompt and followed.report["warnings"] == {}
    assert [r["chosen"] for r in followed.rows] == [r["chosen"] for r in done.rows]


def test_a_prompt_that_whole_dialogues_hold_is_no_unread_context(convert_file):
    records = [record | {"prompt": record["chosen"][0]["content"]} for record in TASK]
    assert convert_file(records).report["warnings"] == {}


def test_escape_characters_of_data_do_not_reach_the_terminal(convert_file):
    name = "\x1b[31mred\x07"
    done = convert_file([pair(1) | {name: "x"}])
    assert "\\x1b" in done.out
    refused = convert_file([{name: "x", "b": "y"}])
    assert "\x1b" not in done.out + refused.err + refused.out


def test_context_next_to_whole_dialogues_is_named_and_text_within_a_side_is_not(convert_file):
    facts = 'The harbour was grey that day,\nand all of the "boats" were out at sea again.'
    record = {"chosen": [user(f"{facts} Why?"), assistant("C")], "context": "Facts", "story": facts}
    record["rejected"] = [user(f"{facts} Why?"), assistant("R")]
    done = convert_file([record])
    shown = done.report["warning_examples"]["unread_context"]
    assert shown == "context: add it with --map system=context"


def test_a_column_of_many_order_numbers_is_no_order_of_answers(convert_file):
    records = [
        {"prompt": f"P{n}", "response_a": "x", "response_b": "y", "winner": "A", "order": n}
        for n in range(9)
    ]
    assert convert_file(records).status == 0

"""Structure that a file stores as text: messages, transcripts, repeated prompts, pointers."""

import csv
import io
import json
import re
import shlex

import pytest
from converting import assistant, pair, read_lines, user

from data_tools.convert import main


def sides(done):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in done.rows]


def contents(side):
    return [message["content"] for message in side]


WHOLE = [
    ([user(f"P{n}"), assistant(f"it's {n}")], [user(f"P{n}"), assistant(f'"R" {n}')])
    for n in range(3)
]


def in_syntax(folder, name, records):
    """The content of a file of this name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if name == "a.csv":
        return in_table(records)
    if name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(records), folder / "b.parquet")
        return (folder / "b.parquet").read_bytes()
    return records


@pytest.mark.parametrize("write", [json.dumps, repr, lambda turns: repr(turns).replace("\n", " ")])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_messages_stored_as_text_are_messages_in_every_syntax(convert_file, tmp_path, write, name):
    records = [{"chosen": write(won), "rejected": write(lost)} for won, lost in WHOLE]
    done = convert_file(in_syntax(tmp_path, name, records), name=name)
    expected = [([won[0]], [won[1]], [lost[1]]) for won, lost in WHOLE]
    assert sides(done) == expected


def test_answers_stored_as_text_next_to_a_prompt_are_messages(convert_file):
    records = [
        pair(n, chosen=json.dumps(won), rejected=json.dumps(lost))
        for n, (won, lost) in enumerate(WHOLE)
    ]
    done = convert_file(records)
    assert [contents(row["chosen"]) for row in done.rows] == [["it's 0"], ["it's 1"], ["it's 2"]]


def test_json_in_only_some_texts_is_text(convert_file):
    records = [pair(1), pair(2, chosen=json.dumps([user("x"), assistant("y")]))]
    done = convert_file(records)
    assert done.rows[1]["chosen"] == json.dumps([user("x"), assistant("y")])


@pytest.mark.parametrize("between", ["\n ", " "])
def test_the_text_form_of_numpy_is_refused_by_name(convert_file, between):
    records = [
        {"chosen": f"[{won[0]}{between}{won[1]}]", "rejected": f"[{lost[0]}{between}{lost[1]}]"}
        for won, lost in WHOLE
    ]
    done = convert_file(records)
    assert done.status == 2
    assert "chosen" in done.err
    assert "numpy" in done.err


def in_table(records):
    file = io.StringIO()
    table = csv.DictWriter(file, [*records[0]])
    table.writeheader()
    table.writerows(records)
    return file.getvalue()


def reasons(done):
    return [reject["reason"] for reject in done.rejects]


SPOILED = {  # a list of messages in which something is not sound, and the reason
    r'[{"role": "user", "content": "a\u0000b"}]': "nul_byte",
    r'[{"role": "user", "content": "a\ud800b"}]': "bad_encoding",
    r'[{"role": "user", "content": "a", "name": "\u0000"}]': "nul_byte",
    r'[{"role": "user", "content": "a", "tool_calls": [{"b": "\udc00"}]}]': "bad_encoding",
    r"[{'role': 'user', 'content': 'a\x00b'}]": "nul_byte",
    r"[{'role': 'user', 'content': 'a\ud800b'}]": "bad_encoding",
    "[{'role': 'user', 'content': 'q', 'tool_calls': [{'a': {1, 2}}]}]": "bad_json",
    "[{'role': 'user', 'content': 'q', 'name': b'x'}]": "bad_json",
    "[{'role': 'user', 'content': ...}]": "bad_json",
    "[{'role': 'user', 'content': 'q', 'tool_calls': [1e999]}]": "bad_json",
    '[{"role": "user", "content": "Say yes", "content": "Say no"}]': "bad_json",
    '[{"role": "user", "content": "q", "tool_calls": [{"a": 1e999}]}]': "bad_json",
}
BROKEN = (
    "[{'role': 'user', 'content': 'breaks o",
    "[{'role': 'user', 'content': 'P'} {'role': 'assistant', 'content': 'C'}]",
)


@pytest.mark.parametrize("text", [*SPOILED, *BROKEN])
@pytest.mark.parametrize("others", [0, 150])
@pytest.mark.parametrize("write", [list, in_table])
def test_unsound_messages_in_a_text_are_rejected_with_the_reason(convert_file, text, others, write):
    records = [pair(n, prompt=repr([user(f"P{n}")])) for n in range(others)]
    name = "a.csv" if write is in_table else "a.jsonl"
    done = convert_file(write([*records, pair(999, prompt=text)]), name=name)
    if others == 0 and text in BROKEN:  # of the whole column: numpy's form, or some other text
        assert (done.status, "numpy" in done.err) == ((2, True) if "} {" in text else (0, False))
        return
    assert reasons(done) == [SPOILED.get(text, "bad_json")]
    assert "prompt" in done.rejects[0]["detail"]
    assert len(done.rows) == others


@pytest.mark.parametrize(
    "several",
    [
        "[{'content': 'Hi', 'role': 'user'}\n {'content': 'Yes', 'role': 'assistant'}]",
        "[{'from': 'human', 'value': 'Hi'} {'from': 'gpt', 'value': 'Yes'}]",
        "array([{'content': 'Hi', 'role': 'user'}], dtype=object)",
    ],
)
def test_the_text_form_of_numpy_is_refused_next_to_single_messages(convert_file, several):
    records = [pair(n, prompt="[{'content': 'Hi', 'role': 'user'}]") for n in range(9)]
    done = convert_file(in_table([*records, pair(9, prompt=several)]), name="a.csv")
    assert done.status == 2
    assert "the column prompt" in done.err.replace("'", "")
    assert "numpy" in done.err


@pytest.mark.parametrize("write", [json.dumps, repr])
def test_plain_text_in_a_column_of_messages_stays_text_of_one_answer(convert_file, write):
    records = [
        pair(n, chosen=write([assistant(f"C{n}")]), rejected=write([assistant(f"R{n}")]))
        for n in range(20)
    ]
    records.append(pair(20, chosen="[sic] plain"))
    done = convert_file(records)
    assert contents(done.rows[0]["chosen"]) == ["C0"]
    assert contents(done.rows[20]["chosen"]) == ["[sic] plain"]


@pytest.mark.parametrize("word", ["nan", "None"])
def test_a_null_in_a_column_of_messages_rejects_its_record_alone(convert_file, word):
    records = [{"chosen": repr(won), "rejected": repr(lost)} for won, lost in WHOLE]
    records.append({"chosen": word, "rejected": repr(WHOLE[0][1])})
    done = convert_file(in_table(records), name="a.csv")
    assert len(done.rows) == 3
    assert [(r["record"], "chosen" in r["detail"]) for r in done.rejects] == [(4, True)]
    assert reasons(done) == ["missing_field"]


def test_tools_as_python_writes_them_are_stored_as_json_and_json_is_unaltered(convert_file):
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}]
    compact = json.dumps(tools, separators=(",", ":"))
    done = convert_file(in_table([pair(1, tools=repr(tools)), pair(2, tools="")]), name="a.csv")
    assert [row["tools"] for row in done.rows] == [json.dumps(tools), None]
    assert convert_file([pair(1, tools=compact)]).rows[0]["tools"] == compact


# Transcripts next to a bare prompt.

TRANSCRIPTS = {
    "hh": "\n\nHuman: {0}\n\nAssistant: {1}",
    "chatml": "<|im_start|>user\n{0}<|im_end|>\n<|im_start|>assistant\n{1}<|im_end|>",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n{0}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{1}<|eot_id|>",
    "llama2": "<s>[INST] {0} [/INST] {1} </s>",
}


@pytest.mark.parametrize("kind", TRANSCRIPTS)
@pytest.mark.parametrize("more", [{}, {"prompt": "P1"}, {"question": "P1"}])
def test_transcripts_are_split_by_their_markers_with_and_without_a_prompt(convert_file, kind, more):
    form = TRANSCRIPTS[kind]
    done = convert_file(
        [more | {"chosen": form.format("P1", "C1"), "rejected": form.format("P1", "R1")}]
    )
    assert sides(done) == [([user("P1")], [assistant("C1")], [assistant("R1")])]


ASKED = {"prompt": "\n\nHuman: P1\n\nAssistant:"}
SYSTEM = {"role": "system", "content": "S"}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"system": "S"}, [SYSTEM, user("P1")]),
        ({"history": [["x", "y"]]}, [user("x"), assistant("y"), user("P1")]),
        (ASKED, [user("P1")]),
        (ASKED | {"system": "S"}, [SYSTEM, user("P1")]),
    ],
)
def test_transcripts_are_split_whatever_is_next_to_them(convert_file, more, expected):
    form = TRANSCRIPTS["hh"].format
    done = convert_file(
        [pair() | {"chosen": form("P1", "C1"), "rejected": form("P1", "R1")} | more]
    )
    assert sides(done) == [(expected, [assistant("C1")], [assistant("R1")])]


def test_a_transcript_next_to_a_plain_answer_is_split_where_it_holds_the_prompt(convert_file):
    form = TRANSCRIPTS["hh"].format
    done = convert_file(
        [
            pair(1, chosen=form("P1", "C1"), rejected=form("P1", "R1")),
            pair(2, chosen=form("P2", "C2")),
            pair(3, rejected=form("P3", "R3"), system="S"),
            pair(4, chosen=form("a play", "C4")),
        ]
    )
    answers = [contents(row["chosen"]) + contents(row["rejected"]) for row in done.rows]
    assert answers == [*([f"C{n}", f"R{n}"] for n in (1, 2, 3)), [form("a play", "C4"), "R4"]]


def test_the_system_text_of_a_llama_2_transcript_is_a_turn(convert_file):
    form = "[INST] <<SYS>>\nS\n<</SYS>>\n\nP [/INST] {0}"
    done = convert_file([{"chosen": form.format("C"), "rejected": form.format("R")}])
    assert done.rows[0]["prompt"] == [{"role": "system", "content": "S"}, user("P")]


def test_a_transcript_whose_turns_do_not_hold_the_prompt_is_rejected(convert_file):
    form = TRANSCRIPTS["hh"]
    wrong = {"chosen": form.format("P9", "C1"), "rejected": form.format("P9", "R1")}
    done = convert_file([pair(1) | wrong, pair(2)])
    assert [(r["line"], r["reason"]) for r in done.rejects] == [(1, "history_mismatch")]


def test_answers_of_which_only_some_repeat_their_prompt_are_counted(convert_file):
    records = [
        pair(
            n,
            prompt=f"Question {n}?",
            **({"chosen": f"Question {n}? C", "rejected": f"Question {n}? R"} if n % 2 else {}),
        )
        for n in range(10)
    ]
    done = convert_file(records)
    assert done.report["warnings"] == {"prompt_repeated": 5}
    assert len(done.rows) == 10


# Answers that are only pointers.


@pytest.mark.parametrize(
    ("texts", "values", "label"),
    [
        (("completion_a", "completion_b"), ("A", "B"), []),
        (("completion_a", "completion_b"), ("completion_a", "completion_b"), []),
        (("response_0", "response_1"), ("0", "1"), ["--label", "first=0,second=1"]),
        (("left", "right"), ("left", "right"), []),
    ],
)
def test_answers_that_are_only_pointers_are_refused_with_the_map_that_works(
    convert_file, texts, values, label
):
    records = []
    for n in range(6):
        won, lost = values if n % 2 else values[::-1]
        records.append(
            {
                "prompt": f"P{n}",
                texts[0]: f"text {n}",
                texts[1]: f"other {n}",
                "chosen": won,
                "rejected": lost,
            }
        )
    done = convert_file(records)
    assert (done.status, done.rows) == (2, [])
    advice = f"--map prompt=prompt a={texts[0]} b={texts[1]} label=chosen"
    assert advice in done.err
    followed = convert_file(records, *advice.split(), *label)
    assert (followed.status, len(followed.rows)) == (0, 6)
    assert followed.rows[1]["chosen"] == "text 1"
    assert followed.rows[0]["chosen"] == "other 0"


# Lists and objects as JSON texts, where nothing else belongs.


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"instruction": "P", "history": '[["a", "b"]]', "chosen": "C", "rejected": "R"},
            ([user("a"), assistant("b"), user("P")], [assistant("C")], [assistant("R")]),
        ),
        ({"prompt": "P", "responses": '["R", "C"]', "scores": "[1, 2]"}, ("P", "C", "R")),
        (
            {"prompt": "P", "options": '[{"text": "C"}, {"text": "R"}]', "best": "A"},
            ("P", "C", "R"),
        ),
    ],
)
def test_structure_stored_as_text_is_read_in_every_syntax(
    convert_file, tmp_path, name, record, expected
):
    content = in_syntax(tmp_path, name, [record])
    option = ["--map", "prompt=prompt", "responses=options[].text", "label=best"]
    done = convert_file(content, *(option if "options" in record else ()), name=name)
    assert sides(done) == [expected]


@pytest.mark.parametrize("to", ["arrow", "parquet", "jsonl"])
def test_a_dataset_with_template_arguments_is_read_again(convert_file, tmp_path, to):
    records = [pair(1, chat_template_kwargs={"x": 1}, tools=[{"name": "f"}]), pair(2)]
    first = convert_file(records, "--to", to)
    assert first.status == 0
    assert main(["out", "-o", "again", "--to", "jsonl", "--test-size", "0"]) == 0
    (row, other) = read_lines("again/train.jsonl")
    assert json.loads(row["tools"]) == [{"name": "f"}]
    assert row["chat_template_kwargs"] in ({"x": 1}, '{"x": 1}')


@pytest.mark.parametrize("tools", ["not json", "{}", '{"name": "f"}', 7, [1]])
def test_tools_that_are_no_list_are_rejected_with_the_fix(convert_file, tools):
    python = "\t[{'name': 'f'}]"
    records = [pair(1, tools=tools), pair(2, tools='[{"name":"f"}]'), pair(3, tools=python)]
    done = convert_file(records)
    (reject,) = done.rejects
    assert reject["reason"] == "wrong_type"
    assert "it must be a list of objects, also as JSON; fix or remove it" in reject["detail"]
    assert [row["tools"] for row in done.rows] == ['[{"name":"f"}]', '[{"name": "f"}]']


TWO = ["a long text", "another long text"]
RESOLVED = {
    "keys of an object": ({"answers": {"A": TWO[0], "B": TWO[1]}}, "AB"),
    "numbers as keys": ({"answers": {"1": TWO[0], "2": TWO[1]}}, (1, 2)),
    "names as keys": ({"answers": {"llama": TWO[1], "gpt4": TWO[0]}}, ("gpt4", "llama")),
    "ids in order": (
        {"options": [{"id": i, "text": t} for i, t in zip("AB", TWO, strict=True)]},
        "AB",
    ),
    "named columns": ({"first_response": TWO[0], "second_response": TWO[1]}, "AB"),
    "integers": ({"response_a": TWO[0], "response_b": TWO[1]}, (0, 1)),
    "integers of a list": ({"responses": TWO}, (0, 1)),
    "positions of objects": ({"completions": [{"text": t, "n": 1} for t in TWO]}, (1, 2)),
}


@pytest.mark.parametrize("name", ["raw.jsonl", "raw.csv"])
@pytest.mark.parametrize("case", RESOLVED)
def test_pointers_are_refused_wherever_the_texts_are(convert_file, case, name):
    more, values = RESOLVED[case]
    records = [
        {"prompt": f"P{n}", "chosen": values[n % 2], "rejected": values[1 - n % 2]} | more
        for n in range(4)
    ]
    content = in_table(records) if name == "raw.csv" else records
    done = convert_file(content, name=name)
    assert (done.status, done.rows) == (2, [])
    advice = re.search(r"resolve them with (.*?)(?:, or keep|$)", done.err.strip())[1]
    followed = convert_file(content, *shlex.split(advice), name=name)
    assert [row["chosen"] for row in followed.rows] == TWO * 2


@pytest.mark.parametrize(
    ("more", "values"),
    [
        ({"models": ["m1", "m2"], "responses": TWO}, ("m1", "m2")),
        ({"completions": [{"model": f"m{n}", "response": TWO[n]} for n in (0, 1)]}, ("m0", "m1")),
        ({"options": [{"id": i, "text": i + "xyz"} for i in "BA"]}, "AB"),
        ({"responses": [*TWO, "a third text"]}, (0, 1)),
    ],
)
def test_pointers_that_no_map_resolves_are_refused_with_what_to_write(convert_file, more, values):
    records = [pair(n, chosen=values[0], rejected=values[1]) | more for n in range(4)]
    done = convert_file(records)
    assert (done.status, done.rows) == (2, [])
    assert "write the texts themselves there, since no --map resolves them" in done.err
    if isinstance(values[0], str):
        advice = done.err.partition("or keep them with ")[2]
        assert len(convert_file(records, *shlex.split(advice)).rows) == 4


@pytest.mark.parametrize(
    "more",
    [
        {"response_a": [assistant("C")], "response_b": [assistant("R")]},
        {"responses": [[assistant("C")], [assistant("R")]]},
        {"options": [{"id": i, "turns": [assistant(t)]} for i, t in ("AC", "BR")]},
    ],
)
def test_pointers_at_messages_are_refused_with_the_map_that_works(convert_file, more):
    records = [{"prompt": f"P{n}", "chosen": "A", "rejected": "B"} | more for n in range(3)]
    advice = re.search(r"resolve them with (.*?), or keep", convert_file(records).err)[1]
    followed = convert_file(records, *shlex.split(advice))
    assert [contents(row["chosen"]) for row in followed.rows] == [["C"]] * 3


def test_pointers_are_found_though_the_first_record_is_broken(convert_file):
    records = [pair(n, chosen="A", rejected="B", a="some text", b="other") for n in range(200)]
    done = convert_file([{"prompt": "P", "chosen": "A", "a": "x", "b": "y"}, *records])
    assert "--map prompt=prompt a=a b=b label=chosen" in done.err


def test_short_answers_that_a_list_holds_are_no_pointers(convert_file):
    for more in (
        {"responses": ["A", "B"], "scores": {"A": 2, "B": 1}},
        {"completions": [{"text": t, "why": "a long reason"} for t in "AB"]},
    ):
        assert len(convert_file([pair(n, chosen="A", rejected="B") | more for n in range(4)]).rows)


def test_models_named_as_winners_are_refused_as_pointers(convert_file):
    records = [
        {
            "prompt": f"P{n}",
            "model_a": "gpt",
            "model_b": "llama",
            "response_a": f"a{n}",
            "response_b": f"b{n}",
            "chosen": "gpt" if n % 2 else "llama",
            "rejected": "llama" if n % 2 else "gpt",
        }
        for n in range(6)
    ]
    done = convert_file(records)
    assert done.status == 2
    followed = convert_file(
        records, "--map", "prompt=prompt", "a=response_a", "b=response_b", "label=chosen"
    )
    assert [row["chosen"] for row in followed.rows] == ["b0", "a1", "b2", "a3", "b4", "a5"]


def test_short_answers_are_no_pointers_without_texts_beside_them(convert_file):
    assert (
        convert_file([pair(1, chosen="A", rejected="B"), pair(2, chosen="0", rejected="1")]).status
        == 0
    )


# Stray columns.


@pytest.mark.parametrize(
    "stray",
    [
        {"conversations": None},
        {"conversations": []},
        {"history": None, "human_ref_A": None, "human_ref_B": None, "labels": None},
        {"messages": None},
        {"annotations": [], "data": {}},
    ],
)
def test_a_stray_column_does_not_claim_the_file(convert_file, stray):
    done = convert_file([pair(n) | stray for n in range(3)])
    assert (done.status, len(done.rows), done.report["format"]) == (0, 3, "preference")

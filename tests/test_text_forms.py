"""Structure that a file stores as text: messages, transcripts, repeated prompts, pointers."""

import json

import pytest
from converting import assistant, pair, user


def sides(done):
    return [(row["prompt"], row["chosen"], row["rejected"]) for row in done.rows]


def contents(side):
    return [message["content"] for message in side]


WHOLE = [
    ([user(f"P{n}"), assistant(f"it's {n}")], [user(f"P{n}"), assistant(f'"R" {n}')])
    for n in range(3)
]


@pytest.mark.parametrize("write", [json.dumps, repr, lambda turns: repr(turns).replace("\n", " ")])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_messages_stored_as_text_are_messages_in_every_syntax(convert_file, tmp_path, write, name):
    import csv
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    records = [{"chosen": write(won), "rejected": write(lost)} for won, lost in WHOLE]
    if name == "a.csv":
        file = io.StringIO()
        table = csv.DictWriter(file, ["chosen", "rejected"])
        table.writeheader()
        table.writerows(records)
        content = file.getvalue()
    elif name == "a.parquet":
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "b.parquet")
        content = (tmp_path / "b.parquet").read_bytes()
    else:
        content = records
    done = convert_file(content, name=name)
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

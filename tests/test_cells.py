"""JSON in the cells of a table, and text that only looks like it."""

import json

import pytest
from reading_formats import assistant, pairs, results, user

TURNS = [{"role": "user", "content": "P"}]


def of_cells(name="preference", **cells):
    """The one pair of a table's row, or its fault."""
    record = {"prompt": "P", "instruction": "P", "chosen": "C", "rejected": "R"} | cells
    del record["prompt" if name == "llamafactory-alpaca" else "instruction"]
    (found,) = pairs(name, record, cells=True)
    return found


def test_a_dialogue_in_a_cell_is_parsed():
    chosen = json.dumps(assistant("C"))
    expected = (TURNS, [assistant("C")], [assistant("R")])
    assert of_cells(prompt=json.dumps(TURNS), chosen=chosen) == expected


def test_an_answer_that_only_looks_like_json_is_text():
    for text in ("[1, 2]", '{"a": 1}', "[]", "{}", "[see below]", '[{"role": "user"}]', "[" * 9):
        cells = {"prompt": text, "chosen": text, "rejected": text, "other": json.dumps(TURNS)}
        assert of_cells(**cells) == (text, text, text)


def test_a_list_or_an_object_is_parsed_where_nothing_else_belongs():
    cells = {"instruction": "[1]", "history": '[["a", "b"]]', "chat_template_kwargs": '{"x": 1}'}
    record = cells | {"chosen": "C", "rejected": "R"}
    (pair,) = results("llamafactory-alpaca", record, cells=True)
    assert pair.prompt == [user("a"), assistant("b"), user("[1]")]
    assert pair.chat_template_kwargs == {"x": 1}


def test_a_list_as_python_writes_it_is_parsed_as_json_is():
    prompt = "[{'role': 'user', 'content': \"it's\"}]"
    assert of_cells(prompt=prompt)[0] == [user("it's")]
    record = {"prompt": "P", "responses": "['b', 'g']", "scores": "[1, 2]"}
    assert pairs("scored-lists", record, cells=True) == [("P", "g", "b")]


def test_unsound_json_is_a_fault_where_json_belongs_and_text_in_an_answer():
    deep = "[" * 900 + "]" * 900
    fault = of_cells("llamafactory-alpaca", history='["\\ud800"]')
    assert fault.startswith("bad_encoding: history: a string holds a lone surrogate (\\ud800 to")
    assert of_cells("llamafactory-alpaca", history='["\\u0000"]').startswith("nul_byte")
    assert of_cells("llamafactory-alpaca", history=deep).startswith("bad_json")
    assert of_cells(prompt='[{"role": "user", "content": "a", "content": "b"}]') == (
        'bad_json: prompt: this is not valid JSON: Detected duplicate key "content" at byte 45; '
        "fix the record or remove it"
    )
    assert of_cells(chat_template_kwargs='{"a": NaN}').startswith("bad_json")
    for answer in ('{"a": 1, "a": 2}', "[NaN]", '["\\u0000"]', '["\\ud800"]', deep):
        assert of_cells(chosen=answer) == ("P", answer, "R")


@pytest.mark.parametrize("header", ["prompt,chosen,rejected", "Prompt,Chosen,Rejected"])
def test_dialogues_in_a_csv_become_messages(header, convert_file):
    cell = json.dumps(TURNS).replace('"', '""')
    done = convert_file(f'{header}\n"{cell}",C,R\n', name="raw.csv")
    assert done.rows[0]["prompt"] == TURNS
    assert done.rows[0]["chosen"] == [{"role": "assistant", "content": "C"}]

"""JSON in the cells of a table, and text that only looks like it."""

import json

import pytest

from data_tools.formats import FORMATS
from data_tools.formats.paths import parse_json
from data_tools.formats.reader import viewer
from data_tools.record import BadRecord

TURNS = [{"role": "user", "content": "P"}]


def parsed(cells, format="preference"):
    _, view = viewer(FORMATS[format], tuple(cells), cells=True)
    return view(cells)


def fault(cells, format="preference"):
    with pytest.raises(BadRecord) as caught:
        parsed(cells, format)
    return caught.value.reason, caught.value.detail


def test_a_dialogue_in_a_cell_is_parsed():
    cells = {"prompt": json.dumps(TURNS), "chosen": json.dumps(TURNS[0]), "Rejected": "R"}
    assert parsed(cells) == {"prompt": TURNS, "chosen": TURNS[0], "rejected": "R"}


def test_an_answer_that_only_looks_like_json_is_text():
    for text in ("[1, 2]", '{"a": 1}', "[]", "{}", "[see below]", '[{"role": "user"}]', "[" * 9):
        cells = {"prompt": text, "chosen": text, "rejected": text, "other": json.dumps(TURNS)}
        assert parsed(cells) == cells


def test_a_structured_field_is_parsed_whatever_it_holds():
    cells = {"instruction": "[1]", "history": '[["a", "b"]]', "chat_template_kwargs": '{"x": 1}'}
    assert parsed(cells, "llamafactory-alpaca") == {
        "instruction": "[1]",
        "history": [["a", "b"]],
        "chat_template_kwargs": {"x": 1},
    }


def test_unsound_json_is_a_fault_in_a_structured_cell_and_text_in_an_answer():
    deep = "[" * 900 + "]" * 900
    reason, detail = fault({"history": '["\\ud800"]'}, "llamafactory-alpaca")
    assert reason == "bad_encoding"
    assert detail.startswith("history: a string holds a lone surrogate (\\ud800 to \\udfff)")
    assert fault({"history": '["\\u0000"]'}, "llamafactory-alpaca")[0] == "nul_byte"
    assert fault({"history": deep}, "llamafactory-alpaca")[0] == "bad_json"
    assert fault({"prompt": '[{"role": "user", "content": "a", "content": "b"}]'}) == (
        "bad_json",
        'prompt: this is not valid JSON: Detected duplicate key "content" at byte 45; '
        "fix the record or remove it",
    )
    assert fault({"chat_template_kwargs": '{"a": NaN}'})[0] == "bad_json"
    for answer in ('{"a": 1, "a": 2}', "[NaN]", '["\\u0000"]', '["\\ud800"]', deep):
        assert parsed({"chosen": answer}) == {"chosen": answer}


def test_a_list_that_may_be_json_text_is_read_either_way():
    assert parse_json('["a"]', "x") == parse_json(["a"], "x") == ["a"]
    assert (parse_json("[a", "x"), parse_json(None, "x")) == ("[a", None)


@pytest.mark.parametrize("header", ["prompt,chosen,rejected", "Prompt,Chosen,Rejected"])
def test_dialogues_in_a_csv_become_messages(header, convert_file):
    cell = json.dumps(TURNS).replace('"', '""')
    done = convert_file(f'{header}\n"{cell}",C,R\n', name="raw.csv")
    assert done.rows[0]["prompt"] == TURNS
    assert done.rows[0]["chosen"] == [{"role": "assistant", "content": "C"}]

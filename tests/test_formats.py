"""What holds of every format, by the example records of --list-formats."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading_formats import (
    EXAMPLES,
    FORMATS,
    assistant,
    check_fault,
    fault,
    kept,
    rejected,
    results,
    system,
    text,
    user,
)
from spoiled import spoiled

from data_tools.record import BadRecord, LabeledComparison, Pair, ScoredAnswer, TreeMessage

PARTS = (Pair, LabeledComparison, ScoredAnswer, TreeMessage)


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_format_fits_no_other_format(convert_file, name):
    done = convert_file([EXAMPLES[name]], "--check", "--json")
    assert json.loads(done.out)["format"] == name


@pytest.mark.parametrize("name", FORMATS)
def test_the_example_of_a_format_is_converted(name):
    for part in results(name, EXAMPLES[name]):
        assert isinstance(part, PARTS)
        if isinstance(part, Pair):
            assert part.prompt and part.chosen != part.rejected
            assert "shrub" in text(part.chosen) or "Hello" in text(part.chosen)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_of_a_table_is_read_as_the_same_record(name):
    record = EXAMPLES[name]
    cells = {key: v if isinstance(v, str) else json.dumps(v) for key, v in record.items()}
    assert results(name, cells, cells=True) == results(name, record)


def test_a_cell_is_json_only_where_it_holds_what_belongs_there():
    record = {"prompt": "[1, 2]", "chosen": "[3]", "rejected": "{}"}
    expected = results("preference", record)
    assert results("preference", record, cells=True) == expected
    empty = dict.fromkeys(("system", "tools", "chat_template_kwargs"), "")
    assert results("preference", record | empty, cells=True) == expected


TOOLS = [{"type": "function", "function": {"name": "add"}}]
KWARGS = {"enable_thinking": False}
MORE = {"system": "Be brief.", "tools": TOOLS, "chat_template_kwargs": KWARGS}
OWN_PLACE = {
    "openai",
    "label-studio",
    "label-studio-ranker",
    "argilla-nested",
}  # inside another field
WITHOUT_SYSTEM = {"summarize-from-feedback", "oasst-tree", "oasst-flat"} | OWN_PLACE


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in WITHOUT_SYSTEM])
def test_a_system_text_heads_the_prompt_and_tools_belong_to_the_pair(name):
    record = {key: v for key, v in EXAMPLES[name].items() if not key.startswith("system")}
    for part in results(name, record | MORE):
        assert part.prompt[0] == system("Be brief.")
        assert [message["role"] for message in part.prompt[:2]] == ["system", "user"]
        assert (json.loads(part.tools), part.chat_template_kwargs) == (TOOLS, KWARGS)
    for field in MORE:
        assert fault(name, record | {field: 7}).startswith(f"wrong_type: {field} is 7; it must be")


def fields(value, path=()):
    """The path of every field inside a record, and what it holds."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str):
            yield (*path, key), inner
        if isinstance(inner, dict | list):
            yield from fields(inner, (*path, key))


def replaced(record, path, value):
    record = inner = copy.deepcopy(record)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return record


OTHERWISE = ["type", "value", "replies", "id", "rank", "was_cancelled", "better.responses"]
OTHERWISE += ["preferenceLabel"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_value_that_is_null_or_of_the_wrong_type_is_named_wherever_it_is(name):
    for path, old in fields(EXAMPLES[name]):
        if path[-1] in OTHERWISE:  # where null or true have a meaning of their own
            continue
        for value, reasons in (
            (None, ("missing_field", "null_label")),
            (True, ("wrong_type", "unknown_label")),
        ):
            found = results(name, replaced(EXAMPLES[name], path, value))
            faults = [part for part in found if isinstance(part, BadRecord)]
            if faults:
                assert faults[0].reason in reasons, path
                assert any(w in faults[0].detail for w in (path[-1], "label", "Rating")), path
            if value is True and " " in str(old):
                assert faults and "True" in faults[0].detail, path


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_whatever_a_record_holds_it_comes_to_parts_or_to_faults(name, data):
    record = spoiled(EXAMPLES[name], data.draw)
    if data.draw(st.booleans()):
        record = spoiled(record, data.draw)
    before = copy.deepcopy(record)
    questions = st.sampled_from([None, "better", "rank", "no such"])
    question = data.draw(questions) if FORMATS[name].questions else None
    for mode in ("best-worst", "all"):
        found = results(name, record, pairs=mode, question=question)
        assert found and all(isinstance(part, (*PARTS, BadRecord)) for part in found)
        json.dumps([part.detail for part in found if isinstance(part, BadRecord)])
    assert record == before


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ([1], "wrong_type: the record is [1], not an object with fields"),
        ("x" * 900, f"wrong_type: the record is '{'x' * 58}…, not an object with fields"),
        ({"prompt": "P", "chosen": "C"}, "missing_field: rejected missing or null"),
    ],
)
def test_a_record_of_no_format_names_what_it_lacks(record, expected):
    check_fault("preference", record, expected)


def test_a_record_of_another_format_names_every_format_that_it_looks_like():
    stray = fault("preference", EXAMPLES["implicit-messages"])
    assert stray.endswith("; it looks like implicit-messages")
    both = EXAMPLES["implicit-messages"] | EXAMPLES["sharegpt"]
    assert fault("preference", both).endswith("; it looks like sharegpt")


def test_kept_columns_are_text_and_found_without_the_spaces_in_their_names(convert_file):
    record = EXAMPLES["preference"] | {" a": 7, "b": "\u00e9", "c": {"\u00e9": 1.5}, "d": None}
    (row,) = convert_file([record], *(f"--keep={name}" for name in "abcd")).rows
    assert [row[name] for name in "abcd"] == ["7", "\u00e9", '{"\u00e9": 1.5}', None]


def test_each_pair_of_a_record_is_checked_by_itself(convert_file):
    record = {"prompt": "P", "answer_a": "<br>", "answer_b": " ", "answer_c": "C", "label": "a"}
    done = convert_file([record])
    assert kept(done) == [("P", "<br>", "C")]
    assert rejected(done) == [(1, "empty_response")]
    assert done.report["pairs"] == {"made": 2, "kept": 1, "rejected": 1}
    assert done.report["records"] == {"read": 1, "converted": 1, "rejected": 0}


REMOVED = "the answers begin with their prompt, which was removed from them"


REPEATING = [
    lambda p, c, r: {"prompt": p, "chosen": c, "rejected": r},
    lambda p, c, r: {"prompt": p, "answer_a": c, "answer_b": r, "label": "a", "annotator": "ann"},
    lambda p, c, r: {"messages": [user(p)], "chosen": c, "rejected": assistant(r)},
    lambda p, c, r: {"instruction": p, "generations": [r, c], "ratings": [1, 2]},
]


@pytest.mark.parametrize("make", REPEATING)
def test_answers_that_begin_with_their_prompt_lose_it_and_the_report_notes_it(convert_file, make):
    records = [make(f"Q{n}? ", f"Q{n}? good", f"Q{n}? bad") for n in range(19)]
    done = convert_file(records)
    assert kept(done) == [(f"Q{n}? ", "good", "bad") for n in range(19)]
    assert REMOVED in done.report["notes"]
    done = convert_file(records[:1])
    assert REMOVED not in done.report["notes"]  # a single prompt may be a coincidence


def test_answers_to_one_prompt_in_several_records_lose_it_too(convert_file):
    records = [
        {"prompt": f"Q{n // 2}? ", "completion": f"Q{n // 2}? {n % 2 == 0}", "label": n % 2 == 0}
        for n in range(20)
    ]
    assert kept(convert_file(records)) == [(f"Q{n}? ", "True", "False") for n in range(10)]


def test_one_answer_that_does_not_begin_with_the_prompt_is_rejected(convert_file):
    records = [REPEATING[0](f"Q{n}? ", f"Q{n}? good", f"Q{n}? bad") for n in range(19)]
    done = convert_file([*records, {"prompt": "Q? ", "chosen": "good", "rejected": "Q? bad"}])
    assert rejected(done) == [(20, "history_mismatch")]
    assert "one of these does not; fix the record" in done.rejects[0]["detail"]
    call = assistant(None, tool_calls=[{"id": "1"}])
    done = convert_file([*records, {"prompt": "Q? ", "chosen": [call], "rejected": "Q? bad"}])
    assert len(done.rows) == 20  # a call of a tool has no text to compare


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("--annotators each", "no record names one"),
        ("--pairs all", "preference has no ranking"),
        ("--min-margin 2", "preference has no ratings"),
        ("--sheet x", "no input is .xlsx"),
    ],
)
def test_an_option_without_effect_is_noted(convert_file, option, why):
    done = convert_file([EXAMPLES["preference"]], *option.split())
    note = f"{option.replace(' 2', '')} has no effect: {why}"
    assert (done.status, done.report["notes"]) == (0, [note])

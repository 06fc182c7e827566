"""Which format is detected, on what evidence, and what is refused because it is ambiguous."""

import csv
import json

import pytest
from converting import convert, pair, write_lines
from reading_formats import EXAMPLES

from data_tools.formats import FORMATS
from data_tools.record import ConvertError

LABELLED = {"prompt": "P", "response_a": "A", "response_b": "B", "label": "a"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def checked(*files, **options):
    """The figures of lists of records, one list a file: f1.jsonl, f2.jsonl ..."""
    names = [write_lines(f"f{i}.jsonl", records) for i, records in enumerate(files, start=1)]
    return convert(tuple(names), check=True, workers=1, **options).figures


def refusal(*files, **options):
    with pytest.raises(ConvertError) as caught:
        checked(*files, **options)
    assert caught.value.status == 2
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_detected_in_the_cells_of_a_table(name):
    record = EXAMPLES[name]
    with open("raw.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(record)
        rows.writerow([v if isinstance(v, str) else json.dumps(v) for v in record.values()])
    assert convert(("raw.csv",), check=True).figures["format"] == name


def test_a_general_format_gives_way_to_one_that_fits_more_closely():
    record = {"instruction": "P", "output_1": "A", "output_2": "B", "preference": 1}
    assert checked([record])["format"] == "alpaca-eval"
    named = checked([record], format="labelled-pairs", label="first=1,second=2")
    assert named["format"] == "labelled-pairs"


def test_the_evidence_names_how_many_records_fit_and_the_columns():
    found = checked([pair(1), pair(2), pair(3), {"prompt": "P"}], [pair(4)])
    assert found["evidence"] == "4 of the first 5 records fit; columns chosen, prompt, rejected"
    assert checked([pair()], format="preference")["evidence"] == "from --format"
    assert checked([{"q": "P"} | pair()], map={"prompt": "q"})["evidence"] == "from --map"


def test_a_second_format_of_one_percent_of_a_file_is_refused_with_counts():
    pairs = [pair(i) for i in range(100)]
    assert refusal([*pairs[:99], LABELLED]) == (
        "f1.jsonl: more than one format fits: labelled-pairs (1 records), preference (99 records); "
        "choose with --format labelled-pairs|preference, the other records become rejects"
    )
    (example,) = checked([*pairs, LABELLED])["examples"].values()
    assert example.startswith("f1.jsonl:101: chosen is missing or null; ")
    assert example.endswith("; it looks like labelled-pairs")
    assert refusal(pairs, [LABELLED] * 2).startswith(
        "f1.jsonl and 1 more: more than one format fits: labelled-pairs (2 records), preference (1"
    )
    found = checked([*pairs[:99], LABELLED], format="labelled-pairs")
    assert found["records"] == {"read": 100, "converted": 1, "rejected": 99}


def test_only_the_first_thousand_records_of_a_file_are_looked_at():
    found = checked([pair(i) for i in range(1000)] + [LABELLED] * 50)
    assert found["evidence"].startswith("1,000 of the first 1,000 records fit")
    assert found["reasons"] == {"missing_field": 50}


def test_a_format_that_cannot_be_used_is_refused():
    assert refusal([pair()], format="tulu") == (
        f"--format tulu: unknown; known are {', '.join(FORMATS)} (see --list-formats)"
    )
    assert refusal([pair()], format="hh", map={"prompt": "x"}) == (
        "--format hh and --map both define the format; give one"
    )


def test_unknown_columns_are_refused_with_the_map_that_would_name_them():
    records = [{"q": "P", "good": "C", "bad": "R"}]
    assert refusal(records) == (
        "f1.jsonl: no known format has the columns bad, good, q; name them with "
        "--map prompt=COLUMN chosen=COLUMN rejected=COLUMN, or "
        "--map prompt=COLUMN a=COLUMN b=COLUMN label=COLUMN; also label=COLUMN,COLUMN, a= b= "
        "ranking=, responses= scores=, or response= score= (see --list-formats)"
    )
    advice = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert checked(records, map=advice)["pairs"]["kept"] == 1


def test_plain_answers_without_a_prompt_are_refused_since_they_cannot_be_split():
    assert refusal([{"chosen": "C", "rejected": "R", "topic": "T"}]) == (
        "f1.jsonl: chosen and rejected are plain text without a prompt, which cannot be split "
        "safely; name the prompt's column with --map prompt=topic (columns: chosen, rejected, "
        "topic), or give whole dialogues as messages or with turn markers"
    )


def test_records_without_fields_are_refused_with_the_first_trouble():
    start = (
        "f1.jsonl: no record with fields among the first ones, so the format cannot be detected; "
    )
    assert refusal(["x", None, {}]) == start + "is this a file of preferences?"
    assert refusal([[1], "x"]) == start + (
        "f1.jsonl:1 is a list, not a record: rename a file that holds one array to .json, and "
        "write one record a line in JSON Lines"
    )
    with open("broken.jsonl", "w") as file:
        file.write("\n{\n")
    with pytest.raises(ConvertError, match="the first is broken.jsonl:2: this is not valid JSON"):
        convert(("broken.jsonl",), check=True)


def test_a_second_field_that_may_be_the_prompt_is_named():
    found = checked([pair(question="Q?", input="I")])
    shown = found["warning_examples"]["unread_context"]
    assert "question, input: add it with" in shown
    message = refusal([{"instruction": "I", "question": "Q", "chosen": "C", "rejected": "R"}])
    assert "name the prompt's column with --map prompt=" in message


def test_two_columns_for_one_field_are_named():
    message = refusal([LABELLED | {"winner": "a"}])
    assert message.startswith("f1.jsonl: the columns are label, prompt, response_a, response_b, wi")
    assert "winner and label" in message and "--map" in message


def test_an_object_of_several_splits_is_refused_as_such():
    message = refusal([{"train": [LABELLED], "test": [LABELLED]}])
    assert "one object holds the lists test, train; write each to a file of its own" in message


@pytest.mark.parametrize("values", [("1,2", "2,1"), ("1", "2")])
def test_an_order_that_cannot_be_read_as_swapped_is_refused_with_how_to_write_it(values):
    records = [LABELLED | {"prompt": f"P{n}", "order": values[n % 2]} for n in range(4)]
    message = refusal(records)
    assert "it must be true" in message and "write true where" in message
    written = [record | {"order": str(record["order"] == values[1])} for record in records]
    assert checked(written, map={"swapped": "order"})["pairs"]["kept"] == 4
    assert checked(records, map={"swapped": ""})["pairs"]["kept"] == 4


def test_a_general_label_next_to_that_of_a_special_format_is_ambiguous():
    answers = {"response_1": "A", "response_2": "B"}
    special = {"helpsteer2-preference": {"prompt": "P", "preference_strength": 3}}
    special["pandalm"] = {"instruction": "P", "annotator_1": 1}
    for name, record in special.items():
        assert checked([record | answers])["format"] == name
        message = refusal([record | answers | {"winner": "response_1"}])
        assert "more than one format fits" in message and "labelled-pairs" in message


def test_a_mapped_column_must_be_in_some_record():
    for field in ("prompt", "system"):
        assert refusal([pair()], map={field: "question"}) == (
            f"--map {field}=question: no such column; there are chosen, prompt, rejected"
        )


def test_the_columns_that_a_map_does_not_name_must_be_there_too():
    message = refusal([{"prompt": "P", "good": "C"}], map={"chosen": "good"})
    start = "--map chosen=good: no record has all of these columns; prompt, chosen and rejected are"
    assert message.startswith(start) and "rejected" in message
    assert message.endswith("; the columns are good, prompt")


@pytest.mark.parametrize("value", [1, "0", True, "1.0", "false"])
def test_bare_labels_are_refused_until_they_are_defined(value):
    records = [LABELLED | {"label": value}] * 5
    numbers = "first=1,second=2 or first=0,second=1,tie=2"
    example = "first=true,second=false" if value is True or value == "false" else numbers
    message = (
        f"f1.jsonl: the label holds bare numbers or booleans ({value!r}), and which answer they "
        f"mean is never guessed; define it, e.g. --label {example}"
    )
    assert refusal(records) == refusal(records, format="labelled-pairs") == message
    label = f"first={str(value).lower()},second=other"
    assert checked(records, label=label)["pairs"]["kept"] == 1


def test_one_bare_label_in_a_hundred_is_refused_and_fewer_are_rejects():
    labelled = [LABELLED | {"prompt": f"P{i}"} for i in range(100)]
    bare = LABELLED | {"label": 1}
    assert "the label holds bare numbers" in refusal([*labelled[:99], bare])
    assert checked([*labelled, bare])["reasons"] == {"unknown_label": 1}


def test_a_label_for_a_format_without_one_is_refused():
    assert refusal([pair()], label="first=1,second=2") == (
        "--label: the format preference has no label to define (chosen won); remove the option"
    )


REMOVED = "the answers begin with their prompt, which was removed from them"


def repeating(count):
    return [pair(i, chosen=f"P{i} C", rejected=f"P{i} R") for i in range(count)]


def test_answers_that_nearly_all_begin_with_their_prompt_lose_it():
    assert checked([*repeating(9), pair(50)])["notes"] == [REMOVED]
    assert checked([*repeating(8), pair(50), pair(51)])["notes"] == []
    assert checked(repeating(1) * 10)["notes"] == []  # one prompt alone is no proof
    empty = [pair(prompt=prompt, chosen=" C", rejected=" R") for prompt in (" ", "")]
    assert checked([*empty, pair()])["notes"] == []

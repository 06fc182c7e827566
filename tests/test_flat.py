"""Flat formats: a prompt, its answers, and the fields or the label that name the winner."""

import pytest
from reading_formats import (
    assistant,
    cases,
    check_fault,
    fault,
    kept,
    outcome,
    pairs,
    rejected,
    results,
    system,
    user,
    votes,
)

A_WON, B_WON = [("P", "A", "B")], [("P", "B", "A")]


def ab(label, **more):
    return {"prompt": "P", "response_a": "A", "response_b": "B", "preference": label} | more


CHOSEN = {"instruction": "P", "chosen_response": "A"}


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("preference", {"prompt": "P", "chosen": "A", "rejected": "B"}),
        ("preference", {"PROMPT": "P", "Chosen": "A", "Rejected": "B"}),
        ("orca", {"question": "P", "chosen": "A", "rejected": "B"}),
        ("orca", {"input": "P", "chosen": "A", "rejected": "B"}),
        ("llamafactory-alpaca", {"instruction": "P", "chosen": "A", "rejected": "B"}),
        ("argilla-chosen-response", CHOSEN | {"rejected_response": "B"}),
        ("stack-exchange-paired", {"question": "P", "response_j": "A", "response_k": "B"}),
        ("better-worse", {"prompt": "P", "better": "A", "worse": "B"}),
        ("better-worse", {"question": "P", "accepted": "A", "rejected": "B"}),
        ("better-worse", {"query": "P", "pos_resp": "A", "neg_resp": "B"}),
    ],
)
def test_a_field_names_the_winner(name, record):
    (pair,) = results(name, record)
    assert (pair.prompt, pair.chosen, pair.rejected, pair.first_won) == ("P", "A", "B", None)
    for field in record:
        check_fault(
            name, record | {field: None}, f"missing_field: {field.lower()} missing or null text"
        )


def test_text_is_taken_as_it_is():
    record = {"prompt": " P ", "chosen": "C\n", "rejected": "R"}
    assert pairs("preference", record) == [(" P ", "C\n", "R")]


def test_a_system_column_becomes_the_first_message():
    record = {"prompt": "P", "chosen": "A", "rejected": "B"}
    headed = [([system("S"), user("P")], "A", "B")]
    assert pairs("preference", record | {"system": "S"}) == headed
    assert pairs("preference", record | {"system": ""}) == A_WON
    assert pairs("preference", record | {"system": None}) == A_WON
    check_fault("preference", record | {"system": 7}, "wrong_type: system is 7 text")


def test_an_instruction_continues_in_its_input():
    record = {"instruction": "I", "input": "more", "chosen": "A", "rejected": "B"}
    assert pairs("llamafactory-alpaca", record) == [("I\nmore", "A", "B")]
    answers = {"output_1": "A", "output_2": "B", "label": "output_1"}
    record = {"instruction": "I", "input": "more"} | answers
    assert pairs("labelled-pairs", record) == [("I\nmore", "A", "B")]
    assert pairs("labelled-pairs", record | {"input": ""}) == [("I", "A", "B")]
    assert pairs("labelled-pairs", {"input": "more"} | answers) == [("more", "A", "B")]


def test_a_history_precedes_the_prompt_and_a_system_text_both():
    record = {"instruction": "I", "chosen": "A", "rejected": "B", "system": "S"}
    ((prompt, *_),) = pairs("llamafactory-alpaca", record | {"history": [["q", "a"]]})
    assert prompt == [system("S"), user("q"), assistant("a"), user("I")]
    faulty = record | {"history": ["q"]}
    check_fault("llamafactory-alpaca", faulty, "wrong_type: history ['q'] list [question, answer]")


WORDS = {
    "first": ["response_a", "Response A", "A", "a", " first ", "LEFT", "model_a", "answer-a"],
    "second": ["response_b", "B", "second", "right", "option b", "assistant_b"],
    "tie": ["tie", "Draw", "both", "neither", "tie (bothbad)", "both-bad"],
    "null_label": [None, "", "  ", "null", "None", "NaN", float("nan"), "n/a"],
    "unknown_label": ["the long one", "c", ["a"], {"a": 1}, "a or b"],
}
BARE = [1, 0, 1.0, True, "1", " 2 ", "-1", "1e0", ".5", "true", "False"]


@pytest.mark.parametrize(("won", "word"), cases(WORDS))
def test_a_word_names_the_winner_or_a_tie(won, word):
    assert outcome("labelled-pairs", ab(word)) == won


@pytest.mark.parametrize("value", BARE)
def test_a_bare_number_or_boolean_is_never_guessed(value):
    assert fault("labelled-pairs", ab(value)) == (
        f"unknown_label: the label {value!r} is a bare number or boolean; define its meaning with "
        "--label"
    )


def test_a_label_without_a_winner_explains_itself():
    assert fault("labelled-pairs", ab("both")) == (
        "tie: the label 'both' means that neither answer is better; remove the record, or label "
        "the better one"
    )
    assert fault("labelled-pairs", ab(None)) == (
        "null_label: there is no judgement; label the record or remove it"
    )
    assert fault("labelled-pairs", ab("the long one")) == (
        "unknown_label: the label 'the long one' names no answer; known are response_a, "
        "response_b, A, B, first, second, tie; define it with --label"
    )
    assert "known are 1, 2, 0;" in fault("labelled-pairs", ab(3), label="first=1,second=2,tie=0")


DEFINED = {
    ("first=1,second=2", "first"): [1, "1", 1.0],
    ("first=1,second=2", "second"): [2, "2", 2.0, "2.0"],
    ("first=1,second=2", "null_label"): [None, ""],
    ("first=1,second=2", "unknown_label"): ["tie", "a", True, 3],
    ("first=-1,second=1,tie=0", "first"): ["-1.0"],
    ("first=true,second=false", "first"): [True],
    ("first=true,second=false", "second"): [False],
    ("first=false,second=true", "second"): ["True"],
    ("first=Left one,second=x", "first"): [" left ONE "],
    ("first=b,second=a", "second"): ["a"],
    ("first=none,second=x", "first"): ["None"],
    ("first=none,second=x", "null_label"): [None],
    ("first=1,second=2,tie=0", "tie"): [0],
    ("first=1,second=2,tie=na", "tie"): ["NA"],
}


@pytest.mark.parametrize(("label", "won", "value"), cases(DEFINED))
def test_the_label_option_alone_defines_the_values(label, won, value):
    assert outcome("labelled-pairs", ab(value), label=label) == won


INCOMPLETE = ["1,2", "first=1", "first=1,second=2,fifth=3", "first=1,second=2,tie"]


@pytest.mark.parametrize("label", [*INCOMPLETE, "first=,second=2", "first=1,second=2,first=3", ""])
def test_a_label_option_that_is_incomplete_is_refused(convert_file, label):
    done = convert_file([ab(1)], "--label", label)
    assert done.status == 2
    assert f"--label {label}: write --label first=X,second=Y or first=X,second=Y,tie=Z" in done.err
    done = convert_file([ab("a")], "--label", "first=A,second=a")
    assert "--label first=A,second=a: one value cannot mean two outcomes" in done.err


def test_true_is_not_the_number_one_in_any_record(convert_file):
    done = convert_file([ab(1), ab(True), ab(1.0, prompt="Q")], "--label", "first=1,second=2")
    assert rejected(done) == [(2, "unknown_label")]


def test_the_order_shown_is_known_of_labelled_pairs_alone(convert_file):
    done = convert_file([ab("a"), ab("b", prompt="Q"), ab("b", prompt="R"), ab("b", prompt="S")])
    assert done.report["first_answer_wins"] == 0.25
    done = convert_file([{"prompt": "P", "chosen": "A", "rejected": "B"}])
    assert done.report["first_answer_wins"] is None


def test_the_winner_is_paired_with_each_of_the_other_answers():
    record = ab("c", response_c="C", response_d="D")
    assert pairs("labelled-pairs", record) == [("P", "C", "A"), ("P", "C", "B"), ("P", "C", "D")]
    record = ab("fourth", response_c="C", response_d="D")
    assert pairs("labelled-pairs", record)[0] == ("P", "D", "A")


def test_an_empty_third_answer_does_not_give_its_letter_to_the_fourth():
    record = ab("d", response_c="", response_d="D")
    assert pairs("labelled-pairs", record) == [("P", "D", "A"), ("P", "D", "B")]
    assert pairs("labelled-pairs", ab("a", response_c=None, response_d="")) == A_WON
    null = ab("c", response_c=None, response_d="D")
    check_fault("labelled-pairs", null, "empty_response: label names answer 3 missing")


def test_numbered_fields_are_named_by_a_word_with_their_number():
    record = {"question": "P", "answer1": "A", "answer2": "B"}
    assert outcome("labelled-pairs", record | {"winner": "answer2"}) == "second"
    assert outcome("labelled-pairs", record | {"winner": "model_1"}) == "first"
    assert outcome("labelled-pairs", record | {"winner": "2"}) == "unknown_label"


def test_capitals_and_spaces_in_column_names_do_not_hide_a_general_format(convert_file):
    record = {"Prompt": "P", "Response A": "A", "Response_B": "B", " Preferred": "Response B"}
    done = convert_file([record])
    assert (done.report["format"], kept(done)) == ("labelled-pairs", B_WON)
    assert convert_file([record | {"prompt": "Q"}]).status == 2
    shouted = {"QUESTION": "P", "CHOSEN": "A", "REJECTED": "B"}
    assert convert_file([shouted]).status == 2  # a published format's names are exact


def test_names_that_would_be_the_same_without_spaces_are_not_changed():
    record = {"prompt": "P", "chosen": "A", "rejected": "B", " chosen": "C"}
    assert pairs("preference", record) == A_WON


@pytest.mark.parametrize(
    ("more", "names"),
    [
        ({"winner": "response_a"}, "preference and winner"),
        ({"question": "Q"}, "prompt and question"),
        ({"output_1": "x", "output_2": "y"}, "response_a and output_1"),
    ],
)
def test_two_fields_for_one_thing_are_not_mistaken_for_each_other(convert_file, more, names):
    message = f"{names} could both be meant; name the right one with --map"
    assert fault("labelled-pairs", ab("b", **more)) == f"wrong_type: {message}"
    done = convert_file([ab("b", **more)])
    assert done.status == 2
    assert f"{names} could both be meant; name the right one: --map " in done.err


RECORDS = {
    "shp": {"history": "P", "human_ref_A": "A", "human_ref_B": "B"},
    "alpaca-eval": {"instruction": "P", "output_1": "A", "output_2": "B"},
    "pku-saferlhf": {"prompt": "P", "response_0": "A", "response_1": "B", "safer_response_id": 0},
    "helpsteer2-preference": {"prompt": "P", "response_1": "A", "response_2": "B"},
    "helpsteer3": {"context": "P", "response1": "A", "response2": "B"},
    "halos": {"prompt": "P", "output_A": "A", "output_B": "B", "type": "pairwise_feedback"},
    "pandalm": {"instruction": "P", "response1": "A", "response2": "B"},
}
LABELS = "labels preference better_response_id preference_strength overall_preference label"
LABELS = dict(zip(RECORDS, [*LABELS.split(), "annotator1"], strict=True))
NUMBERS = {
    ("shp", "first"): [1, 1.0, "1"],
    ("shp", "second"): [0, "0", "0.0"],
    ("shp", "unknown_label"): [2, -1, True, False, "x", 0.5],
    ("alpaca-eval", "first"): [1, 1.0, 1.2, "1", "1.49"],
    ("alpaca-eval", "second"): [2, 1.51, "2.0"],
    ("alpaca-eval", "tie"): [0, 1.5, "1.5"],
    ("alpaca-eval", "unknown_label"): [3, -1, 0.5, True, [1]],
    ("pku-saferlhf", "first"): [0, "0"],
    ("pku-saferlhf", "second"): [1, "1"],
    ("pku-saferlhf", "unknown_label"): [2, -1, True, 0.5],
    ("helpsteer2-preference", "first"): [-3, -1, "-2"],
    ("helpsteer2-preference", "second"): [1, 3, "+2"],
    ("helpsteer2-preference", "tie"): [0, "0"],
    ("helpsteer2-preference", "unknown_label"): [True, {}, "much"],
    ("helpsteer3", "first"): [-3, "-1"],
    ("helpsteer3", "second"): [2],
    ("helpsteer3", "tie"): [0],
    ("halos", "first"): [1, "1", 1.0],
    ("halos", "second"): [0, 2, "0", 0.5],
    ("halos", "unknown_label"): [True, "yes"],
    ("pandalm", "first"): [1, "1"],
    ("pandalm", "second"): [2, "2"],
    ("pandalm", "tie"): [0, "0"],
    ("pandalm", "unknown_label"): [3, -1, True, "x"],
}


@pytest.mark.parametrize(("name", "won", "value"), cases(NUMBERS))
def test_a_formats_own_numbers_mean_what_its_documentation_defines(name, won, value):
    assert outcome(name, RECORDS[name] | {LABELS[name]: value}) == won


@pytest.mark.parametrize("name", RECORDS)
def test_words_are_understood_next_to_numbers_and_no_other_format_fits(convert_file, name):
    record, label = RECORDS[name], LABELS[name]
    first, second = list(record)[1:3]
    for word, won in ((first, "first"), (second, "second"), ("tie", "tie"), ("nan", "null_label")):
        assert outcome(name, record | {label: word}) == won
    for nothing in (None, "", float("nan")):
        assert outcome(name, record | {label: nothing}) == "null_label"
    assert convert_file([record | {label: second}]).report["format"] == name


def test_a_halos_record_is_known_by_its_type_or_by_its_messages(convert_file):
    messages = {"output_A": [assistant("A")], "output_B": [assistant("B")], "label": 1}
    done = convert_file([{"prompt": [user("P")]} | messages])
    assert (done.report["format"], kept(done)) == ("halos", A_WON)
    assert convert_file([{"prompt": "P", "output_A": "A", "output_B": "B", "label": 1}]).status == 2


def test_a_general_label_next_to_a_published_formats_own_is_ambiguous(convert_file):
    record = RECORDS["helpsteer2-preference"] | {"preference_strength": 1}
    done = convert_file([record | {"preference": "response_1"}])
    assert "more than one format fits: helpsteer2-preference (1 records), labelled" in done.err


def test_the_label_option_replaces_the_formats_own_numbers():
    record = RECORDS["pku-saferlhf"] | {"better_response_id": 1}
    assert outcome("pku-saferlhf", record, label="first=1,second=0") == "first"


def test_several_annotators_in_columns_are_one_comparison():
    record = RECORDS["pandalm"] | {"annotator1": 1, "annotator2": None, "annotator10": 2}
    (comparison,) = results("pandalm", record | {"annotator3": 0})
    assert comparison.votes == (("annotator1", 0), ("annotator3", None), ("annotator10", 1))
    assert not comparison.across_records
    assert fault("pandalm", record | {"annotator2": 7}).startswith("unknown_label")
    spaced = {"instruction": "P", "response 1": "A", "response 2": "B", "annotator 1": 2}
    assert outcome("pandalm", spaced) == "second"


def test_a_record_that_names_its_annotator_waits_for_other_records():
    (comparison,) = results("labelled-pairs", ab("B", annotator_id=7))
    assert (comparison.prompt, comparison.first, comparison.second) == ("P", "A", "B")
    assert (comparison.votes, comparison.across_records) == ((("7", 1),), True)
    several = ab("c", response_c="C", annotator="x")
    expected = [("A", "C", (("x", 1),)), ("B", "C", (("x", 1),))]
    assert votes("labelled-pairs", several) == expected
    assert fault("labelled-pairs", ab("", annotator="x")).startswith("null_label")


def test_an_annotator_is_one_person_however_a_number_is_written():
    names = {
        "7": [7, 7.0, "7", " 7 ", "7.0", {"id": 7}, {"email": "", "id": "7"}],
        "": [None, "", {}, [None], {"email": ""}],
    }
    for who, value in cases(names):
        assert votes("labelled-pairs", ab("B", annotator=value)) == [("A", "B", ((who, 1),))]


def mapped(convert_file, columns, record, *options):
    """The pairs of a record whose columns are named, or the reason of its one reject."""
    words = [f"{field}={column}" for field, column in columns.items()]
    done = convert_file([record], "--map", *words, *options)
    assert done.status in (0, 1), done.err
    return kept(done) or rejected(done)[0][1]


def test_mapped_columns_may_name_the_winner(convert_file):
    columns = {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert mapped(convert_file, columns, {"q": "P", "good": "A", "bad": "B"}) == A_WON
    record = {"q": "P", "chosen": "A", "rejected": "B", "sys": "S"}
    assert mapped(convert_file, {"prompt": "q"}, record) == A_WON
    done = convert_file([record], "--map", "prompt=q", "system=sys")
    assert done.rows[0]["prompt"] == [system("S"), user("P")]


def test_mapped_columns_may_have_a_label(convert_file):
    columns = {"prompt": "q", "a": "left", "b": "right", "label": "best"}
    record = {"q": "P", "left": "A", "right": "B", "best": "right"}
    assert mapped(convert_file, columns, record) == B_WON
    assert mapped(convert_file, columns, record | {"best": "A"}) == A_WON
    option = ("--label", "first=0,second=1")
    assert mapped(convert_file, columns, record | {"best": 0}, *option) == A_WON


REORDERED = ["right,left", "response_b,response_a", "answer_2,answer_1", "Model B,model-a"]


@pytest.mark.parametrize("names", [*REORDERED, "second,first"])
def test_columns_in_another_order_are_named_by_their_own_names_alone(convert_file, names):
    first, second = names.split(",")
    columns = {"prompt": "q", "a": first, "b": second, "label": "best"}
    record = {"q": "P", first: "A", second: "B"}
    assert mapped(convert_file, columns, record | {"best": first}) == A_WON
    assert mapped(convert_file, columns, record | {"best": second}) == B_WON
    assert mapped(convert_file, columns, record | {"best": "option_a"}) == "unknown_label"


def test_columns_that_differ_only_in_case_are_named_by_no_word(convert_file):
    columns = {"prompt": "q", "a": "Answer", "b": "answer", "label": "best"}
    record = {"q": "P", "Answer": "A", "answer": "B", "best": "Answer"}
    assert mapped(convert_file, columns, record) == "unknown_label"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("answer=x", "unknown field 'answer'; known are prompt, system, history, tools"),
        ("annotator=who", "no record has all of these columns; prompt, chosen and"),
        ("a=x b=x label=y", "the column x cannot be two fields at once"),
        ("prompt=chosen", "--map prompt=chosen: no such column"),
        ("chosen=x a=y", "name the answers in one way: chosen and rejected; a and b with"),
    ],
)
def test_a_map_that_is_unusable_is_refused(convert_file, words, message):
    done = convert_file([{"x": "X", "y": "Y", "who": "W"}], "--map", *words.split())
    assert done.status == 2
    assert message in done.err

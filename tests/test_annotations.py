"""The exports of annotation tools: whose judgements count, on which question, and on which pair."""

import pytest
from reading_formats import (
    assistant,
    cases,
    check_fault,
    fault,
    kept,
    outcome,
    rejected,
    results,
    user,
    votes,
)

ARGILLA, STUDIO, ROWS = "argilla-responses", "label-studio", "label-studio-rows"
RANKER = "label-studio-ranker"
USERS, STATUS = "better.responses.users", "better.responses.status"


def argilla(*answers, question="better", status="submitted", **more):
    """A record with one response for each of `answers`, by users u1, u2 ..."""
    key = f"{question}.responses"
    statuses = [status] * len(answers) if isinstance(status, str) else status
    users = [f"u{number}" for number in range(1, len(answers) + 1)]
    fields = {"prompt": "P", "response_a": "A", "response_b": "B"}
    return fields | {key: [*answers], f"{key}.users": users, f"{key}.status": statuses} | more


def side(which, name="better", **more):
    return {"type": "pairwise", "from_name": name, "value": {"selected": which}} | more


def choice(*words, name="better"):
    return {"type": "choices", "from_name": name, "value": {"choices": [*words]}}


def studio(*annotations, **data):
    """A task with an annotation, by annotators 1, 2 ..., of each list of results."""
    return {
        "id": 5,
        "data": {"prompt": "P", "answer1": "A", "answer2": "B"} | data,
        "annotations": [
            {"completed_by": number, "was_cancelled": False, "result": result}
            if isinstance(result, list)
            else result
            for number, result in enumerate(annotations, start=1)
        ],
    }


def row(answer, **more):
    task = {"prompt": "P", "answer1": "A", "answer2": "B", "better": answer, "id": 1}
    made = {"annotator": 7, "annotation_id": 3, "created_at": "t", "lead_time": 1.5}
    return task | made | more


def ranked(*rankings, name="rank", bodies="ABC", prompt="P"):
    """A task whose items are x, y, z, with a ranking by each of the annotators 1, 2 ..."""
    items = [{"id": key, "body": body} for key, body in zip("xyz", bodies, strict=False)]
    ranker = {"type": "ranker", "from_name": name}
    record = studio(*([ranker | {"value": {"ranker": order}}] for order in rankings))
    return record | {"data": {"prompt": prompt, "items": items}}


XYZ = ["x", "y", "z"]
CANCELLED = {"was_cancelled": True, "result": [side("left")]}
COMMENT = {"type": "textarea", "value": {"text": ["left"]}}
OUTCOMES = {
    (ARGILLA, "first"): [argilla("response_a"), argilla("A"), argilla("a", response_c="")],
    (ARGILLA, "second"): [argilla("Response B")],
    (ARGILLA, "tie"): [argilla("tie")],
    (ARGILLA, "null_label"): [argilla(), argilla(None), argilla() | {"better.responses": None}],
    (ARGILLA, "cancelled_annotation"): [argilla("A", "tie", status=["draft", "discarded"])],
    (ARGILLA, "unknown_label"): [argilla("the long one"), argilla(["A"]), argilla("A", "x")],
    (STUDIO, "first"): [studio([side("left")]), studio([choice("Answer A")])],
    (STUDIO, "second"): [studio([side("right")]), studio([choice("Answer 2")])],
    (STUDIO, "tie"): [studio([choice("Tie")])],
    (STUDIO, "null_label"): [studio(), studio([]), studio([COMMENT]), studio([choice()])],
    (STUDIO, "cancelled_annotation"): [studio(CANCELLED), studio(CANCELLED | {"result": []}, [])],
    (STUDIO, "unknown_label"): [studio([side("up")]), studio([choice("Answer A", "Answer B")])],
    (ROWS, "first"): [row("left"), row("Answer A"), row("left", annotator=None)],
    (ROWS, "second"): [
        *(row(value) for value in ("B", [{"selected": "right"}], {"choices": ["Answer B"]})),
        *(row(cell) for cell in ('[{"selected": "right"}]', '{"choices": ["Answer B"]}')),
    ],
    (ROWS, "tie"): [row({"choices": ["both bad"]})],
    (ROWS, "null_label"): [row(""), row(None), row([])],
    (ROWS, "cancelled_annotation"): [row("left", was_cancelled=flag) for flag in (True, "True")],
    (ROWS, "unknown_label"): [row("up"), row({"choices": ["A", "B"]}), row(1)],
    (RANKER, "first"): [ranked(["x", "y"], bodies="AB"), ranked({"_": ["x", "y"]}, bodies="AB")],
    (RANKER, "second"): [ranked(["y", "x"], bodies="AB"), ranked({"r": ["y", "x"]}, bodies="AB")],
    (RANKER, "null_label"): [ranked(), ranked(None), ranked({}, [])],
    (RANKER, "cancelled_annotation"): [ranked() | {"annotations": [{"was_cancelled": True}]}],
}


@pytest.mark.parametrize(("name", "won", "record"), cases(OUTCOMES))
def test_the_judgement_names_the_first_answer_the_second_or_neither(name, won, record):
    assert outcome(name, record) == won


def test_a_record_without_a_usable_judgement_explains_itself():
    assert fault(ARGILLA, argilla(None)) == (
        "null_label: there is no judgement; label the record or remove it"
    )
    assert fault(ARGILLA, argilla("response_a", status="discarded")) == (
        "cancelled_annotation: every annotation of the record was cancelled or discarded; label it "
        "or remove it"
    )
    known = "A, B, first, second, tie"
    assert f"known are response_a, response_b, {known};" in fault(ARGILLA, argilla("the long one"))
    assert f"known are answer1, answer2, {known};" in fault(STUDIO, studio([side("up")]))


@pytest.mark.parametrize(
    ("name", "make"),
    [(ARGILLA, argilla), (STUDIO, lambda value: studio([choice(value)])), (ROWS, row)],
)
def test_numbers_mean_what_the_label_option_defines(convert_file, name, make):
    label = "first=1,second=2,tie=0"
    for value, won in (("1", "first"), (2, "second"), (0, "tie"), ("A", "unknown_label")):
        assert outcome(name, make(value), label=label) == won
    assert "the label holds bare numbers or booleans (1)" in convert_file([make(1)]).err


def test_only_submitted_responses_count_and_suggestions_do_not():
    answers = ["response_b", "response_a", "response_a", "tie"]
    statuses = ["submitted", "draft", "discarded", "submitted"]
    record = argilla(*answers, status=statuses, **{"better.suggestion": "response_a"})
    assert votes(ARGILLA, record) == [("A", "B", (("u1", 1), ("u4", None)))]
    record = argilla("response_b", "response_a")
    del record[USERS], record[STATUS]
    expected = (("response 1", 1), ("response 2", 0))
    assert votes(ARGILLA, record) == [("A", "B", expected)]


def test_lists_of_responses_may_be_json_in_a_cell():
    cells = {"better.responses": '["response_b", "A"]', USERS: '["u1", "u2"]', STATUS: ""}
    assert votes(ARGILLA, argilla() | cells) == [("A", "B", (("u1", 1), ("u2", 0)))]
    unsound = argilla() | {"better.responses": '["\\u0000"]'}
    assert fault(ARGILLA, unsound).startswith("nul_byte: better.responses")


def test_an_annotator_is_known_by_number_account_or_position():
    accounts = [{"id": 4, "email": "a@b.c"}, {"id": 5}, {"email": []}, None, "zoe"]
    record = studio(*({"completed_by": who, "result": [side("left")]} for who in accounts))
    ((_, _, given),) = votes(STUDIO, record)
    assert [who for who, _ in given] == ["a@b.c", "5", "annotation 3", "annotation 4", "zoe"]


def test_cancelled_and_empty_annotations_are_no_judgements():
    record = studio(CANCELLED, [side("right")], [], [side("left")], {"result": None})
    assert votes(STUDIO, record) == [("A", "B", (("2", 1), ("4", 0)))]


def test_only_the_rows_of_an_export_are_judged_across_records():
    (row_part,) = results(ROWS, row("left", annotator="ann@x"))
    assert (row_part.votes, row_part.across_records) == ((("ann@x", 0),), True)
    for name, record in ((ARGILLA, argilla("A")), (STUDIO, studio([side("left")]))):
        assert not results(name, record)[0].across_records


def test_judgements_of_one_record_are_counted(convert_file):
    split = [argilla("A", "A", "B"), argilla("A", "B", prompt="Q"), argilla("A", "B", prompt="R")]
    done = convert_file(split)
    assert kept(done) == [("P", "A", "B")]
    assert rejected(done) == [(2, "disagreement"), (3, "disagreement")]
    assert len(convert_file(split, "--annotators", "each").rows) == 7
    done = convert_file([argilla("A", "B", **{USERS: ["u1", "u1"]})])
    assert done.rejects[0]["detail"].startswith("each annotator judged these two answers both ways")
    rows = [row("left", annotator=who) for who in (1, 2)] + [row("right", annotator=3)]
    assert kept(convert_file(rows)) == [("P", "A", "B")]


def test_left_is_the_answer_that_the_control_shows_first():
    assert outcome(STUDIO, studio([side("left", to_name="answer2,answer1")])) == "second"
    assert outcome(STUDIO, studio([side("left", to_name="answer1, answer2")])) == "first"
    assert outcome(STUDIO, studio([side("left", to_name="t1,t2")])) == "first"


def test_a_winner_among_several_answers_beats_each_and_the_others_are_not_compared():
    record = argilla("response_c", "response_c", "response_a", response_c="C", response_d="D")
    assert votes(ARGILLA, record) == [
        ("A", "B", (("u3", 0),)),
        ("A", "C", (("u1", 1), ("u2", 1), ("u3", 0))),
        ("A", "D", (("u3", 0),)),
        ("B", "C", (("u1", 1), ("u2", 1))),
        ("C", "D", (("u1", 0), ("u2", 0))),
    ]


def test_system_texts_inputs_and_tools_belong_to_the_comparison():
    record = argilla("response_a", system="S", tools='[{"name": "t"}]', input="more")
    record["instruction"] = record.pop("prompt")
    (part,) = results(ARGILLA, record)
    assert [message["content"] for message in part.prompt] == ["S", "P\nmore"]
    assert (part.first, part.tools) == ("A", '[{"name": "t"}]')


def test_the_rankings_decide_which_items_are_compared_and_everyone_votes_on_them():
    record = ranked(XYZ, {"_": ["z", "x", "y"]}, {"rank": XYZ})
    assert votes(RANKER, record) == [
        ("A", "C", (("1", 0), ("2", 1), ("3", 0))),
        ("B", "C", (("1", 0), ("2", 1), ("3", 0))),
    ]
    one = ranked(["z", "x", "y"])
    (last, middle, other) = [
        (*pair, (("1", won),)) for pair, won in (("AC", 1), ("AB", 0), ("BC", 1))
    ]
    assert votes(RANKER, one, pairs="best-worst") == [other]
    assert votes(RANKER, one, pairs="adjacent") == [last, middle]
    assert votes(RANKER, one, pairs="all") == [last, other, middle]


def test_a_ranking_that_names_a_missing_answer_is_rejected():
    order = ["response_c", "response_a", "response_b", "response_d"]
    record = argilla(order, response_c=None, response_d="D")
    check_fault(ARGILLA, record, "empty_response: label names answer 3 missing")
    mixed = argilla(["response_b", "response_a"], "A")
    check_fault(ARGILLA, mixed, "unknown_label: some annotators ranked others named one")


def test_ids_of_ranked_items_may_be_numbers():
    record = ranked([2, "1"])
    record["data"]["items"] = [{"id": "1", "body": "A"}, {"id": 2, "body": "B"}]
    assert outcome(RANKER, record) == "second"


def test_field_names_that_would_be_the_same_without_spaces_are_not_changed():
    record = ranked(XYZ)
    record["data"] |= {" a": 1, "a": 2}
    assert votes(RANKER, record) == [("A", "C", (("1", 0),))]


def task(**data):
    """A task with a ranking, some of its data replaced."""
    record = ranked(XYZ)
    return record | {"data": record["data"] | data}


def items(*bodies):
    return [{"id": key, "body": body} for key, body in zip(XYZ, bodies, strict=True)]


ANSWERED = [user("P"), assistant("A")]
BUCKETS = {"_": ["x"], "good": ["y", "z"]}
FAULTS = {
    ARGILLA: [
        (argilla() | {"better.responses": "A"}, "wrong_type: better.responses 'A' list"),
        (argilla("A", **{USERS: [1, 2]}), "wrong_type: better.responses.users 2 entries for 1"),
        (argilla("A", **{STATUS: {}}), "wrong_type: better.responses.status {} list"),
        (argilla("A") | {"question": "Q"}, "wrong_type: prompt and question could both be"),
        (argilla("A", answer1="x", answer2="y"), "wrong_type: response_a and answer1 could both"),
        (argilla("c", response_c=None), "empty_response: label names answer 3 missing"),
        (argilla("a", response_a=ANSWERED), "history_mismatch: whole dialogue both or neither"),
        ({"prompt": "P", "x.responses": ["tie"]}, "missing_field: response_a"),
        ({"prompt": "P", "response_a": "A"}, "missing_field: question's answers NAME.responses"),
    ],
    STUDIO: [
        (studio([side("left")], prompt=None), "missing_field: prompt text"),
        (studio([side("", value="left")]), "wrong_type: pairwise result value 'left' object"),
        (studio() | {"annotations": [7]}, "wrong_type: annotation 1 7 object"),
        (studio({"result": "x"}), "wrong_type: result of annotation 1 'x' list"),
    ],
    ROWS: [(row('{"selected": "\\ud800"}'), "bad_encoding: better surrogate")],
    RANKER: [
        (ranked(["x", "y"]), "unknown_label: ['x', 'y'] each of the 3 answers once"),
        (ranked(["x", "y", "w"]), "unknown_label: ['x', 'y', 'w'] each of the 3 answers once"),
        (ranked(["x", "y", ["z"]]), "unknown_label: 'x' 'y' ['z'] each of once"),
        (ranked(["x", "y", "y"]), "unknown_label: ['x', 'y', 'y'] each of the 3 answers once"),
        (ranked(BUCKETS), "wrong_type: ranker buckets list of ids"),
        (ranked("x"), "wrong_type: ranker 'x' list of ids"),
        (ranked({"rank": 7}), "wrong_type: ranker 7 list of ids"),
        (ranked(["x"], bodies="A"), "unpaired: 1 answer a pair needs two"),
        (task(items=["x"]), "wrong_type: items[0] 'x' object"),
        (task(items=[{"id": 1}, {"id": "1"}]), "wrong_type: two items '1' own"),
        (task(items=items("A", None, "C")), "missing_field: item body"),
        (task(question="Q"), "wrong_type: prompt and question could both be"),
    ],
}


@pytest.mark.parametrize(("name", "record", "expected"), cases(FAULTS))
def test_a_faulty_annotation_names_the_field_and_the_fault(name, record, expected):
    check_fault(name, record, expected)


def test_two_rankers_make_no_pair_unless_one_is_asked_for():
    record = ranked(XYZ)
    ranker = record["annotations"][0]["result"][0]
    record["annotations"][0]["result"] = [ranker | {"from_name": name} for name in ("r1", "r2")]
    check_fault(RANKER, record, "unknown_label: no one question names an answer r1, r2")
    buckets = ranker | {"from_name": "sort", "value": {"ranker": {"a": ["x"], "b": []}}}
    record["annotations"][0]["result"] = [ranker, buckets]
    assert votes(RANKER, record, question="rank") == [("A", "C", (("1", 0),))]


def answered(name, number, **given):
    """A record of the format in which one annotator answers each question; None is no answer."""
    more = {"prompt": f"P{number}"}
    if name == RANKER:
        (question,) = given
        return ranked(given[question], name=question, **more)
    if name == STUDIO:
        words = {key: word for key, word in given.items() if word is not None}
        return studio([choice(word, name=key) for key, word in words.items()], **more)
    if name == ROWS:
        return row(given.get("better"), annotation_id=number) | given | more
    parts = [argilla(word, question=key) for key, word in given.items()]
    return {key: value for part in parts for key, value in part.items()} | more


QUESTIONED = pytest.mark.parametrize("name", [ARGILLA, STUDIO, ROWS])


@QUESTIONED
def test_two_questions_of_one_export_are_never_mixed_into_one_preference(convert_file, name):
    records = [answered(name, 1, better="A", safer=None), answered(name, 2, better=None, safer="B")]
    done = convert_file(records)
    assert done.status == 2
    assert (
        "more than one question names an answer: better (1 records), safer (1 records); remove all "
        "but one from the export"
    ) in done.err
    both = answered(name, 1, better="A", safer="B")
    check_fault(name, both, "unknown_label: no one question names an answer better, safer")


@QUESTIONED
def test_a_comment_that_happens_to_name_an_answer_decides_nothing(convert_file, name):
    records = [answered(name, n, better="BA"[n % 2], comment="well put") for n in range(1, 401)]
    records[6] = answered(name, 7, better=None, comment="B")
    records[7] = answered(name, 8, better="A", comment="both")
    records[8] = answered(name, 9, better="the long one", comment="A")
    done = convert_file(records)
    assert [chosen for _, chosen, _ in kept(done)[:8]] == ["A", "B", "A", "B", "A", "B", "A", "B"]
    assert (done.rows[6]["source"], len(done.rows)) == ("raw.jsonl:8", 398)
    assert rejected(done) == [(7, "null_label"), (9, "unknown_label")]
    assert "the label 'the long one' names no answer" in done.rejects[1]["detail"]


@QUESTIONED
def test_a_question_whose_answers_are_unreadable_affects_no_other(name):
    broken = {"comment": 7} if name == ROWS else {"comment.responses": "B"}
    record = answered(name, 1, better="A")
    if name == STUDIO:
        record["annotations"][0]["result"].append(side(7, name="comment", value=7))
        broken = {}
    assert outcome(name, record | broken, question="better") == "first"


@QUESTIONED
def test_a_question_of_numbers_names_answers_only_as_the_label_option_defines(convert_file, name):
    alone = [answered(name, n, pick=str(n % 2)) for n in range(4)]
    assert "the label holds bare numbers or booleans ('0', '1')" in convert_file(alone).err
    option = ("--label", "first=0,second=1")
    assert len(convert_file(alone, *option).rows) == 4
    several = [answered(name, n, pick=str(n % 2), comment="well put") for n in range(4)]
    done = convert_file(several)
    assert {reason for _, reason in rejected(done)} == {"unknown_label"}
    assert "pick" in done.rejects[0]["detail"] and "comment" in done.rejects[0]["detail"]
    several[1] = answered(name, 1, pick="1", comment="A")
    done = convert_file(several, *option)
    assert [chosen for _, chosen, _ in kept(done)] == ["A", "B", "A", "B"]
    stars = [answered(name, n, pick="A", stars=str(n % 2)) for n in range(4)]
    assert [chosen for _, chosen, _ in kept(convert_file(stars))] == ["A"] * 4


def test_a_task_with_pairwise_results_is_not_read_by_its_choices(convert_file):
    first = studio([side("left"), choice("Answer B", name="safer")])
    second = studio([side("right"), choice("tie", name="safer")], prompt="Q")
    assert [chosen for _, chosen, _ in kept(convert_file([first, second]))] == ["A", "B"]
    records = [studio([side("left")], prompt=f"P{n}") for n in range(200)]
    done = convert_file([*records, studio([choice("Answer B", name="safer")])])
    assert len(done.rows) == 200
    assert rejected(done) == [(201, "null_label")]
    assert outcome(STUDIO, studio([choice("History", name="topic"), choice("B")])) == "second"


def test_rankings_under_two_controls_are_never_mixed(convert_file):
    helpful = [answered(RANKER, n, helpful=XYZ) for n in range(200)]
    safer = answered(RANKER, "S", safer=["z", "y", "x"])
    done = convert_file([*helpful[:2], safer])
    assert "more than one question names an answer: helpful (2 records), safer (1 re" in done.err
    done = convert_file([*helpful, safer])
    assert len(done.rows) == 200
    assert rejected(done) == [(201, "null_label")]

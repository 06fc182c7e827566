"""What several records come to together: judgements of one comparison, rated answers to one prompt.

Trees of messages are in test_trees.py.
"""

import json
import random

import pytest
from converting import pair
from reading_formats import (
    EXAMPLES,
    assistant,
    cases,
    check_fault,
    kept,
    rejected,
    results,
    system,
    user,
)


def details(done):
    return [item["detail"] for item in done.rejects]


# --- judgements of one comparison


def judgement(who, label, first="A", second="B", prompt="P"):
    """One record in which an annotator judges two answers, shown in this order."""
    record = {"prompt": prompt, "response_a": first, "response_b": second}
    return record | {"preference": label, "annotator_id": who}


THREE = [judgement("ann", "a"), judgement("bob", "b", "B", "A"), judgement("cyd", "b")]


COUNTED = {  # labels of several annotators: what a majority and what unanimity come to
    "AAB": ("A", "disagreement"),
    "BAB": ("B", "disagreement"),
    "AA": ("A", "A"),
    "==B": ("tie", "disagreement"),
    "==": ("tie", "tie"),
    "AB": ("disagreement", "disagreement"),
    "AB=": ("disagreement", "disagreement"),
    "AA==": ("disagreement", "disagreement"),
}


@pytest.mark.parametrize("labels", COUNTED)
def test_judgements_in_several_records_are_counted(convert_file, labels):
    words = {"=": "tie"}
    records = [judgement(f"ann{at}", words.get(w, w)) for at, w in enumerate(labels)]
    for mode, expected in zip(("majority", "unanimous"), COUNTED[labels], strict=True):
        done = convert_file(records, "--annotators", mode)
        if expected in "AB":
            assert [chosen for _, chosen, _ in kept(done)] == [expected]
            assert done.rows[0]["source"] == "raw.jsonl:1"
            assert done.report["pairs"] == {"made": 1, "kept": 1, "rejected": 0}
            assert done.report["records"]["converted"] == len(records)  # outvoted ones too
        else:
            assert rejected(done) == [([*range(1, len(records) + 1)], expected)]
            assert done.rejects[0]["raw"] == records[0]


def test_pairs_are_in_the_order_of_their_records_whoever_else_judged_them(convert_file):
    alone = {key: v for key, v in judgement("", "a", prompt="Q").items() if key != "annotator_id"}
    done = convert_file([THREE[0], alone, *THREE[1:], alone | {"prompt": "R"}])
    assert kept(done) == [("P", "A", "B"), ("Q", "A", "B"), ("R", "A", "B")]


def test_a_disagreement_names_the_options(convert_file):
    done = convert_file([judgement("x", "A"), judgement("y", "B"), judgement("z", "tie")])
    assert done.rejects[0]["detail"] == (
        "the judgements are 1 for the first answer, 1 for the second, 1 for a tie, and not more "
        "than half agree; remove the pair, or use --annotators each"
    )


def test_answers_shown_in_the_other_order_are_the_same_comparison(convert_file):
    done = convert_file(THREE)
    assert kept(done) == [("P", "A", "B")]
    assert done.report["first_answer_wins"] == 1.0
    done = convert_file([THREE[1], THREE[0], THREE[2]])
    assert kept(done) == [("P", "A", "B")]
    assert done.report["first_answer_wins"] == 0.0  # B is the first answer of the first record
    assert done.report["agreement"]["disagreeing"] == 1


def test_each_judgement_may_be_a_pair_of_its_own(convert_file):
    done = convert_file(THREE, "--annotators", "each")
    assert kept(done) == [("P", "A", "B"), ("P", "A", "B"), ("P", "B", "A")]
    assert done.report["pairs"] == {"made": 3, "kept": 3, "rejected": 0}
    more = [*THREE, judgement("ann", "a"), judgement("cyd", "a")]
    done = convert_file(more, "--annotators", "each")
    assert rejected(done) == [(3, "contradictory"), (4, "duplicate"), (5, "contradictory")]


def test_a_judgement_that_is_given_twice_counts_once(convert_file):
    done = convert_file([*THREE, judgement("ann", "b", "B", "A")])
    assert kept(done) == [("P", "A", "B")]
    assert rejected(done) == [(4, "duplicate")]
    assert "is at raw.jsonl:1, which counts" in details(done)[0]
    assert done.report["records"] == {"read": 4, "converted": 3, "rejected": 1}


def test_an_annotator_who_contradicts_himself_is_not_counted(convert_file):
    done = convert_file([*THREE, judgement("cyd", "a"), judgement("cyd", "b")])
    assert kept(done) == [("P", "A", "B")]
    assert rejected(done) == [(record, "contradictory") for record in (3, 4, 5)]
    others = [detail.split("differently at ")[1].split(";")[0] for detail in details(done)]
    assert others == ["raw.jsonl:4", "raw.jsonl:3", "raw.jsonl:4"]
    done = convert_file([judgement("x", "a"), judgement("x", "tie")])
    assert rejected(done) == [(1, "contradictory"), (2, "contradictory")]


def test_a_null_judgement_is_none_and_a_reject_of_its_own(convert_file):
    done = convert_file([*THREE[:2], judgement("cyd", None), judgement("dot", "b")])
    assert kept(done) == [("P", "A", "B")]
    assert rejected(done) == [(3, "null_label")]


def test_a_pair_is_checked_once_the_judgements_are_counted(convert_file):
    done = convert_file([judgement(who, "b", " ") for who in "xyz"])
    assert rejected(done) == [([1, 2, 3], "empty_response")]


def test_files_share_their_judgements_and_a_reject_names_every_place(convert_file, tmp_path):
    (tmp_path / "more.jsonl").write_text(json.dumps(THREE[1]) + "\n" + json.dumps(THREE[2]))
    done = convert_file([THREE[0]], "more.jsonl", "--annotators", "unanimous")
    (reject,) = done.rejects
    assert reject["records"] == [1, 1, 2]
    assert reject["sources"] == ["raw.jsonl:1", "more.jsonl:1", "more.jsonl:2"]


def test_an_annotator_is_mapped_as_any_other_field(convert_file):
    records = [
        {"q": "P", "x": "A", "y": "B", "best": best, "who": who}
        for who, best in (("ann", "x"), ("bob", "x"), ("cyd", "y"))
    ]
    options = ["--map", "prompt=q", "a=x", "b=y", "label=best"]
    assert kept(convert_file(records, *options, "annotator=who")) == [("P", "A", "B")]
    assert {reason for _, reason in rejected(convert_file(records, *options))} == {"contradictory"}


def test_columns_of_annotators_are_counted_in_their_record(convert_file):
    def columns(*labels):
        record = {"instruction": "P", "response1": "A", "response2": "B"}
        return record | {f"annotator{at}": label for at, label in enumerate(labels, start=1)}

    done = convert_file([columns(1, 1, 2), columns(1, 2, 0), columns(0, 0, 1), columns(1, None)])
    assert kept(done) == [("P", "A", "B")]
    assert rejected(done) == [(2, "disagreement"), (3, "tie"), (4, "duplicate")]
    done = convert_file([columns(1, 1, 2)], "--annotators", "each")
    assert [chosen for _, chosen, _ in kept(done)] == ["A", "A", "B"]


@pytest.mark.parametrize("seed", range(30))
def test_any_judgements_come_to_what_counting_by_hand_gives(convert_file, seed):
    draw = random.Random(seed)
    records = []
    for _ in range(draw.choice([4, 20, 300])):
        who, label = draw.choice("vwxyz"), draw.choice(["A", "A", "B", "tie"])
        records.append(judgement(who, label, *draw.choice(["XY", "YX"]), draw.choice("PQRSTU")))
    expected = {}
    for prompt in "PQRSTU":
        given = {}
        for record in records:
            if record["prompt"] == prompt:
                label, who = record["preference"], record["annotator_id"]
                won = {"A": record["response_a"], "B": record["response_b"]}.get(label, "tie")
                given.setdefault(who, set()).add(won)
        counted = [won for own in given.values() if len(own) == 1 for won in own]
        top = max(counted, key=counted.count, default=None)
        if top:
            expected[prompt] = top if 2 * counted.count(top) > len(counted) else "disagreement"
    done = convert_file(records)
    found = {prompt: chosen for prompt, chosen, _ in kept(done)}
    for item in done.rejects:
        if item["reason"] not in ("duplicate", "contradictory"):
            found[item["raw"]["prompt"]] = item["reason"]
    assert found == expected


# --- rated answers to one prompt


def kto(answer, label, prompt="P"):
    return {"prompt": prompt, "completion": answer, "label": label}


def rating(answer, score, prompt="P"):
    return {"prompt": prompt, "response": answer, "helpfulness": score, "verbosity": 1}


def test_every_good_answer_is_compared_with_every_bad_one(convert_file):
    records = [kto("no", False), kto("yes", True), kto("other", True, "Q"), kto("nay", False)]
    done = convert_file([*records, kto("bad", 0)])
    assert done.report["format"] == "kto"
    assert kept(done) == [("P", "yes", "no"), ("P", "yes", "nay")]
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1", "raw.jsonl:2"]
    assert done.report["first_answer_wins"] == 0.5
    assert rejected(done) == [(3, "unpaired"), (5, "unknown_label")]
    assert details(done)[0].startswith("no record judges another answer to this prompt false")
    assert done.report["records"] == {"read": 5, "converted": 3, "rejected": 2}


def test_text_next_to_messages_becomes_messages(convert_file):
    messages = {"prompt": [user("P")], "completion": [assistant("no")], "label": False}
    (row,) = convert_file([kto("yes", True), messages]).rows
    assert (row["prompt"], row["chosen"]) == ([user("P")], [assistant("yes")])


def test_answers_with_different_tools_are_not_compared(convert_file):
    tools = {"tools": '[{"name": "f"}]'}
    done = convert_file([kto("a", True) | tools, kto("b", False) | tools, kto("c", False)])
    assert kept(done) == [("P", "a", "b")]
    assert done.rows[0]["tools"] == tools["tools"]
    assert rejected(done) == [(3, "unpaired")]


def test_the_best_rating_is_compared_with_the_worst_or_as_asked(convert_file):
    records = [rating("c", 2), rating("a", "4"), rating("d", 1), rating("b", 2.5)]
    done = convert_file(records)
    assert done.report["format"] == "helpsteer2"
    assert kept(done) == [("P", "a", "d")]
    assert rejected(done) == [(1, "unpaired"), (4, "unpaired")]
    assert "use --pairs all to compare every two" in details(done)[0]
    done = convert_file(records, "--pairs", "adjacent")
    assert kept(done) == [("P", "b", "c"), ("P", "c", "d"), ("P", "a", "b")]
    assert len(convert_file(records, "--pairs", "all").rows) == 6


def test_answers_that_all_have_one_rating_share_a_tie(convert_file):
    for mode in ("best-worst", "adjacent", "all"):
        done = convert_file([rating("a", 3), rating("b", 3), rating("c", 3)], "--pairs", mode)
        assert rejected(done) == [([1, 2, 3], "tie")]
        assert "3 answers to this prompt are rated equally, so none is" in done.rejects[0]["detail"]


def test_a_tie_next_to_pairs_is_a_reject_of_its_own(convert_file):
    done = convert_file([rating("a", 3), rating("b", 1), rating("c", 3)], "--pairs", "all")
    assert kept(done) == [("P", "a", "b"), ("P", "c", "b")]
    assert rejected(done) == [([1, 3], "tie")]
    assert done.report["pairs"] == {"made": 3, "kept": 2, "rejected": 1}
    assert done.report["records"] == {"read": 3, "converted": 3, "rejected": 0}
    assert done.report["ties"] == 0.3333


def test_ratings_closer_than_the_margin_are_a_tie(convert_file):
    records = [rating("a", 1), rating("b", 2), rating("c", 4)]
    done = convert_file(records, "--pairs", "all", "--min-margin", "2")
    assert kept(done) == [("P", "c", "a"), ("P", "c", "b")]
    assert rejected(done) == [([1, 2], "tie")]
    assert details(done) == [
        "2 answers to this prompt are rated closer than --min-margin 2; lower it or remove them"
    ]


def test_an_answer_that_nothing_is_comparable_with_is_unpaired(convert_file):
    done = convert_file([rating("a", 1), rating("b", 2, "Q"), rating("c", None, "R")])
    assert rejected(done) == [(1, "unpaired"), (2, "unpaired"), (3, "null_label")]
    assert details(done)[0].startswith("no other record rates an answer to this prompt")


def test_a_prompt_that_is_none_makes_no_million_pairs(convert_file):
    done = convert_file([kto(f"answer {n}", n % 2 == 0, "same") for n in range(2200)])
    assert done.status == 2
    message = "1,100 answers judged true and 1,100 judged false, which would make 1,210,000"
    assert message in done.err


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("graded", [True, False])
def test_any_answers_give_the_pairs_that_a_plain_search_gives(convert_file, graded, seed):
    draw = random.Random(seed)
    answers = [
        (draw.choice("PQR"), f"{at} {draw.random()}", draw.randrange(3 if graded else 2))
        for at in range(draw.choice([3, 12, 150]))
    ]
    expected = {
        (prompt, better, worse)
        for prompt, better, high in answers
        for other, worse, low in answers
        if prompt == other and high > low
    }
    make = rating if graded else lambda answer, score, prompt: kto(answer, score == 1, prompt)
    records = [make(answer, score, prompt) for prompt, answer, score in answers]
    found = kept(convert_file(records, *(["--pairs", "all"] if graded else [])))
    assert set(found) == expected
    assert len(found) == len(expected)


# --- one answer a record

TAGS = {"kto": "label", "kto-messages": "label", "kto-sharegpt": "kto_tag"}
LABELS = {
    1.0: [True, "True"],
    0.0: [False, " false ", "FALSE"],
    "unknown_label": [1, 0, 1.0, "1", "yes", ["true"], {"a": True}],
    "null_label": [None, "", "null", float("nan")],
}


@pytest.mark.parametrize("name", TAGS)
@pytest.mark.parametrize(("expected", "value"), cases(LABELS))
def test_true_is_a_good_answer_and_false_a_bad_one(name, expected, value):
    (found,) = results(name, EXAMPLES[name] | {TAGS[name]: value})
    assert (found.reason if isinstance(expected, str) else found.score) == expected


def test_the_answer_is_the_last_assistant_turn_and_the_prompt_all_before_it():
    call, result = assistant(None, tool_calls=[{"id": "1"}]), {"role": "tool", "content": "4"}
    asked = [system("s"), user("2+2?"), call, result]
    record = {"messages": [*asked, assistant("Four.")], "kto_tag": "true", "tools": [{"x": 1}]}
    (found,) = results("kto-messages", record)
    assert (found.prompt, found.answer, found.score) == (asked, [assistant("Four.")], 1.0)
    assert found.tools == '[{"x": 1}]'
    speakers = ("system", "human", "gpt", "human", "gpt")
    turns = [{"from": speaker, "value": "x"} for speaker in speakers]
    (found,) = results("kto-sharegpt", {"conversations": turns, "label": False})
    assert found.prompt == [system("x"), user("x"), assistant("x"), user("x")]


@pytest.mark.parametrize("name", ["kto-messages", "kto-sharegpt"])
def test_a_dialogue_next_to_other_answers_is_no_lone_answer(convert_file, name):
    for more in ("chosen", "rejected", "rejected_response", "rejected_messages", "generations"):
        done = convert_file([EXAMPLES[name] | {more: "x"}], "--check", "--json")
        assert done.status == 2 or json.loads(done.out)["format"] != name


def test_a_dialogue_with_two_labels_or_none_fits_no_format(convert_file):
    messages = {"messages": EXAMPLES["kto-messages"]["messages"]}
    for more in ({}, {"label": True, "kto_tag": True}):
        assert convert_file([messages | more]).status == 2


ANSWERED, GPT = [user("a"), assistant("b")], {"from": "gpt", "value": "b"}
FAULTS = {
    "kto": [({"label": 2}, "unknown_label: label is 2 true false")],
    "kto-messages": [
        ({"messages": [user(7), assistant("b")]}, "wrong_type: messages message 1 content 7 text"),
        ({"messages": [*ANSWERED, user("c")]}, "bad_roles: end with the assistant"),
        ({"messages": []}, "bad_roles: a turn before the answer"),
        ({"messages": [assistant("b")]}, "bad_roles: a turn before the answer"),
    ],
    "kto-sharegpt": [
        ({"conversations": [{"from": "human"}, GPT]}, "missing_field: conversations value text"),
    ],
    "helpsteer2": [({"response": {}}, "missing_field: response role text")],
}


@pytest.mark.parametrize(("name", "change", "expected"), cases(FAULTS))
def test_a_record_that_is_no_judged_answer_names_the_field_and_the_fault(name, change, expected):
    check_fault(name, EXAMPLES[name] | change, expected)


WINNERS = [("x", "y", 1), ("y", "x", 2), ("x", "y", 3)]


def as_dialogues(prompt, chosen, rejected, **more):
    return {
        "chosen": [user(prompt), assistant(chosen)],
        "rejected": [user(prompt), assistant(rejected)],
    } | more


@pytest.mark.parametrize(("column", "options"), [("annotator_id", ()), ("who", ["annotator=who"])])
@pytest.mark.parametrize("write", [pair, as_dialogues])
def test_finished_pairs_that_name_their_annotator_are_judgements(
    convert_file, write, column, options
):
    records = [
        write(prompt="P", chosen=won, rejected=lost, **{column: who}) for won, lost, who in WINNERS
    ]
    options = ["--map", *options] if options else []
    kept = {}
    for mode in ("unanimous", "majority", "each"):
        done = convert_file(records, *options, "--annotators", mode)
        kept[mode] = [str(row["chosen"]).count("x") for row in done.rows or []]
    assert kept == {"majority": [1], "unanimous": [], "each": [1, 0, 1]}


def test_scores_and_orders_of_several_annotators_are_refused(convert_file):
    record = {"prompt": "P", "a": "x", "b": "y", "r": "A>B", "s": 1, "t": 2, "who": 1}
    for judged in (["ranking=r"], ["score_a=s", "score_b=t"]):
        done = convert_file([record], "--map", "a=a", "b=b", *judged, "annotator=who")
        assert done.status == 2 and "are not joined; remove it" in done.err

"""Several answers in one record, each with a rank or a rating, and the pairs made of them."""

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
    text,
    user,
)

NAN = float("nan")


def nectar(*ranks, prompt="\n\nHuman: P\n\nAssistant: "):
    answers = [{"answer": answer, "rank": rank} for answer, rank in zip("ABC", ranks, strict=False)]
    return {"prompt": prompt, "answers": answers}


def nemo(*ranks):
    answers = zip("ABC", ranks, strict=False)
    completions = [{"rank": rank, "completion": [assistant(answer)]} for answer, rank in answers]
    return {"context": [user("P")], "completions": completions}


def tree(*ranks):
    answers = zip("ABC", ranks, strict=False)
    replies = [{"text": text, "role": "assistant", "rank": rank} for text, rank in answers]
    return {"prompt": {"text": "P", "role": "prompter", "replies": replies}}


def ultrafeedback(*ratings):
    completions = [
        {"response": answer, "annotations": {"helpfulness": {"Rating": rating}}}
        for answer, rating in zip("ABC", ratings, strict=False)
    ]
    return {"instruction": "P", "completions": completions}


def webgpt(first, second, **more):
    scores = {"score_0": first, "score_1": second}
    return {"question": {"full_text": "P"}, "answer_0": "A", "answer_1": "B"} | scores | more


def stack_exchange(*scores):
    answers = [
        {"text": text, "pm_score": score} for text, score in zip("ABC", scores, strict=False)
    ]
    return {"question": "P", "answers": answers}


def distilabel(*ratings, **more):
    answers = [*"ABC"[: len(ratings)]]
    return {"instruction": "P", "generations": answers, "ratings": [*ratings]} | more


def content(text, role="model"):
    return {"role": role, "parts": [{"text": text}]}


def gemini(*scores, **more):
    completions = [
        {"score": score, "completion": content(answer)}
        for answer, score in zip("ABC", scores, strict=False)
    ]
    return {"contents": [content("P", "user")], "completions": completions} | more


RANKS = {"nectar": nectar, "nemo-rl": nemo, "oasst-tree": tree}
RATINGS = {
    "ultrafeedback": ultrafeedback,
    "webgpt": webgpt,
    "stack-exchange": stack_exchange,
    "distilabel": distilabel,
}
SCORES = RATINGS | {"vertex-gemini": gemini}
EVERY = RANKS | SCORES


@pytest.mark.parametrize("name", EVERY)
def test_the_lowest_rank_or_the_highest_score_wins_at_any_position(name):
    low, high = ("first", "second") if name in RANKS else ("second", "first")
    for smaller, larger in ((0, 1), (1.0, 2.0), ("1", "2"), (-0.5, 0.5)):
        assert outcome(name, EVERY[name](smaller, larger)) == low
        assert outcome(name, EVERY[name](larger, smaller)) == high


@pytest.mark.parametrize("name", EVERY)
def test_only_ratings_are_in_the_order_shown(name):
    (pair,) = results(name, EVERY[name](0, 1))
    assert pair.first_won is (False if name in RATINGS else None)


@pytest.mark.parametrize("name", EVERY)
def test_equal_ranks_or_scores_are_a_tie(name):
    check_fault(name, EVERY[name](1, 1.0), "tie: answers 1 and 2 equal remove")


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("reason", "value"),
    cases({"null_label": [None, "", "N/A", NAN], "unknown_label": ["good", True, [1]]}),
)
def test_an_answer_without_a_number_makes_no_pair(name, reason, value):
    assert outcome(name, EVERY[name](1, value)) == reason


WHERE = {
    "nectar": "answer rank",
    "nemo-rl": "completion rank",
    "oasst-tree": "reply 2 rank",
    "webgpt": "score_1",
    "stack-exchange": "answer pm_score",
    "distilabel": "rating",
    "vertex-gemini": "completion score",
}


@pytest.mark.parametrize(("name", "where"), WHERE.items())
def test_an_answer_without_a_number_is_named(name, where):
    check_fault(name, EVERY[name](1, None), f"null_label: {where} null number")
    check_fault(name, EVERY[name](1, "x"), f"unknown_label: {where} 'x' number")


@pytest.mark.parametrize("name", [name for name in EVERY if name != "webgpt"])
def test_more_than_two_answers_make_the_pairs_that_were_asked_for(name):
    record = EVERY[name](3, 1, 2) if name in RANKS else EVERY[name](1, 3, 2)

    def picked(mode):
        return [(text(won), text(lost)) for _, won, lost in pairs(name, record, pairs=mode)]

    assert picked("best-worst") == [("B", "A")]
    assert picked("adjacent") == [("B", "C"), ("C", "A")]
    assert picked("all") == [("B", "C"), ("B", "A"), ("C", "A")]


@pytest.mark.parametrize("name", [name for name in EVERY if name != "webgpt"])
def test_one_answer_alone_is_unpaired(name):
    assert fault(name, EVERY[name](1)).startswith("unpaired: ")


def test_ratings_closer_than_the_margin_are_a_tie_and_ranks_have_no_margin(convert_file):
    for make in RATINGS.values():
        done = convert_file([make(1, 2)], "--min-margin", "1.5")
        assert rejected(done) == [(1, "tie")]
        assert "answers 1 and 2 are " in done.rejects[0]["detail"]
        assert "closer than --min-margin" in done.rejects[0]["detail"]
        assert len(convert_file([make(1, 2)], "--min-margin", "1").rows) == 1
    for name in EVERY.keys() - RATINGS.keys():
        done = convert_file([EVERY[name](1, 2)], "--min-margin", "5")
        assert f"--min-margin has no effect: {name} has no ratings" in done.report["notes"]


def test_a_nectar_transcript_becomes_messages_without_its_last_marker():
    prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman:  c \n\nAssistant: "
    ((turns, *_),) = pairs("nectar", nectar(1, 2, prompt=prompt))
    assert turns == [user("a"), assistant("b"), user(" c ")]
    assert pairs("nectar", nectar(2, 1, prompt=" Is it? ")) == [(" Is it? ", "B", "A")]


def test_an_ultrafeedback_score_is_the_mean_of_the_ratings_that_were_given():
    record = ultrafeedback(0, 0, 0)
    ratings = (("5", "N/A", None, "1"), ("4", 4, "2", "3"), ("3", "3", "3.0", "3"))
    for completion, given in zip(record["completions"], ratings, strict=True):
        aspects = {f"aspect {at}": {"Rating": rating} for at, rating in enumerate(given)}
        completion["annotations"] = aspects | {"null": None, "empty": {}}
    *better, tie = pairs("ultrafeedback", record, pairs="all")
    assert better == [("P", "B", "A"), ("P", "B", "C")]
    assert tie.startswith("tie: ") and "answers 1 and 3" in tie


@pytest.mark.parametrize("question", ['{"id": 1, "full_text": "P"}', "P", "[sic]", "[1]"])
def test_a_webgpt_question_is_an_object_its_json_or_a_text(question):
    prompt = "P" if "P" in question else question
    assert pairs("webgpt", webgpt(1, 0, question=question)) == [(prompt, "A", "B")]


def test_the_html_of_stack_exchange_is_unaltered():
    record = stack_exchange(1, 2)
    record["question"] = record["answers"][1]["text"] = "<p>a &lt; b</p>\n"
    assert pairs("stack-exchange", record) == [("<p>a &lt; b</p>\n", "<p>a &lt; b</p>\n", "A")]


def test_the_messages_of_distilabel_are_the_prompt_and_its_system_prompt_heads_it():
    expected = ([system("s"), user("q")], "B", "A")
    record = distilabel(1, 2, messages=[user("q")], system_prompt="s")
    assert fault("distilabel", record).startswith("wrong_type: instruction and messages could both")
    assert pairs("distilabel", record | {"instruction": None}) == [expected]
    del record["instruction"]
    assert pairs("distilabel", record) == [expected]
    assert pairs("distilabel", distilabel(1, 2, messages=None)) == [("P", "B", "A")]


@pytest.mark.parametrize("name", ["vertex-gemini", "distilabel"])
def test_an_empty_system_column_is_no_second_system_text(name):
    own = {"vertex-gemini": "system_instruction", "distilabel": "system_prompt"}[name]
    for first, second in ((own, "system"), ("system", own)):
        ((prompt, *_),) = pairs(name, EVERY[name](1, 2) | {first: "s", second: ""})
        assert prompt == [system("s"), user("P")]


@pytest.mark.parametrize("record", [ultrafeedback(1, 2), distilabel(1, 2)])
def test_a_rated_record_with_a_finished_pair_is_of_the_format_of_that_pair(convert_file, record):
    done = convert_file([record | {"chosen": "A", "rejected": "B"}])
    assert (done.report["format"], kept(done)) == ("llamafactory-alpaca", [("P", "A", "B")])


@pytest.mark.parametrize("name", ["system_instruction", "systemInstruction"])
@pytest.mark.parametrize(
    "instruction",
    ["Be brief.", {"parts": [{"text": "Be "}, {"text": "brief."}]}, content("Be brief.", "system")],
)
def test_gemini_contents_become_messages_under_the_system_text(name, instruction):
    contents = [content("a", "user"), content("b"), content("c", "user")]
    record = gemini(0, 1, contents=contents) | {name: instruction}
    prompt = [system("Be brief."), user("a"), assistant("b"), user("c")]
    assert pairs("vertex-gemini", record) == [(prompt, [assistant("B")], [assistant("A")])]
    for nothing in (None, "", {"parts": []}):
        assert pairs("vertex-gemini", record | {name: nothing})[0][0] == prompt[1:]


def fine(*judgements, **more):
    predictions = {f"prediction_{number}": f"p{number}" for number in (1, 2, 3, 4)}
    return {"question": "q", **predictions, "preference": list(judgements)} | more


def test_every_judgement_of_a_vector_is_a_pair_of_its_own():
    found = results("fine-grained-rlhf", fine(1, 2, 1, "2", 1.0, 2))
    sides = [f"{pair.chosen} {pair.rejected}" for pair in found]
    assert sides == ["p1 p2", "p3 p1", "p1 p4", "p3 p2", "p2 p4", "p4 p3"]
    assert [pair.first_won for pair in found] == [True, False, True, False, True, False]


def test_a_judgement_that_makes_no_pair_leaves_the_others():
    *faults, last = pairs("fine-grained-rlhf", fine(0, None, 3, "x", True, 1))
    reasons = [found.partition(":")[0] for found in faults]
    assert reasons == ["tie", "null_label", "unknown_label", "unknown_label", "unknown_label"]
    assert faults[0].endswith("of predictions 1 and 2; remove the pair, or name the better one")
    assert last == ("q", "p3", "p4")


def test_the_whole_text_is_the_prompt_where_the_question_is_next_to_it():
    record = fine(1, 0, 0, 0, 0, 0, text="q with passages")
    assert pairs("fine-grained-rlhf", record)[0][0] == "q with passages"
    assert pairs("fine-grained-rlhf", record | {"text": None})[0][0] == "q"


def first(record, part, **change):
    """The change that replaces fields of the first object in a list of the record."""
    return {part: [record[part][0] | change, *record[part][1:]]}


def rated(**change):
    return first(ultrafeedback(1, 2), "completions", **change)


def turn(*parts):
    return {"contents": [{"role": "user", "parts": [*parts]}]}


FAULTS = {
    "nectar": [
        ({"answers": [7]}, "wrong_type: answer 7 object"),
        ({"answers": [None]}, "missing_field: answer object"),
        (first(nectar(1, 2), "answers", answer=None), "missing_field: answer text"),
    ],
    "nemo-rl": [
        (first(nemo(1, 2), "completions", completion=7), "wrong_type: completion 7 text"),
    ],
    "ultrafeedback": [
        (rated(annotations={"a": {"Rating": "N/A"}}), "null_label: completion has no Rating"),
        (rated(annotations=None), "null_label: completion has no Rating"),
        (rated(annotations=[1]), "wrong_type: completion annotations [1] object"),
        (rated(annotations={"a": "5"}), "wrong_type: completion a '5'"),
        (rated(annotations={"a": {"Rating": "five"}}), "unknown_label: a Rating 'five' number"),
        (rated(response=None), "missing_field: completion response text"),
    ],
    "webgpt": [
        ({"question": {"id": 1}}, "missing_field: full_text question text"),
    ],
    "distilabel": [
        ({"ratings": [1]}, "wrong_type: 2 1 so it is not known which belong together"),
        ({"ratings": 5}, "wrong_type: ratings is 5 list"),
        ({"generations": ["a", None]}, "missing_field: generation text"),
        ({"messages": [user("q")]}, "wrong_type: instruction messages both"),
    ],
    "fine-grained-rlhf": [
        ({"preference": [1, 1]}, "wrong_type: preference [1, 1] six 1-2, 1-3, 1-4, 2-3, 2-4, 3-4"),
    ],
    "vertex-gemini": [
        (turn({"text": "x"}, {"inlineData": {}}), "wrong_type: contents block 'inlineData'"),
        (turn({"text": "Hm", "thought": True}), "wrong_type: contents block 'thought' only text"),
        (turn({"": "x"}), "wrong_type: contents block '' only text"),
        (turn({"text": 7}), "wrong_type: contents block text 7"),
        (turn({}), "missing_field: contents block text"),
        (turn(7), "wrong_type: contents block 7"),
        ({"contents": [{"parts": []}]}, "missing_field: contents role text"),
        ({"contents": ["q"]}, "wrong_type: contents 'q' messages"),
    ],
}


@pytest.mark.parametrize(("name", "change", "expected"), cases(FAULTS))
def test_a_record_that_makes_no_pair_names_the_field_and_the_fault(name, change, expected):
    record = EVERY[name](1, 2) if name in EVERY else fine(1, 1, 1, 1, 1, 1)
    check_fault(name, record | change, expected)

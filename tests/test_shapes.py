"""Public shapes that convert without a word from the user: their fields, and which value won."""

import json

import pytest
from converting import assistant, user
from reading_formats import kept

PAIR = [("P", "good", "bad")]
WON = {"prompt": "P", "chosen": "good", "rejected": "bad"}
TURNS = {name: [user("P"), assistant(text)] for name, text in (("a", "good"), ("b", "bad"))}


def reasons(done):
    return [reject["reason"] for reject in done.rejects]


def check(convert_file, records, format, *options, pairs=PAIR):
    """Assert that the records are of this format and give these pairs and no reject."""
    done = convert_file(records if isinstance(records, list) else [records], *options)
    assert done.status == 0, done.err
    assert (done.report["format"], kept(done), done.rejects) == (format, pairs, [])
    return done


def share_gpt(*texts):
    names = ("human", "gpt") * 2
    return [{"from": name, "value": text} for name, text in zip(names, texts, strict=False)]


# Rated answers, one a record and in lists


@pytest.mark.parametrize("score", ["score", "rating", "reward"])
@pytest.mark.parametrize("answer", ["response", "completion", "answer", "output"])
def test_rated_answers_in_records_of_their_own_are_compared(convert_file, answer, score):
    texts = {"bad": 0.5, "good": "2.5"}
    records = [{"prompt": "P", answer: text, score: value} for text, value in texts.items()]
    check(convert_file, records, "rated-singles")


def test_equal_ratings_are_a_tie_and_an_answer_alone_is_unpaired(convert_file):
    records = [
        {"instruction": "P", "input": "I", "output": "x", "score": 1},
        {"instruction": "P", "input": "I", "output": "y", "score": 1},
        {"instruction": "Q", "input": "I", "output": "z", "score": 1},
    ]
    assert reasons(convert_file(records)) == ["tie", "unpaired"]


@pytest.mark.parametrize(
    ("format", "more"),
    [
        ("preference", {"chosen": "good", "rejected": "bad"}),
        ("labelled-pairs", {"response_a": "bad", "response_b": "good", "winner": "B"}),
        ("labelled-pairs", {"response1": "good", "response2": "bad", "winner": "A"}),
        ("better-worse", {"better": "good", "worse": "bad"}),
        ("better-worse", {"response": "good", "rejected_response": "bad"}),
        ("scored-lists", {"responses": ["bad", "good"], "scores": [1, 2]}),
        ("distilabel", {"instruction": "P", "generations": ["bad", "good"], "ratings": [1, 2]}),
    ],
)
def test_a_rated_answer_next_to_a_comparison_is_not_what_is_read(convert_file, format, more):
    prompt = {} if "instruction" in more else {"prompt": "P"}
    check(convert_file, prompt | {"response": "x", "score": 3} | more, format)


def test_a_count_of_responses_does_not_hide_what_a_record_judges(convert_file):
    records = [
        {"messages": [user("P"), assistant(text)], "label": text == "good", "num_responses": 2}
        for text in ("good", "bad")
    ]
    check(convert_file, records, "kto-messages")


@pytest.mark.parametrize("scores", ["scores", "rewards", "all_rm_scores"])
@pytest.mark.parametrize("answers", ["responses", "all_generated_responses", "answers"])
def test_a_list_of_answers_is_compared_by_a_list_of_scores(convert_file, answers, scores):
    record = {"query": "P", answers: ["so so", "good", "bad"], scores: [0.5, 0.75, -1]}
    check(convert_file, record, "scored-lists")
    every = [("P", "good", "so so"), ("P", "good", "bad"), ("P", "so so", "bad")]
    check(convert_file, record, "scored-lists", "--pairs", "all", pairs=every)


def test_a_list_of_answers_is_compared_by_a_list_of_ranks(convert_file):
    record = {"prompt": "P", "responses": ["so so", "good", "bad"], "ranks": [2, 1, 3]}
    check(convert_file, record, "ranked-lists")
    assert reasons(convert_file([record | {"ranks": [2, None, 3]}])) == ["null_label"]


def test_a_pair_that_was_picked_from_scored_answers_is_taken_as_it_is(convert_file):
    lists = {"all_generated_responses": ["bad", "good", "x"], "all_rm_scores": [1, 2, 3]}
    whole = {"prompt": "P", "chosen": TURNS["a"], "rejected": TURNS["b"]}
    check(convert_file, whole | lists, "preference")


@pytest.mark.parametrize("missing", [None, ""])
def test_an_answer_without_a_rating_is_left_out_as_long_as_two_have_one(convert_file, missing):
    lists = {"generations": ["x", "good", "y", "bad"], "ratings": [missing, 5, missing, 2]}
    check(convert_file, {"instruction": "P"} | lists, "distilabel")
    lists = {"generations": ["x", "good"], "ratings": [missing, 5]}
    assert reasons(convert_file([{"instruction": "P"} | lists])) == ["null_label"]


# Fields that name the winner


@pytest.mark.parametrize(
    "names",
    [
        ("response_chosen", "response_rejected"),
        ("response", "rejected_response"),
        ("text", "rejected_text"),
    ],
)
@pytest.mark.parametrize("prompt", ["query", "question"])
def test_earlier_turns_next_to_chosen_and_rejected_responses_are_kept(convert_file, names, prompt):
    record = {"system": "S", prompt: "P", names[0]: "good", names[1]: "bad"}
    record |= {"history": [["Hi", "Hello"]]}
    done = check(convert_file, record, "better-worse")
    roles = [(turn["role"], turn["content"]) for turn in done.rows[0]["prompt"]]
    expected = [("system", "S"), ("user", "Hi"), ("assistant", "Hello"), ("user", "P")]
    assert roles == expected


FAMILIES = ["completion_{}", "option_{}", "candidate_{}", "output_{}", "model_{}_response"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("label", ["choice", "vote", "better", "best", "winner"])
def test_other_families_of_two_answers_are_read_with_a_label(convert_file, family, label):
    one, two = family.format("A"), family.format("B")
    for value in ("B", two, "second", "Model B" if "model" in family else "(b)"):
        record = {"prompt": "P", one: "bad", two: "good", label: value}
        check(convert_file, record, "labelled-pairs")
    numbered = {family.format(1): "good", family.format(2): "bad", label: family.format(1)}
    check(convert_file, {"prompt": "P"} | numbered, "labelled-pairs")


def test_pointers_next_to_completions_are_not_taken_for_a_label_with_a_rejected_answer(
    convert_file,
):
    record = {"prompt": "P", "response_a": "bad", "response_b": "good"}
    done = convert_file([record | {"chosen": "B", "rejected": "A"}])
    assert "--map prompt=prompt a=response_a b=response_b label=chosen" in done.err


# Dialogues


@pytest.mark.parametrize(("label", "won"), [("A", "good"), ("B", "bad"), ("Tie", None)])
def test_comparisons_of_tinker_are_read_from_their_object(convert_file, label, won):
    shown = {"completion_A": [assistant("good")], "completion_B": [assistant("bad")]}
    comparison = {"prompt_conversation": [user("P")]} | shown
    done = convert_file([{"comparison": comparison, "label": label}])
    assert [chosen for _, chosen, _ in kept(done)] == ([won] if won else [])
    assert reasons(done) == ([] if won else ["tie"])


SIDES = {
    "implicit-messages": ("chosen", "rejected"),
    "llamafactory-v1": ("chosen_conversations", "rejected_conversations"),
}


@pytest.mark.parametrize("format", SIDES)
def test_whole_dialogues_on_both_sides_may_be_from_value_or_role_content(convert_file, format):
    good, bad = share_gpt("a", "b", "P", "good"), share_gpt("a", "b", "P", "bad")
    done = check(convert_file, dict(zip(SIDES[format], (good, bad), strict=True)), format)
    assert [turn["content"] for turn in done.rows[0]["prompt"]] == ["a", "b", "P"]
    check(convert_file, dict(zip(SIDES[format], TURNS.values(), strict=True)), format)


def test_a_trajectory_of_ultrainteract_is_the_prompt(convert_file):
    turns = share_gpt("a", "b", "P")
    record = {"id": "1", "task": "Coding", "dataset": "d", "parent_id": "0", "length": 3}
    record |= {"trajectory": turns, "chosen": "good", "rejected": "bad"}
    done = check(convert_file, record, "sharegpt")
    assert [turn["role"] for turn in done.rows[0]["prompt"]] == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [("chosen", "rejected"), ("answer_w", "answer_l"), ("answer_winning", "answer_losing")],
)
def test_a_context_of_messages_holds_the_turns_before_two_answers(convert_file, chosen, rejected):
    def said(who, text):
        return {"from": who, "content": text}

    history = [said("human", "a"), said("assistant", "b"), said("human", "P")]
    answers = {chosen: [said("assistant", "good")], rejected: [said("assistant", "bad")]}
    done = check(convert_file, {"context": history} | answers, "context-dialogue")
    assert [turn["role"] for turn in done.rows[0]["prompt"]] == ["user", "assistant", "user"]
    single = {chosen: {"role": "bot", "content": "good"}, rejected: assistant("bad")}
    check(convert_file, {"context": [user("P")]} | single, "context-dialogue")


def test_a_context_that_is_text_or_next_to_a_prompt_is_no_prompt(convert_file):
    done = convert_file([{"context": "P", "chosen": "good", "rejected": "bad"}])
    assert done.status == 2 and "--map prompt=context" in done.err
    for context in ("Q", [user("Q")]):
        assert convert_file([{"context": context} | WON]).report["format"] == "preference"


def test_text_lists_of_rewardbench_are_compared_each_with_each(convert_file):
    record = {"id": "1", "prompt": "P", "chosen": ["good"], "rejected": ["bad", "worse", "ugly"]}
    record |= {"num_correct": 1, "num_incorrect": 3, "total_completions": 4, "subset": "Math"}
    expected = [("P", "good", text) for text in ("bad", "worse", "ugly")]
    check(convert_file, record, "preference", pairs=expected)


# Votes on conversations


def battle(*answers, **more):
    """A vote on two conversations of two turns, of which these are the four answers."""
    record = {"model_a": "x", "model_b": "y", "winner": "model_b"} | more
    for name, (first, second) in (("a", answers[:2]), ("b", answers[2:])):
        record[f"conversation_{name}"] = [user("P"), assistant(first), user("Q"), assistant(second)]
    return record


@pytest.mark.parametrize("turn", [1, 1.0, "1"])
def test_a_vote_on_the_first_turn_compares_its_answers_alone(convert_file, turn):
    check(convert_file, battle("bad", "x", "good", "y", turn=turn), "arena")


def test_a_vote_on_a_later_turn_needs_one_history(convert_file):
    done = convert_file([battle("bad", "x", "good", "y", turn=2), battle("a", "x", "b", "y")])
    assert reasons(done) == ["history_mismatch", "history_mismatch"]
    check(
        convert_file, battle("s", "bad", "s", "good", turn=2), "arena", pairs=[("Q", *PAIR[0][1:])]
    )
    short = battle("s", "bad", "s", "good", turn=9)
    check(convert_file, short, "arena", pairs=[("Q", *PAIR[0][1:])])


def test_votes_of_the_search_arena_are_on_messages(convert_file):
    record = {"messages_a": TURNS["a"], "messages_b": TURNS["b"], "winner": "model_a", "turn": 1}
    check(convert_file, record, "arena")


# Tool calls


CALL = {"name": "aqi", "arguments": {"city": "Beijing"}}


def test_rejected_messages_of_ms_swift_replace_all_turns_after_the_question(convert_file):
    messages = [
        user("P"),
        {"role": "tool_call", "content": json.dumps(CALL)},
        {"role": "tool_response", "content": '{"aqi": "10"}'},
        assistant("good"),
    ]
    record = {"messages": messages, "rejected_response": [assistant("bad")]}
    done = check(convert_file, record, "ms-swift")
    chosen = done.rows[0]["chosen"]
    assert [turn["role"] for turn in chosen] == ["assistant", "tool", "assistant"]
    assert json.loads(chosen[0]["tool_calls"])[0]["function"] == CALL
    assert len(done.rows[0]["prompt"]) == len(done.rows[0]["rejected"]) == 1
    short = {"messages": [user("P"), assistant("good")], "rejected_response": [assistant("bad")]}
    check(convert_file, short, "ms-swift")
    other = short | {"rejected_response": [user("P"), assistant("bad")]}
    assert reasons(convert_file([other])) == ["history_mismatch"]


def test_function_calls_of_llamafactory_are_turns_of_the_prompt(convert_file):
    turns = [
        {"from": "human", "value": "P"},
        {"from": "function_call", "value": json.dumps(CALL)},
        {"from": "observation", "value": '{"aqi": "10"}'},
    ]
    answers = {name: {"from": "gpt", "value": WON[name]} for name in ("chosen", "rejected")}
    tools = json.dumps([{"name": "aqi", "description": "d", "parameters": {}}])
    record = {"conversations": turns, "system": "S", "tools": tools} | answers
    done = convert_file([record])
    prompt = done.rows[0]["prompt"]
    assert [turn["role"] for turn in prompt] == ["system", "user", "assistant", "tool"]
    assert json.loads(prompt[2]["tool_calls"])[0]["function"] == CALL
    assert (done.rows[0]["tools"], done.rejects) == (tools, [])


# Exports


def nested(**responses):
    fields = {"prompt": "P", "response_a": "bad", "response_b": "good", "response_c": "so so"}
    given = {
        question: [{"value": value, "user_id": f"u{n}"} for n, value in enumerate(values)]
        for question, values in responses.items()
    }
    return {"id": "1", "fields": fields, "metadata": {}, "suggestions": {}, "responses": given}


RANKING = ["response_b", "response_c", "response_a"]


def test_the_nested_export_of_argilla_is_read_as_the_flat_one(convert_file):
    record = nested(better=["response_b", "response_b", "tie"], note=["well", "", "so so"])
    expected = [("P", "good", "bad"), ("P", "good", "so so")]
    check(convert_file, record, "argilla-nested", pairs=expected)
    assert reasons(convert_file([nested(better=[])])) == ["null_label"]


def test_a_ranking_question_of_argilla_puts_the_best_answer_first(convert_file):
    record = nested(order=[RANKING])
    check(convert_file, record, "argilla-nested")
    every = [("P", "good", "so so"), ("P", "good", "bad"), ("P", "so so", "bad")]
    done = check(convert_file, record, "argilla-nested", "--pairs", "all", pairs=every)
    assert "has no effect" not in str(done.report["notes"])
    flat = record["fields"] | {"order.responses": [RANKING, RANKING, RANKING[::-1]]}
    check(convert_file, flat, "argilla-responses")


@pytest.mark.parametrize(
    "ranking", [RANKING[:2], [*RANKING, "response_a"], ["x", "y", "z"], [2, 3, 1]]
)
def test_a_ranking_that_does_not_name_each_answer_once_is_unknown(convert_file, ranking):
    assert reasons(convert_file([nested(order=[ranking])])) == ["unknown_label"]


def feedback(rating=1, rated="good", **more):
    messages = {
        "q": {"id": "q", "parentId": None, "childrenIds": ["h"], "role": "user", "content": "Hi"},
        "h": {
            "id": "h",
            "parentId": "q",
            "childrenIds": ["p"],
            "role": "assistant",
            "content": "Hello",
        },
        "p": {
            "id": "p",
            "parentId": "h",
            "childrenIds": ["good", "bad"],
            "role": "user",
            "content": "P",
        },
        "good": {
            "id": "good",
            "parentId": "p",
            "childrenIds": [],
            "role": "assistant",
            "content": "good",
        },
        "bad": {
            "id": "bad",
            "parentId": "p",
            "childrenIds": [],
            "role": "assistant",
            "content": "bad",
        },
    }
    for key, change in more.items():
        messages[key] |= change
    data = {"rating": rating, "model_id": "m", "sibling_model_ids": ["n"], "reason": "r"}
    chat = {"title": "t", "params": {"system": "S"}, "history": {"messages": messages}}
    meta = {"arena": True, "chat_id": "c", "message_id": rated}
    return {"type": "rating", "data": data, "meta": meta, "snapshot": {"chat": {"chat": chat}}}


@pytest.mark.parametrize(("rating", "rated"), [(1, "good"), ("1", "good"), (-1, "bad")])
def test_feedback_of_open_webui_compares_the_answers_to_one_message(convert_file, rating, rated):
    done = check(convert_file, feedback(rating, rated), "open-webui")
    roles = [turn["role"] for turn in done.rows[0]["prompt"]]
    assert roles == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (feedback(p={"childrenIds": ["good"]}), "unpaired"),
        (feedback(p={"files": [{"type": "image", "url": "u"}]}), "wrong_type"),
        (feedback(q={"parentId": "p"}), "wrong_type"),
        (feedback(rating=5), "unknown_label"),
        (feedback(rating=None), "null_label"),
        (feedback(rated="gone"), "missing_field"),
        (feedback(p={"childrenIds": ["good", "gone"]}), "missing_field"),
    ],
)
def test_feedback_of_open_webui_that_compares_nothing_is_rejected(convert_file, record, reason):
    assert reasons(convert_file([record])) == [reason]


def nova(*labels):
    candidates = [
        {"content": [{"text": text[:2]}, {"text": text[2:]}], "preferenceLabel": label}
        for text, label in zip(("good", "bad"), labels, strict=True)
    ]
    turns = [{"role": "user", "content": [{"text": "P"}]}]
    messages = [*turns, {"role": "assistant", "candidates": candidates}]
    return {"system": [{"text": "S"}], "messages": messages}


def test_candidates_of_amazon_nova_are_compared_by_their_label(convert_file):
    done = check(convert_file, nova("preferred", "non-preferred"), "amazon-nova")
    assert done.rows[0]["prompt"] == [{"role": "system", "content": "S"}, user("P")]
    reverse = convert_file([nova("non-preferred", "preferred")])
    assert kept(reverse) == [("P", "bad", "good")]
    faults = [nova("preferred", "preferred"), nova("preferred", None), nova("preferred", "best")]
    assert reasons(convert_file(faults)) == ["tie", "null_label", "unknown_label"]
    image = nova("preferred", "non-preferred")
    image["messages"][0]["content"].append({"image": {"format": "png"}})
    assert reasons(convert_file([image])) == ["wrong_type"]

"""Prompts, answers and histories are equal where a chat template would show the same."""

import pytest
from converting import assistant, pair, user


def reasons(done):
    return [(reject["line"], reject["reason"]) for reject in done.rejects]


METADATA = [{"model": "x"}, {"id": 7}, {"timestamp": "2024-01-01"}, {"tool_calls": None}]


def record(n, answer="C", other="R", **more):
    return {
        "prompt": [user(f"P{n}", **more)],
        "chosen": [assistant(answer, **more)],
        "rejected": [assistant(other)],
    }


@pytest.mark.parametrize("more", METADATA)
def test_answers_that_differ_in_metadata_alone_are_identical(convert_file, more):
    done = convert_file([record(1, "same", "same", **more), record(2)])
    assert reasons(done) == [(1, "identical_pair")]


@pytest.mark.parametrize("more", METADATA)
def test_pairs_that_differ_in_metadata_alone_are_duplicates_and_contradict(convert_file, more):
    done = convert_file(
        [record(1), record(1, **more), record(2), record(2, "R", "C", **more), record(3)]
    )
    assert reasons(done) == [(2, "duplicate"), (3, "contradictory"), (4, "contradictory")]


@pytest.mark.parametrize("more", METADATA)
def test_histories_that_differ_in_metadata_alone_are_equal(convert_file, more):
    done = convert_file(
        [{"chosen": [user("P", **more), assistant("C")], "rejected": [user("P"), assistant("R")]}]
    )
    assert (done.status, len(done.rows)) == (0, 1)


@pytest.mark.parametrize("other", ["P\n", " P", "P ", "P\u00a0"])
def test_histories_that_differ_in_white_space_alone_are_equal(convert_file, other):
    done = convert_file(
        [{"chosen": [user("P"), assistant("C")], "rejected": [user(other), assistant("R")]}]
    )
    assert (done.status, [m["content"] for m in done.rows[0]["prompt"]]) == (0, ["P"])


FORMS = [("x y", " x  y\n"), ("caf\u00e9", "cafe\u0301")]


@pytest.mark.parametrize("key", ["name", "reasoning_content"])
@pytest.mark.parametrize(("text", "other"), FORMS)
def test_all_parts_of_a_message_are_equal_but_for_white_space_and_form(
    convert_file, key, text, other
):
    one, two = {key: text}, {key: other}
    alike = record(1) | {"chosen": [assistant("A", **one)], "rejected": [assistant("A", **two)]}
    history = [user("P"), assistant("m", **one), user("Q")]
    again = [user("P"), assistant("m", **two), user("Q")]
    whole = {"prompt": "Q", "chosen": [*history, assistant("C")]}
    whole["rejected"] = [*again, assistant("R")]
    done = convert_file([alike, record(2, **one), record(2, **two), whole])
    assert reasons(done) == [(1, "identical_pair"), (3, "duplicate")]
    assert done.rows[0]["prompt"][0][key] == text


@pytest.mark.parametrize(("text", "other"), FORMS)
def test_a_prompt_and_a_system_text_are_equal_but_for_white_space_and_form(
    convert_file, text, other
):
    system = {"role": "system", "content": text}
    records = [
        {"prompt": text, "chosen": [user(other), assistant("C")], "system": text},
        {"prompt": [system, user("P")], "chosen": [assistant("C")], "system": other},
        {"prompt": "Q", "chosen": "C", "system": text, "system_prompt": other},
    ]
    for one in records:
        one["rejected"] = "R" if one["chosen"] == "C" else [*one["chosen"][:-1], assistant("R")]
    done = convert_file(records)
    assert done.rejects == []
    assert [[m["role"] for m in row["prompt"]] for row in done.rows] == [["system", "user"]] * 3


def test_prompts_that_differ_in_metadata_alone_are_in_one_split(convert_file):
    records = [record(n % 40, f"C{n}", f"R{n}", time=n) for n in range(80)]
    done = convert_file(records, "--test-size", "0.5")
    prompts = done.report["prompts"]
    assert (prompts["train"] + prompts["test"], prompts["shared"]) == (40, 0)


def test_what_a_template_shows_still_distinguishes(convert_file):
    call = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    records = [
        record(1),
        {**record(1), "chosen": [assistant("C", reasoning_content="think")]},
        {**record(1), "chosen": [assistant("C", tool_calls=call)]},
        {**record(1), "chosen": [assistant("C", name="n")]},
    ]
    assert len(convert_file(records).rows) == 4


def test_a_tool_turn_may_be_followed_by_the_user(convert_file):
    call = [{"type": "function", "function": {"name": "f", "arguments": {}}}]
    prompt = [
        user("P"),
        assistant(None, tool_calls=call),
        {"role": "tool", "content": "1"},
        user("Q"),
    ]
    done = convert_file([pair(1, prompt=prompt, chosen="C", rejected="R")])
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize(
    ("role", "known"),
    [
        ("Human", "user"),
        ("USER", "user"),
        ("GPT", "assistant"),
        ("Model", "assistant"),
        ("observation", "tool"),
        ("System", "system"),
    ],
)
def test_aliases_of_roles_are_known_in_any_capitals(convert_file, role, known):
    turns = {
        "user": [{"role": role, "content": "x"}],
        "assistant": [user("P"), {"role": role, "content": "x"}, user("Q")],
        "tool": [
            user("P"),
            assistant("y", tool_calls=[{"function": {"name": "f", "arguments": {}}}]),
            {"role": role, "content": "x"},
        ],
        "system": [{"role": role, "content": "x"}, user("P")],
    }[known]
    done = convert_file([pair(1, prompt=turns)])
    assert known in [m["role"] for m in done.rows[0]["prompt"]]

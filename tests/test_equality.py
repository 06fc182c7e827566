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

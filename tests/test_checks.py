"""Each check by pairs that pass and pairs that fail, and the order among the checks."""

import pytest
from converting import assistant, user

from data_tools.checks import CHECKS, Limits, PairColumns, check
from data_tools.first_pass import read_excluded
from data_tools.keys import Column
from data_tools.record import REASONS, ConvertError


def tool(text):
    return {"role": "tool", "content": text}


def system(text):
    return {"role": "system", "content": text}


def fault(prompt="P", chosen="C", rejected="R", source="f:1", **limits):
    """(reason, detail) of a pair, None where it passes; it is checked between two sound ones."""
    sound = ("Q", "yes", "no")
    if not isinstance(prompt, str):
        sound = ([user("Q")], [assistant("yes")], [assistant("no")])
    roles = ("user", "assistant", "assistant")
    sides = zip(sound, (prompt, chosen, rejected), sound, strict=True)
    columns = [Column([*three], role) for three, role in zip(sides, roles, strict=True)]
    failed = check(PairColumns(*columns, ("f:8", source, "f:9")), Limits(**limits))
    assert failed.keys() <= {1}
    return failed.get(1)


CALL = assistant(None, tool_calls=[{"id": "1"}])


def test_checks_are_in_the_order_of_reasons_and_have_their_names():
    names = [find.__name__ for find in CHECKS]
    assert names == [code for code in REASONS if code in names]


def test_turns_in_order_pass():
    for prompt, answer in [
        ([user("a")], [assistant("b")]),
        ([system("s"), user("a")], [assistant("b")]),
        ([{"role": "developer", "content": "s"}, user("a")], [assistant("b")]),
        ([user("a"), assistant("b"), user("c")], [assistant("d")]),
        ([user("a"), CALL, tool("1"), tool("2")], [assistant("b")]),
        ([user("a")], [CALL, tool("1"), assistant("b")]),
        ([user("a")], [CALL]),
    ]:
        assert fault(prompt, answer, [assistant("other")]) is None
        assert fault(prompt, [assistant("other")], answer) is None


KNOWN = "known are system, developer, user, assistant, tool"
OUT_OF_ORDER = [
    ([user("a"), user("b")], [assistant("c")], "turn 2 is from user after user"),
    ([assistant("a")], [assistant("b")], "turn 1 is from assistant after nothing"),
    ([user("a"), assistant("b")], [assistant("c")], "turn 3 is from assistant after assistant"),
    ([user("a")], [user("b")], "turn 2 is from user after user"),
    ([user("a")], [assistant("b"), user("c")], "the last turn is from user, not from the assista"),
    ([user("a")], [], "the last turn is from user, not from the assistant"),
    ([], [], "the last turn is from nobody, not from the assistant"),
    ([user("a"), assistant("b")], [user("c"), assistant("d")], "the answer begins with user"),
    ([user("a")], [tool("b")], "turn 2 is from tool after user"),
    ([tool("a")], [assistant("b")], "turn 1 is from tool after nothing"),
    ([user("a")], [assistant("b"), tool("c"), CALL], "turn 3 is from tool after assistant"),
    ([user("a"), system("s")], [assistant("b")], "turn 2 is from system after user"),
    ([user("a")], [{"role": "bot", "content": "b"}], f"turn 2 has the role 'bot'; {KNOWN}"),
    ([{"role": "", "content": "a"}], [assistant("b")], f"turn 1 has the role ''; {KNOWN}"),
]


def test_turns_out_of_order_are_bad_roles_and_the_detail_names_the_turn():
    for prompt, answer, detail in OUT_OF_ORDER:
        reason, found = fault(prompt, answer, [assistant("R")])
        assert reason == "bad_roles" and found.startswith(detail)
        assert found.endswith(" (chosen); fix the turns or remove the record")
    assert fault([user("a")], [assistant("b")], [assistant("c"), assistant("d")]) == (
        "bad_roles",
        "turn 3 is from assistant after assistant (rejected); fix the turns or remove the record",
    )


EMPTY_PROMPT = ("empty_prompt", "the prompt is empty; write the question or remove the record")


@pytest.mark.parametrize("prompt", ["", " \n\u3000", [user("  ")], [system("s"), user("")]])
def test_a_prompt_of_white_space_or_of_a_system_turn_alone_is_empty(prompt):
    answers = ("C", "R") if isinstance(prompt, str) else ([assistant("C")], [assistant("R")])
    assert fault(prompt, *answers) == EMPTY_PROMPT


@pytest.mark.parametrize("empty", ["", "\n\t ", [assistant(" ")]])
def test_an_answer_of_white_space_is_empty(empty):
    prompt, full = ("P", "full") if isinstance(empty, str) else ([user("P")], [assistant("full")])
    fix = "answer is empty; write it or remove the record"
    assert fault(prompt, empty, full) == ("empty_response", f"the chosen {fix}")
    assert fault(prompt, full, empty) == ("empty_response", f"the rejected {fix}")


def test_answers_that_differ_only_in_white_space_and_unicode_form_are_identical():
    for chosen, rejected in [("a b", " a  b\n"), ("caf\u00e9", "cafe\u0301")]:
        messages = [user("P")], [assistant(chosen, name=None)], [assistant(rejected)]
        for sides in (("P", chosen, rejected), messages):
            assert fault(*sides) == (
                "identical_pair",
                "chosen equals rejected except for white space; remove the record or fix the label",
            )


def test_answers_that_differ_at_all_are_a_pair():
    assert fault("P", "ab", "a b") is None
    assert fault("P", "Yes", "yes") is None
    other = assistant(None, tool_calls=[{"id": "2"}])
    assert fault([user("P")], [CALL], [other]) is None


def test_overlong_counts_the_prompt_and_the_longer_answer_up_to_the_limit():
    assert fault("PP", "CCC", "R", max_chars=5) is None
    assert fault("PP", "R", "CCC", max_chars=5) is None
    sides = [user("PPPP")], [assistant("CCCC")], [assistant("R")]
    message = "prompt and longer answer have 8 characters; --max-chars is 7; "
    message += "shorten or remove the record, or raise the limit"
    assert fault("PPPP", "R", "CCCC", max_chars=7) == ("overlong", message)
    assert fault(*sides, max_chars=7) == ("overlong", message)
    assert fault("P" * 10**6) is None


def test_excluded_pairs_are_known_by_their_source():
    assert fault(source="f:1", excluded=frozenset({"f:2"})) is None
    assert fault(source="f:2", excluded=frozenset({"f:2"})) == (
        "excluded",
        "f:2 is listed in --exclude-rows",
    )


def test_of_several_faults_the_first_in_the_order_of_reasons_counts():
    assert fault("", "", "", excluded=frozenset({"f:1"}))[0] == "empty_prompt"
    assert fault("P", "", "")[0] == "empty_response"
    assert fault("P", "C" * 9, f"{'C' * 9} ", max_chars=8)[0] == "identical_pair"
    assert fault("P", "C" * 9, max_chars=8, excluded=frozenset({"f:1"}))[0] == "overlong"
    assert fault([assistant("")], [user("")], [user("")])[0] == "bad_roles"


def test_the_sources_to_exclude_are_read_from_json_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"source": "f:1", "note": 1}\r\n\r\n{"source": "f:9"}\r\n')
    assert read_excluded(str(path)) == {"f:1", "f:9"}
    assert read_excluded(None) == frozenset()


def test_a_line_to_exclude_without_a_source_is_refused_with_its_number(tmp_path):
    path = tmp_path / "rows.jsonl"
    for line in ('{"file": "x"}', '{"source": 7}', "[1]", '"f:1"', "{", "\xff", "[" * 100_000):
        path.write_text(f'{{"source": "f:1"}}\n{line}\n', encoding="latin-1")
        with pytest.raises(ConvertError) as caught:
            read_excluded(str(path))
        assert str(caught.value) == (
            f"--exclude-rows {path}:2: each line must be an object with a text 'source'"
        )

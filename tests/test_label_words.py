"""Labels of more than two values: words around a letter, scales, models and texts."""

import pytest


def records(*labels, **more):
    return [
        {"prompt": f"P{n}", "response_a": f"a{n}", "response_b": f"b{n}", "winner": label, **more}
        for n, label in enumerate(labels)
    ]


def won(done):
    """`a`, `b` or the reason for each record."""
    found = {row["source"]: row["chosen"][0] for row in done.rows}
    found |= {f"{r['file']}:{r['line']}": r["reason"] for r in done.rejects}
    return [found[key] for key in sorted(found, key=lambda key: int(key.split(":")[1]))]


WORDS = {
    "a": "A|a.|A.|(A)|[A]|[[A]]|A>B|A >> B|[[A>>B]]|A>>>B|A wins|A win|A is better|A is much better"
    "|A is slightly better|A is significantly better than B|a-is-slightly-better|A is better than B"
    "|Response A is better|response_a wins|A much better|A slightly better|model_a wins|B<A",
    "b": "B|(B)|[[B]]|B.|B>A|A<B|A<<B|B wins|B is much better|b-is-better"
    "|Response B is slightly better|response_b is better than response_a",
    "tie": "tie|A=B|[[C]]|A = B|[[A=B]]|about the same|Tie.|equally good|A and B are equal",
}


@pytest.mark.parametrize(
    ("label", "expected"), [(w, e) for e, words in WORDS.items() for w in words.split("|")]
)
def test_a_letter_with_words_around_it_is_recognised(convert_file, label, expected):
    assert won(convert_file(records("A", label, "B")))[1] == expected


@pytest.mark.parametrize(
    "label", ["A is worse", "not A", "A or B", "A?", "neither A", "A is bad", "E"]
)
def test_words_that_do_not_say_who_won_are_unknown(convert_file, label):
    assert won(convert_file(records("A", label, "B")))[1] in ("unknown_label", "tie")
    assert "a1" not in [row["chosen"] for row in convert_file(records("A", label, "B")).rows]


def test_c_is_the_third_answer_where_there_is_one(convert_file):
    done = convert_file(records("[[C]]", response_c="c0"))
    assert {row["chosen"] for row in done.rows} == {"c0"}


@pytest.mark.parametrize(
    "answers",
    [
        {"responses": ["a0", "b0", "c0"]},
        {"response_a": "a0", "response_b": "b0", "response_c": "c0"},
    ],
)
@pytest.mark.parametrize("start", [0, 1])
def test_a_number_names_the_third_answer_as_the_advice_says(convert_file, answers, start):
    rows = [{"prompt": f"P{n}", "best": n + start} | answers for n in range(3)]
    mapped = ["responses=responses"] if "responses" in answers else []
    mapped = ["--map", "prompt=prompt", "label=best", *mapped] if mapped else []
    refused = convert_file(rows, *mapped)
    advice = f"first={start},second={start + 1},third={start + 2}"
    assert refused.status == 2 and refused.err.endswith(f"--label {advice}\n")
    done = convert_file(rows, *mapped, "--label", advice)
    assert [row["chosen"] for row in done.rows] == ["a0", "a0", "b0", "b0", "c0", "c0"]
    done = convert_file(rows, *mapped, "--label", f"first={start},second={start + 1}")
    assert "third= and fourth= are further answers" in done.rejects[0]["detail"]


def test_a_third_answer_that_a_record_lacks_rejects_it(convert_file):
    done = convert_file(records(0, 2), "--label", "first=0,second=1,third=2")
    assert won(done) == ["a", "empty_response"]


def test_a_scale_is_defined_by_lists_and_ranges(convert_file):
    labels = [1, 2, 3, 4, 5, 6, 7, "8"]
    done = convert_file(records(*labels), "--label", "first=1..3,tie=4,second=5..7")
    assert won(done) == ["a", "a", "a", "tie", "b", "b", "b", "unknown_label"]
    done = convert_file(records(*labels), "--label", "first=1|2|3,second=5|6|7,tie=4|8")
    assert won(done) == ["a", "a", "a", "tie", "b", "b", "b", "tie"]
    signed = convert_file(
        records(-50, -1, 0, 0.5, 50), "--label", "first=-50..-1,tie=0,second=0.5..50"
    )
    assert won(signed) == ["a", "a", "tie", "b", "b"]


@pytest.mark.parametrize(
    "text",
    ["first=1..3,second=3..5", "first=3..1,second=4", "first=1|1,second=2", "first=a..c,second=d"],
)
def test_a_scale_that_overlaps_or_is_no_range_is_refused(convert_file, text):
    done = convert_file(records(1, 2), "--label", text)
    assert done.status == 2
    assert "--label" in done.err


def test_the_name_of_an_answers_model_names_the_answer(convert_file):
    done = convert_file(records("gpt", "llama", "other", "gpt", model_a="gpt", model_b="llama"))
    assert won(done) == ["a", "b", "unknown_label", "a"]
    same = convert_file(records("gpt", "A", model_a="gpt", model_b="gpt"))
    assert won(same) == ["unknown_label", "a"]


def test_the_winning_text_itself_names_the_answer(convert_file):
    done = convert_file(records("a0", "b1", "A", "x"))
    assert won(done) == ["a", "b", "a", "unknown_label"]


def test_bare_numbers_are_still_refused_and_the_advice_works(convert_file):
    done = convert_file(records(1, 2))
    assert done.status == 2
    assert "--label first=1,second=2" in done.err
    assert won(convert_file(records(1, 2, 2), "--label", "first=1,second=2")) == ["a", "b", "b"]


def test_a_seven_point_scale_is_advised_with_ranges(convert_file):
    labels = [1, 2, 3, 4, 5, 6, 7]
    done = convert_file(records(*labels))
    advice = "--label first=1..3,tie=4,second=5..7"
    assert advice in done.err
    assert won(convert_file(records(*labels), *advice.split())) == ["a"] * 3 + ["tie"] + ["b"] * 3


# Columns that say in which order the answers were shown.


@pytest.mark.parametrize(
    "column", ["swapped", "is_swapped", "flipped", "is_flipped", "shuffled", "Swapped", "order"]
)
def test_a_column_of_orders_that_varies_is_refused_until_it_is_mapped(convert_file, column):
    given = records("A", "A", "B", "B")
    for n, record in enumerate(given):
        record[column] = bool(n % 2)
    done = convert_file(given)
    assert done.status == 2
    assert f"--map swapped={column}" in done.err.replace("swapped=swapped", f"swapped={column}")
    assert won(convert_file(given, "--map", f"swapped={column}")) == ["a", "b", "b", "a"]
    assert won(convert_file(given, "--map", "swapped=")) == ["a", "a", "b", "b"]


def test_a_column_of_orders_that_does_not_vary_changes_nothing(convert_file):
    done = convert_file(records("A", "B", swapped=False))
    assert won(done) == ["a", "b"]


def test_an_order_that_is_neither_true_nor_false_is_rejected(convert_file):
    given = records("A", "A", "B")
    for record, value in zip(given, ("true", "perhaps", "0"), strict=True):
        record["swapped"] = value
    assert won(convert_file(given, "--map", "swapped=swapped")) == ["b", "unknown_label", "b"]


def test_a_column_of_orders_is_asked_about_where_several_annotators_have_columns(convert_file):
    given = [
        {"prompt": f"P{n}", "x": f"a{n}", "y": f"b{n}", "ann": "A", "bob": "A", "flipped": n % 2}
        for n in range(4)
    ]
    mapped = ("--map", "prompt=prompt", "a=x", "b=y", "label=ann,bob")
    assert "--map swapped=flipped" in convert_file(given, *mapped).err
    assert won(convert_file(given, *mapped, "swapped=flipped")) == ["a", "b", "a", "b"]


def test_a_column_of_orders_turns_the_answers_of_an_export(convert_file):
    given = [
        {"prompt": f"P{n}", "response_a": f"a{n}", "response_b": f"b{n}", "swapped": bool(n % 2)}
        | {"better.responses": ["response_a"], "better.responses.status": ["submitted"]}
        for n in range(4)
    ]
    assert "--map swapped=swapped" in convert_file(given).err
    assert won(convert_file(given, "--map", "swapped=swapped")) == ["a", "b", "a", "b"]

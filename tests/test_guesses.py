"""What convert does not guess: the columns of a mapping, the answer of a label, the order shown."""

import pytest
from converting import assistant, pair, user


def kept(done):
    def text(side):
        return side if isinstance(side, str) else " | ".join(turn["content"] for turn in side)

    return [tuple(text(row[s]) for s in ("prompt", "chosen", "rejected")) for row in done.rows]


def reasons(done):
    return [(reject["line"], reject["reason"]) for reject in done.rejects]


def mapped(convert_file, record, *words, **more):
    records = record if isinstance(record, list) else [record]
    return convert_file(records, "--map", *words, **more)


TURNS = [user("P"), assistant("g")]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (
            {"messages": TURNS, "bad": "b"},
            ["prompt=Q: {messages[0].content}", "chosen=messages[1].content", "rejected=bad"],
        ),
        (
            {"conversations": TURNS, "bad": "b"},
            ["prompt=conversations[0].content", "chosen=conversations[1].content", "rejected=bad"],
        ),
    ],
)
def test_a_column_that_a_path_reads_is_no_history(convert_file, record, words):
    ((prompt, chosen, rejected),) = kept(mapped(convert_file, record, *words))
    assert (prompt.endswith("P"), "g" in prompt, chosen, rejected) == (True, False, "g", "b")


@pytest.mark.parametrize(
    ("good", "words"),
    [
        (
            {"q": "p", "x": "g", "y": "b", "meta": {"winner": "A"}, "label": "B"},
            ["prompt=q", "a=x", "b=y", "label=meta.winner"],
        ),
        (
            {"data": {"q": "p"}, "chosen": "g", "rejected": "b", "prompt": "wrong"},
            ["prompt=data.q", "chosen=chosen", "rejected=rejected"],
        ),
        (
            {"prompt": "p", "ctx": "c", "chosen": "g", "rejected": "b"},
            ["prompt={ctx} {prompt}", "chosen=chosen", "rejected=rejected"],
        ),
    ],
)
def test_a_record_without_the_mapped_column_is_not_read_from_another(convert_file, good, words):
    root = words[-1].partition("=")[2].partition(".")[0] if "meta" in good else None
    missing = root or ("data" if "data" in good else "ctx")
    bad = {name: value for name, value in good.items() if name != missing}
    done = mapped(convert_file, [good, bad], *words)
    assert len(done.rows) == 1
    assert [line for line, _ in reasons(done)] == [2]


@pytest.mark.parametrize(
    ("records", "words", "expected"),
    [
        (
            [{"prompt": "p", "persona": "You are", "chosen": "g", "rejected": "b"}],
            ["prompt={persona}", "chosen=prompt"],
            [("You are", "p", "b")],
        ),
        (
            [{"prompt": "p", "outputs": ["new"], "chosen": "old", "rejected": "b"}],
            ["chosen=outputs[0]", "rejected=chosen"],
            [("p", "new", "old")],
        ),
    ],
)
def test_a_made_field_does_not_hide_a_column_of_its_name(convert_file, records, words, expected):
    assert kept(mapped(convert_file, records, *words)) == expected


@pytest.mark.parametrize("words", [["system=m.sytem"], ["history=m.hist"], ["tools=m.fns"]])
def test_a_path_that_finds_nothing_in_any_record_is_refused(convert_file, words):
    record = {"q": "p", "m": {"system": "You are X"}, "x": "g", "y": "b"}
    done = mapped(convert_file, record, "prompt=q", "chosen=x", "rejected=y", *words)
    assert done.status == 2
    assert words[0] in done.err


@pytest.mark.parametrize("words", ["score=", "response=x score=", "responses=l scores=", "label="])
def test_an_answer_field_without_a_column_is_refused(convert_file, words):
    done = mapped(convert_file, {"q": "p", "x": "g", "l": ["a", "b"]}, "prompt=q", *words.split())
    assert done.status == 2


@pytest.mark.parametrize("column", [".", "..", "[", "]", "{.}", "{[}", "{q", "q}"])
def test_a_column_that_is_no_path_is_refused(convert_file, column):
    record = {"q": "p", "x": "g", "y": "b"}
    done = mapped(convert_file, record, f"prompt={column}", "chosen=x", "rejected=y")
    assert done.status == 2
    assert "--map prompt=" in done.err


@pytest.mark.parametrize("name", ["data.question", "resp[a]", "q {x}", "q, a"])
def test_a_column_whose_name_looks_like_a_path_is_read(convert_file, name):
    done = mapped(
        convert_file, {name: "p", "x": "g", "y": "b"}, f"prompt={name}", "chosen=x", "rejected=y"
    )
    assert kept(done) == [("p", "g", "b")]
    assert done.report["columns"]["unread"] == {}


def test_a_label_column_with_a_comma_in_its_name_is_one_column(convert_file):
    record = {"q": "p", "x": "g", "y": "b", "Which is better, A or B?": "A"}
    done = mapped(convert_file, record, "prompt=q", "a=x", "b=y", "label=Which is better, A or B?")
    assert kept(done) == [("p", "g", "b")]


def test_a_ranking_in_the_cell_of_a_table_is_a_list(convert_file):
    text = 'q,x,y,order\nP,b,g,"[2, 1]"\n'
    done = convert_file(text, "--map", "prompt=q", "a=x", "b=y", "ranking=order", name="a.csv")
    assert kept(done) == [("P", "g", "b")]


# Labels.


def test_a_path_keeps_the_name_of_its_column_for_labels(convert_file):
    record = {
        "q": "p",
        "response_a": {"text": "x"},
        "response_b": {"text": "y"},
        "best": "response_a",
    }
    words = ["prompt=q", "a=response_b.text", "b=response_a.text", "label=best"]
    assert kept(mapped(convert_file, record, *words)) == [("p", "x", "y")]
    record = {"q": "p", "out": {"gpt": "x", "llama": "y"}, "best": "llama"}
    words = ["prompt=q", "a=out.gpt", "b=out.llama", "label=best"]
    assert kept(mapped(convert_file, record, *words)) == [("p", "y", "x")]


def test_the_model_of_a_column_is_not_found_by_its_last_letter(convert_file):
    record = {"q": "p", "human": "h", "alpaca": "a", "model_a": "gpt", "best": "gpt"}
    done = mapped(convert_file, record, "prompt=q", "a=human", "b=alpaca", "label=best")
    assert reasons(done) == [(1, "unknown_label")]


def test_columns_that_count_from_zero_are_not_named_by_numbers_from_one(convert_file):
    record = {"q": "p", "completion_0": "x", "completion_1": "y"}
    words = ["prompt=q", "a=completion_0", "b=completion_1", "label=best"]
    done = mapped(
        convert_file, [record | {"best": w} for w in ("completion_1", "response_1")], *words
    )
    assert kept(done) == [("p", "y", "x")]
    assert reasons(done) == [(2, "unknown_label")]


def test_a_comparison_of_two_says_nothing_of_a_third(convert_file):
    record = {
        "prompt": "p",
        "response_a": "x",
        "response_b": "y",
        "response_c": "z",
        "winner": "A>B",
    }
    assert kept(convert_file([record])) == [("p", "x", "y")]


def test_a_text_and_a_word_that_disagree_are_unknown(convert_file):
    records = [{"prompt": "p", "response_a": "B", "response_b": "A", "winner": "A"}, LABELLED]
    assert reasons(convert_file(records)) == [(1, "unknown_label")]


LABELLED = {"prompt": "q", "response_a": "x", "response_b": "y", "winner": "A"}


def test_texts_of_a_ranking_count_before_positions(convert_file):
    done = mapped(
        convert_file,
        {"q": "p", "r": ["2", "1"], "o": ["1", "2"]},
        "prompt=q",
        "responses=r",
        "ranking=o",
    )
    assert kept(done) == [("p", "1", "2")]


def test_the_letters_of_a_ranking_name_the_columns(convert_file):
    record = {"q": "p", "w": "1", "x": "2", "y": "", "z": "4", "o": "A>B>D"}
    words = ["prompt=q", "a=w", "b=x", "c=y", "d=z", "ranking=o"]
    done = mapped(
        convert_file,
        record,
        *words,
    )
    assert kept(done) == [("p", "1", "4")]


def test_a_single_bare_label_has_advice_that_can_be_followed(convert_file):
    done = convert_file([LABELLED | {"winner": 5}])
    assert "5..4" not in done.err


# Orders.


@pytest.mark.parametrize(
    "name", ["was_swapped", "isSwapped", "answers_swapped", "order_swapped", "display_order"]
)
def test_more_names_of_orders_are_known(convert_file, name):
    records = [LABELLED | {"prompt": f"p{n}", name: bool(n % 2)} for n in range(4)]
    assert f"swapped={name}" in convert_file(records).err


def test_an_order_that_is_true_or_blank_is_refused_and_can_be_mapped(convert_file):
    records = [LABELLED | {"prompt": f"p{n}", "swapped": True if n % 2 else None} for n in range(4)]
    assert convert_file(records).status == 2
    done = convert_file(records, "--map", "swapped=swapped")
    assert [row["chosen"] for row in done.rows] == ["x", "y", "x", "y"]


def test_an_order_that_varies_after_the_first_records_is_not_ignored(convert_file):
    records = [
        LABELLED | {"prompt": f"p{n}", "order": "AB" if n < 1200 else "BA"} for n in range(2400)
    ]
    done = convert_file(records)
    assert done.status == 2 or {r["line"] for r in done.rejects} == {*range(1201, 2401)}


@pytest.mark.parametrize("label", ["ann,bob,cem"])
def test_an_order_turns_the_labels_of_several_annotators(convert_file, label):
    record = {"q": "p", "x": "1", "y": "2", "ann": "A", "bob": "A", "cem": "B", "swapped": True}
    records = [record, record | {"q": "r", "swapped": False}]
    words = ["prompt=q", "a=x", "b=y", f"label={label}"]
    assert mapped(convert_file, records, *words).status == 2
    done = mapped(convert_file, records, *words, "swapped=swapped")
    assert kept(done) == [("p", "2", "1"), ("r", "1", "2")]


def test_an_order_may_be_at_a_path_and_does_not_turn_names_of_models(convert_file):
    record = LABELLED | {"model_a": "gpt", "model_b": "llama", "winner": "gpt", "m": {"flip": True}}
    done = convert_file(
        [record, record | {"prompt": "r", "m": {"flip": False}}], "--map", "swapped=m.flip"
    )
    assert [row["chosen"] for row in done.rows] == ["x", "x"]


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("y", "n"),
        ("T", "F"),
        ("B first", "A first"),
        ("b,a", "a,b"),
        ("swapped", "original"),
        ("reversed", "normal"),
    ],
)
def test_an_order_in_words_is_read(convert_file, yes, no):
    records = [LABELLED | {"prompt": f"p{n}", "swapped": yes if n % 2 else no} for n in range(4)]
    assert "--map swapped=swapped" in convert_file(records).err
    done = convert_file(records, "--map", "swapped=swapped")
    assert [row["chosen"] for row in done.rows] == ["x", "y", "x", "y"]


# Pointers and context.


def test_pointers_into_a_list_of_answers_are_refused(convert_file):
    records = [
        {
            "prompt": f"q{n}",
            "responses": ["some text", "another text"],
            "chosen": "0",
            "rejected": "1",
        }
        for n in range(3)
    ]
    done = convert_file(records)
    assert done.status == 2
    assert "--map prompt=prompt responses=responses label=chosen" in done.err
    option = ["--map", "prompt=prompt", "responses=responses", "label=chosen"]
    followed = convert_file(records, *option, "--label", "first=0,second=1")
    assert kept(followed)[0] == ("q0", "some text", "another text")


def test_the_advice_on_pointers_quotes_names_with_blanks(convert_file):
    records = [
        {
            "prompt": f"p{n}",
            "resp 1": f"x{n}",
            "resp 2": f"y{n}",
            "chosen": "resp 1",
            "rejected": "resp 2",
        }
        for n in range(3)
    ]
    assert "'a=resp 1' 'b=resp 2'" in convert_file(records).err


def test_a_template_over_messages_rejects_and_the_system_turn_is_advised(convert_file):
    record = {
        "prompt": [user("q")],
        "context": "c",
        "chosen": [assistant("g")],
        "rejected": [assistant("b")],
    }
    done = convert_file([record])
    shown = done.report["warning_examples"]["unread_context"]
    assert shown == "context: add it with --map system=context"
    done = convert_file([record, pair(2, context="c")], "--map", "prompt={context} {prompt}")
    assert reasons(done) == [(1, "wrong_type")]


# Splits and annotators.


def test_judgements_of_one_pair_in_both_splits_are_in_test(convert_file):
    records = [
        LABELLED | {"annotator": who, "split": split}
        for who, split in (("a", "train"), ("b", "test"))
    ]
    for order in (records, records[::-1]):
        done = convert_file(
            [*order, LABELLED | {"prompt": "z", "split": "train", "annotator": "a"}],
            "--keep-splits",
        )
        assert done.report["splits"] == {"train": 1, "test": 1}


def test_a_column_named_split_counts_before_a_subset(convert_file):
    records = [
        pair(n, subset="chat" if n else "eval_math", split="test" if n else "train")
        for n in range(3)
    ]
    assert convert_file(records, "--keep-splits").report["splits"] == {"train": 1, "test": 2}


# Columns next to whole dialogues, and under other spellings.

WHOLE = {side: [user("q"), assistant(side)] for side in ("chosen", "rejected")}


@pytest.mark.parametrize("stray", [{"input": "stray-7"}, {"prompt": None}, {"question": "id7"}])
def test_a_stray_column_next_to_whole_dialogues_does_not_decide(convert_file, stray):
    assert kept(convert_file([WHOLE | stray])) == [("q", "chosen", "rejected")]
    texts = {side: f"\n\nHuman: q\n\nAssistant: {side}" for side in WHOLE}
    assert kept(convert_file([texts | stray])) == [("q", "chosen", "rejected")]


@pytest.mark.parametrize("columns", [{"systemPrompt": "S"}, {"chat-history": [["x", "y"]]}])
def test_a_system_text_or_history_that_is_not_read_is_a_warning(convert_file, columns):
    done = convert_file([pair(1, **columns)])
    assert done.report["warnings"] == {"unread_context": 1}


def test_a_history_next_to_transcripts_is_a_warning(convert_file):
    texts = {side: f"\n\nHuman: q\n\nAssistant: {side}" for side in WHOLE}
    done = convert_file([texts | {"history": [["x", "y"]]}])
    assert done.report["warnings"] == {"unread_context": 1}


@pytest.mark.parametrize("columns", [{"tags": ["x", "y"]}, {"category": "math", "id": "q"}])
def test_letters_are_answers_where_no_column_holds_others(convert_file, columns):
    records = [pair(n, chosen="A", rejected="B") | columns for n in range(3)]
    assert len(kept(convert_file(records))) == 3

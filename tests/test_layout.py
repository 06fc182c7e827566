"""Which columns a dataset gets, and how pairs fill them."""

import json
import random

import pyarrow as pa
import yaml
from datasets import Features

from data_tools.layout import SIDES, LayoutFinder, dump
from data_tools.record import Pair


def layout(*pairs, keep=()):
    finder = LayoutFinder()
    for pair in pairs:
        finder.add(pair)
    return finder.layout(keep)


def column(found, pair, name):
    """The values of one side of one pair, as the dataset holds them."""
    (value,) = found.array([getattr(pair, name)], dict(SIDES)[name]).to_pylist()
    return value


def user(text, **more):
    return {"role": "user", "content": text, **more}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


TEXT = Pair("P", "C", "R")
TURNS = Pair([user("P")], [assistant("C")], [assistant("R")])


def test_text_alone_is_columns_of_text():
    found = layout(TEXT, keep=("note",))
    assert found.schema().names == ["prompt", "chosen", "rejected", "source", "note"]
    assert set(found.schema().types) == {pa.string()}
    values = [column(found, TEXT, name) for name, _ in SIDES]
    assert values == ["P", "C", "R"]
    table = found.stored([pa.array([value]) for value in (*values, "f:1", "x")])
    assert table.schema.equals(found.schema(), check_metadata=True)
    assert table.to_pylist() == [
        {"prompt": "P", "chosen": "C", "rejected": "R", "source": "f:1", "note": "x"}
    ]


def test_one_pair_of_messages_makes_messages_of_all():
    for found in (layout(TEXT, TURNS), layout(TURNS, TEXT)):
        assert column(found, TEXT, "prompt") == [user("P")]
        assert column(found, TEXT, "rejected") == [assistant("R")]


def test_message_keys_are_those_of_any_record_in_one_order():
    more = Pair([user("P", name="n")], [assistant("C", tool_calls=[1])], [assistant("R", b=2)])
    found = layout(TURNS, more)
    assert found.message_keys == {
        "role": False,
        "content": False,
        "b": True,
        "name": False,
        "tool_calls": True,
    }
    assert column(found, TURNS, "prompt") == [
        user("P") | {"b": None, "name": None, "tool_calls": None}
    ]
    assert column(found, more, "rejected") == [
        assistant("R") | {"b": "2", "name": None, "tool_calls": None}
    ]


def test_a_key_that_is_text_here_and_not_there_is_json_everywhere():
    found = layout(Pair([user("P", id="7")], [assistant("C", id=7)], [assistant("R", id=None)]))
    assert found.message_keys["id"] is True
    pair = Pair([user("P", id="7")], [assistant("C", id=7)], [])
    ids = [[message["id"] for message in column(found, pair, name)] for name, _ in SIDES]
    assert ids == [['"7"'], ["7"], []]


def test_tools_and_template_arguments_are_columns_where_any_pair_has_them(convert_file):
    bare = layout(TEXT).schema().names
    found = layout(TEXT, Pair("P", "C", "R", tools="[]", chat_template_kwargs={"é": 1}))
    assert [name for name in found.schema().names if name not in bare] == [
        "tools",
        "chat_template_kwargs",
    ]
    record = {"prompt": "P", "chosen": "C", "rejected": "R"}
    both = {"prompt": "Q", "tools": [], "chat_template_kwargs": {"é": 1}}
    bare, full = convert_file([record, record | both]).rows
    assert (bare["tools"], bare["chat_template_kwargs"]) == (None, None)
    assert (full["tools"], full["chat_template_kwargs"]) == ("[]", '{"é": 1}')


def test_the_card_says_the_same_types_as_the_schema():
    found = layout(
        Pair(
            [user("P")],
            [assistant("C", tool_calls=[1])],
            [assistant("R")],
            tools="[]",
            chat_template_kwargs={},
        ),
        keep=('odd: "name"',),
    )
    block = yaml.safe_load(found.card_block())["dataset_info"]["features"]
    in_schema = json.loads(found.schema().metadata[b"huggingface"])["info"]["features"]
    assert Features._from_yaml_list(block) == Features.from_dict(in_schema)
    assert Features.from_arrow_schema(found.schema()) == Features.from_dict(in_schema)


VALUES = {  # of message keys, beginning with those that need no JSON
    "name": ("n", "", None),
    "id": ("7", None, 7),
    "tool_calls": (None, [], [{"x": {"y": None}}]),
    "weight": (0.5, None, "heavy"),
}


def anything(chance, variety):
    """A side: text, or messages with keys whose values are of the first `variety` kinds."""
    if variety == 0 or chance.random() < 0.2:
        return chance.choice(("", "text", "é\n"))
    return [
        {"role": chance.choice(("user", "tool")), "content": chance.choice(("é", "", None))}
        | {
            key: chance.choice(kinds[:variety])
            for key, kinds in VALUES.items()
            if chance.random() < 0.3
        }
        for _ in range(chance.randint(0, 3))
    ]


def test_a_column_of_a_narrower_layout_is_fitted_to_what_the_wider_one_makes():
    for seed in range(200):
        chance = random.Random(seed)
        parts = [
            [
                Pair(*(anything(chance, variety) for _ in range(3)))
                for _ in range(chance.randint(0, 4))
            ]
            for variety in chance.choices(range(4), k=3)
        ]
        wide = layout(*(pair for part in parts for pair in part))
        for part in parts:
            for name, role in SIDES:
                sides = [getattr(pair, name) for pair in part]
                narrow = layout(*part)
                fitted = wide.fit(narrow.array(sides, role), narrow, role)
                made = wide.array(sides, role)
                assert fitted.equals(made), (seed, name)
                fitted.validate(full=True)


def test_a_part_of_a_column_is_fitted_as_it_stands():
    pairs = [TEXT, TURNS, Pair([user("Q", name="n")], [], "R")] * 3
    for narrow in (layout(TEXT), layout(*pairs)):
        mine = [TEXT] * 9 if narrow == layout(TEXT) else pairs
        wide = layout(*pairs, Pair([user("P", b=[1], name=2)], "C", "R"))
        whole = narrow.array([pair.prompt for pair in mine], "user")
        for part, rows in (
            (whole.slice(4, 4), range(4, 8)),
            (whole.filter(pa.array([n % 3 == 1 for n in range(9)])), (1, 4, 7)),
        ):
            expected = wide.array([mine[n].prompt for n in rows], "user").to_pylist()
            assert wide.fit(part, narrow, "user").to_pylist() == expected


def test_the_finders_of_parts_together_learn_what_one_does():
    for seed in range(100):
        chance = random.Random(seed)
        pairs = [
            Pair(
                *(anything(chance, chance.randint(0, 3)) for _ in range(3)),
                tools=chance.choice((None, "[]")),
                chat_template_kwargs=chance.choice((None, {})),
            )
            for _ in range(chance.randint(0, 6))
        ]
        merged = LayoutFinder()
        for pair in pairs:
            one = LayoutFinder()
            one.add(pair)
            merged.merge(one)
        assert merged.layout(()) == layout(*pairs)


def test_what_is_stored_as_json_is_known_as_such():
    found = layout(Pair([user("P", b=[1])], [assistant("C")], [assistant("R")]))
    columns = [found.array([[user("P", b=[1])]], role) for _, role in SIDES]
    (row,) = found.stored([*columns, pa.array(["f:1"])]).to_pylist()
    assert row["prompt"] == [user("P", b=dump([1]))]
    kind = found.stored([*columns, pa.array(["f:1"])]).schema.field("prompt").type
    assert kind.value_type.field("b").type == pa.json_()

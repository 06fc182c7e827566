"""Which columns a dataset gets, and how one pair fills them."""

import json

import pyarrow as pa
import yaml
from datasets import Features

from data_tools.layout import LayoutFinder
from data_tools.record import Pair


def layout(*pairs, keep=()):
    finder = LayoutFinder()
    for pair in pairs:
        finder.add(pair)
    return finder.layout(keep)


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
    assert found.row(TEXT, "f:1", ("x",)) == {
        "prompt": "P",
        "chosen": "C",
        "rejected": "R",
        "source": "f:1",
        "note": "x",
    }


def test_one_pair_of_messages_makes_messages_of_all():
    for found in (layout(TEXT, TURNS), layout(TURNS, TEXT)):
        assert found.row(TEXT, "f:1", ())["prompt"] == [user("P")]
        assert found.row(TEXT, "f:1", ())["rejected"] == [assistant("R")]


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
    assert found.row(TURNS, "f", ())["prompt"] == [
        user("P") | {"b": None, "name": None, "tool_calls": None}
    ]
    assert found.row(more, "f", ())["rejected"] == [
        assistant("R") | {"b": "2", "name": None, "tool_calls": None}
    ]


def test_a_key_that_is_text_here_and_not_there_is_json_everywhere():
    found = layout(Pair([user("P", id="7")], [assistant("C", id=7)], [assistant("R", id=None)]))
    assert found.message_keys["id"] is True
    row = found.row(Pair([user("P", id="7")], [assistant("C", id=7)], []), "f", ())
    assert [row["prompt"][0]["id"], row["chosen"][0]["id"]] == ['"7"', "7"]


def test_tools_and_template_arguments_are_columns_where_any_pair_has_them():
    bare = layout(TEXT).schema().names
    found = layout(TEXT, Pair("P", "C", "R", tools="[]", chat_template_kwargs={"é": 1}))
    assert [name for name in found.schema().names if name not in bare] == [
        "tools",
        "chat_template_kwargs",
    ]
    assert found.row(TEXT, "f", ())["tools"] is None
    with_both = Pair("P", "C", "R", tools="[]", chat_template_kwargs={"é": 1})
    assert found.row(with_both, "f", ())["chat_template_kwargs"] == '{"é": 1}'


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

"""Open Assistant's trees, nested or one message a record: which replies are compared, and where."""

import random

import pytest
from reading_formats import EXAMPLES, check_fault, kept, pairs, rejected, results, text


def question(content, *replies, **more):
    return {"text": content, "role": "prompter", "replies": list(replies)} | more


def answer(content, rank, *replies, **more):
    return {"text": content, "role": "assistant", "rank": rank, "replies": list(replies)} | more


def compared(prompt, **options):
    """(texts of the prompt, chosen, rejected) of each pair, or `reason: detail` of a fault."""
    return [
        found
        if isinstance(found, str)
        else ([m["content"] for m in found[0]], *map(text, found[1:]))
        for found in pairs("oasst-tree", {"prompt": prompt}, **options)
    ]


def test_every_group_of_replies_is_compared_under_the_dialogue_above_it():
    tree = question(
        "q",
        answer("a", 1, question("so?", answer("yes", 0), answer("no", 1))),
        answer("b", 0, question("and?", answer("lone", 0), question("hm"))),
        answer("c", 2),
    )
    assert compared(tree) == [(["q"], "b", "c"), (["q", "a", "so?"], "yes", "no")]
    assert compared(tree, pairs="adjacent")[:2] == [(["q"], "b", "a"), (["q"], "a", "c")]
    assert len(compared(tree, pairs="all")) == 4
    (pair, _) = results("oasst-tree", {"prompt": tree})
    assert (pair.prompt[0]["role"], pair.chosen[0]["role"]) == ("user", "assistant")


def test_a_null_rank_affects_its_own_group_alone():
    tree = question(
        "q",
        answer("a", 0, question("so?", answer("x", 1), answer("y", 0))),
        answer("b", None),
        answer("c", 1),
    )
    null, pair = compared(tree)
    assert null.startswith("null_label: the rank of reply 2 is ")
    assert pair == (["q", "a", "so?"], "y", "x")


def test_a_faulty_message_affects_only_the_groups_below_it():
    tree = question(
        "q",
        answer(7, 0, question("so?", answer("x", 0), answer("y", 1))),
        question("more", answer("good", 0), answer("bad", 1)),
    )
    wrong, pair = compared(tree)
    assert wrong == "wrong_type: the text of a message is 7; it must be text"
    assert pair == (["q", "more"], "good", "bad")


UNPAIRED = "unpaired: no message two assistant replies"
A, B = answer("a", 0), answer("b", 1)
TREES = [
    (None, "missing_field: prompt text and replies"),
    ("x", "wrong_type: prompt 'x' text and replies"),
    (question("q"), UNPAIRED),
    (question("q", replies=None), UNPAIRED),
    (question("q", answer("a", 0, question("b", answer("c", 0)))), UNPAIRED),
    (question("q", A, question("b")), UNPAIRED),
    (question(7, A, B), "wrong_type: text of a message is 7"),
    (question("q", answer(None, 0), B), "missing_field: text of a message"),
    (question("q", A, "b"), "wrong_type: message 'b' object text"),
    (question("q", A, answer("b", 1, role="judge")), "bad_roles: 'judge' prompter and assistant"),
    (question("q", A, answer("b", 1, role=None)), "missing_field: role of a message"),
    (question("q", answer("a", "first"), B), "unknown_label: rank of reply 1 'first' number"),
    (question("q", replies={"a": 1}), "wrong_type: replies {'a': 1} list"),
]


@pytest.mark.parametrize(("tree", "expected"), TREES)
def test_a_tree_without_a_comparison_explains_itself(tree, expected):
    check_fault("oasst-tree", {"prompt": tree}, expected)


def test_a_deep_tree_is_read_without_recursion():
    tree = question("last", answer("good", 0), answer("bad", 1))
    for _ in range(30_000):
        tree = question("q", answer("a", 0, tree))
    ((prompt, *answers),) = compared(tree)
    assert (len(prompt), answers) == (60_001, ["good", "bad"])


def message(key, parent, rank=None, role=None, **more):
    """A message whose text is its id; an answer where it has a rank."""
    role = role or ("prompter" if rank is None else "assistant")
    return {"message_id": key, "parent_id": parent, "text": key, "role": role, "rank": rank} | more


def test_messages_are_ranked_with_the_dialogue_above_them_as_prompt(convert_file):
    records = [
        message("worse", "q", 1),
        message("best", "q", "0.0"),
        message("q", ""),
        message("more?", "best"),
        message("well", "more?", 1),
        message("hm", "more?", 2),
        message("very well", "more?", 0),
    ]
    done = convert_file(records)
    assert done.report["format"] == "oasst-flat"
    assert kept(done) == [("q", "best", "worse"), ("more?", "very well", "hm")]
    assert [turn["content"] for turn in done.rows[1]["prompt"]] == ["q", "best", "more?"]
    assert [turn["role"] for turn in done.rows[1]["prompt"]] == ["user", "assistant", "user"]
    assert [row["source"] for row in done.rows] == ["raw.jsonl:1", "raw.jsonl:6"]
    assert rejected(done) == [(5, "unpaired")]
    assert "use --pairs all to compare every two" in done.rejects[0]["detail"]
    assert done.report["records"] == {"read": 7, "converted": 6, "rejected": 1}
    assert done.report["first_answer_wins"] is None


def test_an_answer_between_that_leads_to_a_comparison_takes_part_in_it(convert_file):
    records = [message("q", None), *(message(key, "q", rank) for rank, key in enumerate("abc"))]
    records += [message("so?", "b"), message("x", "so?", 1), message("y", "so?", 0)]
    done = convert_file(records)
    assert kept(done) == [("q", "a", "c"), ("so?", "y", "x")]
    assert done.rejects == []


def test_a_message_of_a_table_has_empty_cells(convert_file):
    content = "message_id,message_tree_id,parent_id,text,role,rank\n"
    content += "q,q,,P,prompter,\na,q,q,A,assistant,0.0\nb,q,q,B,assistant,1.0\n"
    assert kept(convert_file(content, name="raw.csv")) == [("P", "A", "B")]


GROUPS = [  # the parent of two answers, the rank of the second, and the one reject
    ("q", None, [2, 3, 1], "null_label: 1 of 2 replies to one message have no rank"),
    ("q", 0, [2, 3, 1], "tie: 2 replies to one message are ranked equally, so none is better"),
    (
        "gone",
        1,
        [2, 3],
        "missing_field: the parent_id of the message at raw.jsonl:2 is that of no record",
    ),
]


@pytest.mark.parametrize(("parent", "rank", "records", "expected"), GROUPS)
def test_a_group_without_an_order_is_one_reject(convert_file, parent, rank, records, expected):
    answers = [message("a", parent, 0), message("b", parent, rank, role="assistant")]
    done = convert_file([message("q", None), *answers])
    (found,) = [item for item in done.rejects if item.get("records")]
    assert found["records"] == records
    assert f"{found['reason']}: {found['detail']}".startswith(expected)


def test_a_tie_next_to_a_pair_is_a_reject_of_its_own(convert_file):
    records = [message("q", None)]
    records += [message(key, "q", rank) for key, rank in zip("abc", (0, 0, 1), strict=True)]
    done = convert_file(records, "--pairs", "all")
    assert kept(done) == [("q", "a", "c"), ("q", "b", "c")]
    assert rejected(done) == [([2, 3, 1], "tie")]
    assert done.report["pairs"] == {"made": 3, "kept": 2, "rejected": 1}


def test_a_message_below_a_missing_one_names_where_the_chain_breaks(convert_file):
    records = [message("a", "gone", 0), message("q", "a")]
    done = convert_file([*records, message("x", "q", 0), message("y", "q", 1)])
    assert rejected(done) == [([3, 4, 1, 2], "missing_field")]
    assert "the parent_id of the message at raw.jsonl:1 is" in done.rejects[0]["detail"]


def test_a_circle_of_messages_is_no_tree(convert_file):
    records = [message("q", "a"), message("a", "q", 0), message("b", "q", 1), message("x", "q")]
    done = convert_file([*records, message("self", "self", 0)])
    expected = [([2, 3, 1], "wrong_type"), (4, "unpaired"), (5, "unpaired")]
    assert rejected(done) == expected
    assert "form a circle without a first one; fix their parent_id" in done.rejects[0]["detail"]


def test_of_two_messages_with_one_id_the_first_is_kept(convert_file):
    records = [message("q", None), message("a", "q", 0), message("b", "q", 1)]
    done = convert_file([*records, message("a", "q", 5, text="other")])
    assert kept(done) == [("q", "a", "b")]
    assert rejected(done) == [(4, "duplicate")]
    assert "a message with the same id is at raw.jsonl:2" in done.rejects[0]["detail"]


def test_messages_that_lead_to_no_comparison_are_unpaired(convert_file):
    records = [message("q", None), message("a", "q", 0), message("more", "a")]
    done = convert_file([*records, message("root", None, 0)])
    assert rejected(done) == [(record, "unpaired") for record in (1, 2, 3, 4)]
    assert done.rejects[0]["detail"].startswith("this message has no second answer next to it")


MESSAGES = [
    ({"message_id": ""}, "missing_field: message_id text"),
    ({"message_id": 0}, "wrong_type: message_id 0 text"),
    ({"text": None}, "missing_field: text"),
    ({"text": ["x"]}, "wrong_type: text ['x']"),
    ({"role": 7}, "wrong_type: role 7 text"),
    ({"role": "user"}, "bad_roles: 'user' prompter and assistant"),
    ({"rank": "x"}, "unknown_label: rank 'x' number"),
]


@pytest.mark.parametrize(("change", "expected"), MESSAGES)
def test_a_message_that_belongs_in_no_tree_names_the_field(change, expected):
    check_fault("oasst-flat", EXAMPLES["oasst-flat"] | change, expected)


def test_the_rank_of_a_prompter_is_not_read():
    (result,) = results("oasst-flat", message("q", None, "x", role="prompter"))
    assert result.rank is None


def test_a_long_chain_and_a_wide_tree_are_read_in_linear_time(convert_file):
    chain = [message("0", None)]
    chain += [message(str(i), str(i - 1), 0 if i % 2 else None) for i in range(1, 3001)]
    chain += [message("a", "3000", 1), message("b", "3000", 0)]
    circle = [message(f"c{i}", f"c{(i + 1) % 3000}") for i in range(3000)]
    done = convert_file([*chain, *circle])
    assert kept(done) == [("3000", "b", "a")]
    assert len(done.rows[0]["prompt"]) == 3001
    assert len(done.rejects) == 3000
    wide = [message("q", None), *(message(str(i), "q", i) for i in range(3000))]
    done = convert_file(wide)
    assert kept(done) == [("q", "0", "2999")]
    assert len(done.rejects) == 2998


@pytest.mark.parametrize("seed", range(30))
def test_any_messages_give_the_pairs_that_a_plain_search_gives(convert_file, seed):
    draw = random.Random(seed)
    records = []
    for number in range(draw.choice([4, 12, 120])):
        key = draw.randrange(30)  # 1, 3 ... answer 0, 2 ...; 30 and 31 are missing
        parent = str(draw.choice([key - 1, key // 4 * 2 + (key + 1) % 2, draw.randrange(32)]))
        is_answer = key % 2 == 1
        if is_answer == int(parent) % 2 or int(parent) < 0:
            parent = None if not is_answer else "30"
        rank = draw.randrange(4) if is_answer else None
        records.append(message(str(key), parent, rank, text=f"{key} {number}"))
    found = kept(convert_file(records, "--pairs", "all"))
    assert set(found) == plain_search(records)
    assert len(set(found)) == len(found)


def plain_search(records):
    """(last turn of the prompt, chosen, rejected) of every pair, by the definition."""
    found, by_key = set(), {}
    for record in records:
        by_key.setdefault(record["message_id"], record)
    for key, parent in by_key.items():
        chain, at = [], key
        while at in by_key and at not in chain:
            chain.append(at)
            at = by_key[at]["parent_id"]
        answers = [
            record
            for record in by_key.values()
            if record["parent_id"] == key and record["role"] == "assistant"
        ]
        if at is None:
            found |= {
                (parent["text"], better["text"], worse["text"])
                for better in answers
                for worse in answers
                if better["rank"] < worse["rank"]
            }
    return found

"""The trainers' formats of --to: what each holds comes back, the rest is refused by name."""

import json
import re
from pathlib import Path

import pytest
from converting import (
    as_lines,
    assistant,
    contents,
    convert,
    pair,
    read_lines,
    use_small_blocks,
    user,
)
from test_round_trip import APART, WRITERS, known_pairs

from data_tools.convert import main
from data_tools.record import ConvertError, as_messages
from data_tools.targets import TARGETS

FORMATS = {
    "openai": "openai",
    "llamafactory": "sharegpt",
    "ms-swift": "ms-swift",
    "axolotl": "axolotl-chat",
    "nemo-rl": "nemo-rl",
}
"""The format by which the command reads each target again."""

TOOLS = [{"type": "function", "function": {"name": "brew", "parameters": {"type": "object"}}}]


def call(arguments, **more):
    return {"type": "function", "function": {"name": "brew", "arguments": arguments}, **more}


def dialogue(*prompt, **more):
    return {"prompt": [*prompt], "chosen": [assistant("C")], "rejected": [assistant("R")], **more}


CALLED = (assistant("", tool_calls=[call({"cups": 2})]), {"role": "tool", "content": "ok"})
ASKED = (user("Brew."), *CALLED)
WITH_IDS = (
    user("Brew."),
    assistant(None, tool_calls=[call('{"cups": 2}', id="c1"), call("{}", id="c2")]),
    {"role": "tool", "content": "ok", "tool_call_id": "c1"},
    {"role": "tool", "content": "no", "tool_call_id": "c2"},
)
_KWARGS = "chat_template_kwargs"
EVERY = " ".join(FORMATS)
# A record, the targets that hold it, and why the others do not.
CASES = {
    "text": (pair("\n\t雪 é \U0001f375 </s>"), EVERY, ""),
    "turns": (dialogue(user("A"), assistant("B"), user("雪")), EVERY, ""),
    "system": (dialogue({"role": "system", "content": "Be kind."}, user("A")), EVERY, ""),
    "empty keys": (dialogue(user("A", name=None, tool_calls=[])), EVERY, ""),
    "developer": (
        dialogue({"role": "developer", "content": "Be kind."}, user("A")),
        "openai nemo-rl",
        "the role developer",
    ),
    "tools": (pair(tools=TOOLS), "openai llamafactory ms-swift", "the column tools"),
    "kwargs": (
        pair(chat_template_kwargs={"enable_thinking": False}),
        "ms-swift",
        "the column chat_template_kwargs",
    ),
    "kwargs and calls": (
        dialogue(*ASKED, chat_template_kwargs={"enable_thinking": False}),
        "",
        "the column chat_template_kwargs|chat_template_kwargs in a dataset with tool calls",
    ),
    "name": (dialogue(user("A", name="Ann")), "openai nemo-rl", "name in a message"),
    "reasoning": (
        dialogue(user("A"), chosen=[assistant("C", reasoning_content="Hm.")]),
        "nemo-rl",
        "reasoning_content in a message",
    ),
    "calls": (
        dialogue(*ASKED, tools=TOOLS),
        "llamafactory ms-swift",
        "the column tools|tool calls other than function, id, type, with arguments that are text",
    ),
    "calls without tools": (
        dialogue(*ASKED),
        "llamafactory ms-swift nemo-rl",
        "tool calls other than|tool_calls in a message",
    ),
    "calls with ids": (
        dialogue(*WITH_IDS),
        "openai ms-swift nemo-rl",
        "tool calls other than|tool_calls in a message",
    ),
    "a call with an id": (
        dialogue(user("A"), chosen=[assistant("", tool_calls=[call({}, id="c1")])]),
        "ms-swift nemo-rl",
        "tool calls other than|tool_calls in a message",
    ),
    "parallel results": (
        dialogue(*ASKED, {"role": "tool", "content": "no"}),
        "ms-swift nemo-rl",
        "two turns of users or tools in a row|tool calls other than|tool_calls in a message",
    ),
    "a call as answer": (
        dialogue(user("A"), chosen=[assistant("", tool_calls=[call({"cups": 1})])]),
        "llamafactory ms-swift nemo-rl",
        "tool calls other than|tool_calls in a message",
    ),
    "a text next to a call": (
        dialogue(user("A"), rejected=[assistant("So:", tool_calls=[call({})])]),
        "ms-swift nemo-rl",
        "a text next to tool calls|tool calls other than|tool_calls in a message",
    ),
    "several messages": (
        dialogue(user("A"), chosen=[*CALLED, assistant("C")]),
        "ms-swift",
        "an answer of several messages|tool calls other than|tool_calls in a message",
    ),
    "the same first turn": (
        dialogue(
            user("A"),
            chosen=[*CALLED, assistant("C")],
            rejected=[*CALLED, assistant("R")],
        ),
        "",
        "answers that begin with the same turn|an answer of several messages|tool_calls in a|"
        "tool calls other than",
    ),
    "user turns in an answer": (
        dialogue(user("A"), chosen=[assistant("C"), user("D"), assistant("E")]),
        "",
        "user turns in an answer|an answer of several messages",
    ),
}


def comparable(row):
    """A row by what a chat template shows, with texts as messages."""
    found = {name: row[name] for name in ("chat_template_kwargs",) if row.get(name)}
    if row.get("tools"):
        found["tools"] = json.loads(row["tools"]) if isinstance(row["tools"], str) else row["tools"]
    for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
        found[name] = [
            {k: v for k, v in message.items() if v} for message in as_messages(row[name], role)
        ]
    return found


def reread(to, files=("out/train.jsonl",)):
    """The rows that the command makes of what it wrote, and the format that it detects."""
    done = convert(files, "back", test_size=0, to="jsonl", workers=1)
    assert done.figures["reasons"] == {}
    assert done.figures["format"] == FORMATS[to]
    files = sorted(Path("back").glob("train*.jsonl"))
    return [comparable(row) for path in files for row in read_lines(path)]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("case", CASES)
def test_what_a_target_holds_comes_back_and_the_rest_is_refused_by_name(to, case, convert_file):
    record, holders, cause = CASES[case]
    records = [pair("first"), record, dialogue(user("last"), assistant("B"), user("D"))]
    assert convert_file([pair("older")]).status == 0
    older = contents("out")
    done = convert_file(records, "--to", to)
    if to in holders.split():
        assert done.status == 0, done.err
        assert reread(to) == [comparable(record) for record in records]
        return
    assert done.status == 2
    start = f"convert: raw.jsonl:2: the format of --to {to} has no place for "
    assert re.match(f"{start}({cause}).*; change the record, or choose --to", done.err)
    assert contents("out") == older
    assert convert_file(records, "--to", to, "--check").err == done.err
    assert convert_file(records, "--to", "jsonl").status == 0  # as the message advises


@pytest.mark.parametrize("name", WRITERS)
def test_pairs_of_every_format_come_back_from_every_target(name, convert_file):
    pairs, draw = known_pairs(4, name)
    raw = as_lines(WRITERS[name](pairs, draw))
    assert convert_file(raw, "--to", "jsonl").status == 0
    expected = [comparable(row) for row in read_lines("out/train.jsonl")]
    assert len(expected) == 4 or name in APART
    for to in FORMATS:
        assert convert_file(raw, "--to", to).status == 0
        assert reread(to) == expected


# As each trainer's documents show it.
LINES = {
    "openai": {
        "input": {"messages": [user("P1")], "tools": TOOLS},
        "preferred_output": [assistant("C1")],
        "non_preferred_output": [assistant("R1")],
    },
    "llamafactory": {
        "conversations": [{"from": "human", "value": "P1"}],
        "chosen": {"from": "gpt", "value": "C1"},
        "rejected": {"from": "gpt", "value": "R1"},
        "tools": json.dumps(TOOLS),
    },
    "ms-swift": {
        "messages": [user("P1"), assistant("C1")],
        "tools": json.dumps(TOOLS),
        "rejected_response": "R1",
    },
    "axolotl": {"messages": [user("P1")], "chosen": assistant("C1"), "rejected": assistant("R1")},
    "nemo-rl": {
        "context": [user("P1")],
        "completions": [
            {"rank": 0, "completion": [assistant("C1")]},
            {"rank": 1, "completion": [assistant("R1")]},
        ],
    },
}


@pytest.mark.parametrize("to", FORMATS)
def test_a_line_is_as_the_trainer_documents_it(to, convert_file):
    more = {"tools": TOOLS} if "tools" in TARGETS[to].columns else {}
    assert convert_file([pair(**more)], "--to", to).status == 0
    assert read_lines("out/train.jsonl") == [LINES[to]]


def test_ms_swift_gets_whole_dialogues_in_every_row_where_any_has_tool_calls(convert_file):
    records = [pair(), dialogue(*ASKED, tools=TOOLS)]
    assert convert_file(records, "--to", "ms-swift").status == 0
    plain, called = read_lines("out/train.jsonl")
    assert plain["rejected_messages"] == [user("P1"), assistant("R1")]
    assert called["rejected_messages"] == [*ASKED, assistant("R")]
    assert called["rejected_tools"] == called["tools"] == json.dumps(TOOLS)
    assert not any("rejected_response" in line for line in (plain, called))


def test_llamafactory_gets_tool_calls_as_turns_of_their_own(convert_file):
    assert convert_file([pair(), dialogue(*ASKED, tools=TOOLS)], "--to", "llamafactory").status == 0
    plain, called = read_lines("out/train.jsonl")
    assert plain["tools"] == ""
    assert called["conversations"] == [
        {"from": "human", "value": "Brew."},
        {"from": "function_call", "value": '[{"name": "brew", "arguments": {"cups": 2}}]'},
        {"from": "observation", "value": "ok"},
    ]


@pytest.mark.parametrize("value", ['{"name": "brew", "arguments": {"cups": 2}}', "brew(2)"])
def test_a_function_call_turn_is_read_as_a_tool_call(value, convert_file):
    turns = [("human", "Brew."), ("function_call", value), ("observation", "ok")]
    record = {
        "conversations": [{"from": role, "value": text} for role, text in turns],
        "chosen": {"from": "gpt", "value": "C"},
        "rejected": {"from": "gpt", "value": "R"},
    }
    done = convert_file([record], "--to", "jsonl")
    if done.status == 0:
        assert comparable(read_lines("out/train.jsonl")[0]) == comparable(dialogue(*ASKED))
    else:
        assert value == "brew(2)" and done.rejects[0]["reason"] == "wrong_type"
        assert "it must be a call as JSON" in done.rejects[0]["detail"]


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_llamafactory_finds_each_split_by_dataset_info(tools, convert_file):
    records = [pair(i, **({"tools": tools} if tools else {})) for i in range(20)]
    done = convert_file(records, "--to", "llamafactory", "--test-size", "0.5")
    info = json.loads(Path("out/dataset_info.json").read_text())
    assert "open it   dataset_dir: out, dataset: train" in done.out
    assert [*info] == ["train", "test"]
    lines = read_lines("out/train.jsonl")
    for split, entry in info.items():
        assert entry["file_name"] == f"{split}.jsonl" and Path("out", entry["file_name"]).exists()
        assert entry["formatting"] == "sharegpt" and entry["ranking"] is True
        assert {*entry["columns"].values()} == lines[0].keys()


@pytest.mark.parametrize("to", FORMATS)
def test_the_directory_is_read_again_without_its_rejects_and_report(to, convert_file):
    records = [pair(i) for i in range(20)] + [pair(1), {"prompt": "P"}]
    assert convert_file(records, "--to", to, "--test-size", "0.5").status == 0
    assert len(read_lines("out/rejects.jsonl")) == 2 and Path("out/test.jsonl").exists()
    assert len(reread(to, files=("out",))) == 20


@pytest.mark.parametrize("to", FORMATS)
def test_an_older_output_is_replaced_and_replaces(to, convert_file):
    for options in (["--to", to], ["--to", to, "--test-size", "0.9"], []):
        assert convert_file([pair(i) for i in range(9)], *options).status == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("README.md", "dataset_dict.json", "rejects.jsonl", "report.json", "train"),
    ]


@pytest.mark.parametrize("to", FORMATS)
def test_the_report_and_the_card_say_how_the_trainer_is_given_the_files(to, convert_file):
    done = convert_file([pair()], "--to", to)
    card = Path("out/README.md").read_text("utf-8")
    assert f"open it   {TARGETS[to].usage.format('out')}" in done.out
    assert f"    {TARGETS[to].usage.format('path/to/this/directory')}\n\n## Figures" in card
    assert "import datasets" not in card and "| `source` |" not in card
    assert done.report["options"]["to"] == to


@pytest.mark.parametrize("to", FORMATS)
def test_a_kept_column_is_refused_and_the_message_can_be_followed(to, convert_file):
    records = [pair(1, id=""), pair(2, id="x", tools=[])]
    done = convert_file(records, "--to", to, "--keep", "id")
    assert done.status == 2 and not done.directory.exists()
    assert (
        f"raw.jsonl:2: the format of --to {to} has no place for the column id of --keep;"
        in done.err
    )
    assert convert_file(records, "--to", to).status == 0
    assert convert_file(records, "--to", "parquet", "--keep", "id").status == 0


def test_from_python_a_refusal_is_an_error_of_status_2(tmp_path):
    (tmp_path / "raw.jsonl").write_text(as_lines([pair(tools=TOOLS)]))
    with pytest.raises(ConvertError, match="has no place for the column tools") as error:
        convert((str(tmp_path / "raw.jsonl"),), str(tmp_path / "out"), to="axolotl", workers=1)
    assert error.value.status == 2 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", FORMATS)
def test_many_shards_become_one_file_whatever_the_number_of_workers(to, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    use_small_blocks(monkeypatch)
    Path("raw.jsonl").write_text(as_lines([pair(i, chosen="C" * 300) for i in range(600)]))
    found = []
    for workers in ("1", "2"):
        arguments = ["-o", "out", "--to", to, "--test-size", "0.3", "--workers", workers]
        assert main(["raw.jsonl", *arguments]) == 0
        found.append(contents("out"))
    assert found[0] == found[1]
    own = {"README.md", "rejects.jsonl", "report.json", "train.jsonl", "test.jsonl"}
    assert found[0].keys() == own | ({"dataset_info.json"} if to == "llamafactory" else set())
    splits = json.loads(found[0]["report.json"])["splits"]
    for split in ("train", "test"):
        assert len(read_lines(f"out/{split}.jsonl")) == splits[split] > 100
    Path("raw.jsonl").write_text(
        Path("raw.jsonl").read_text() + as_lines([CASES["the same first turn"][0]])
    )
    assert main(["raw.jsonl", *arguments]) == 2 and contents("out") == found[0]
    rows = reread(to, files=("out/train.jsonl", "out/test.jsonl"))
    numbers = sorted(int(row["prompt"][0]["content"][1:]) for row in rows)
    assert numbers == [*range(600)]


def test_the_docs_have_a_row_for_every_target():
    text = (Path(__file__).parent.parent / "docs/convert.md").read_text("utf-8")
    rows = re.findall(r"^\| `--to ([\w-]+)` \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert [name for name, *_ in rows] == [*TARGETS] == [*FORMATS]
    for name, _, missing in rows:
        for key in ("tools", _KWARGS, "reasoning_content"):
            held = TARGETS[name].columns + TARGETS[name].keys
            is_refused = key not in held or (name, key) == ("ms-swift", _KWARGS)
            assert (f"`{key}`" in missing) == is_refused

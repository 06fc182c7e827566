"""What is written, opened with `datasets` itself: the same rows, types and bytes."""

import random
from pathlib import Path

import datasets
import pytest
from converting import (
    assistant,
    contents,
    convert,
    pair,
    read_lines,
    use_small_blocks,
    user,
    write_lines,
)

from data_tools import options
from data_tools.targets import TARGETS

KINDS = next(a.choices for a in options.parser()._actions if a.dest == "to")
STORES = [kind for kind in KINDS if kind not in TARGETS]  # which have tests of their own
CALLS = [{"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": [None, "2"]}}}]
OTHER = [{"type": "function", "function": {"name": "g", "arguments": {"z": {"deep": True}}}}]


def written(folder, records, **options):
    """A directory `out` in `folder`, converted from `records`."""
    folder.mkdir(exist_ok=True)
    raw = write_lines(folder / "raw.jsonl", records)
    options = {"output": str(folder / "out"), "test_size": 0.0, "workers": 1} | options
    assert convert((raw,), **options).status == 0
    return folder / "out"


def opened(directory, to="arrow"):
    if to == "arrow":
        return datasets.load_from_disk(str(directory))
    return datasets.load_dataset(str(directory), cache_dir=f"{directory.parent}/cache")


def test_load_from_disk_maps_both_splits_where_they_are(tmp_path):
    directory = written(tmp_path, [pair(i) for i in range(40)], test_size=0.5)
    found = opened(directory)
    assert list(found) == ["train", "test"]
    columns = dict.fromkeys(("prompt", "chosen", "rejected", "source"), datasets.Value("string"))
    for split in found.values():
        assert split.features == columns
        assert all(Path(f["filename"]).is_relative_to(directory) for f in split.cache_files)
    rows = [row for split in found.values() for row in split]
    expected = [pair(i, source=f"{tmp_path}/raw.jsonl:{i + 1}") for i in range(40)]
    assert sorted(rows, key=lambda row: int(row["prompt"][1:])) == expected


@pytest.mark.parametrize("to", STORES)
def test_two_directories_of_one_name_each_open_their_own_rows(tmp_path, to):
    first = written(tmp_path / "a", [pair(1), pair(2), pair(1)], to=to)
    second = written(tmp_path / "b", [pair(3), pair(4)], to=to)
    assert opened(first, to)["train"]["prompt"][:] == ["P1", "P2"]
    assert opened(second, to)["train"]["prompt"][:] == ["P3", "P4"]


@pytest.mark.parametrize("to", STORES)
def test_a_split_without_rows_is_not_written(tmp_path, to):
    directory = written(tmp_path, [pair(1)], to=to)
    assert list(opened(directory, to)) == ["train"]
    assert not list(directory.glob("test*"))


@pytest.mark.parametrize("to", STORES)
def test_tool_calls_and_template_arguments_come_back_unaltered(tmp_path, to):
    called = {
        "chosen": [user("a"), assistant(None, tool_calls=CALLS)],
        "rejected": [user("a"), assistant("no", name="bot")],
        "tools": [{"name": "f", "parameters": {}}],
        "chat_template_kwargs": {"enable_thinking": False},
    }
    plain = {
        "chosen": [user("b"), assistant("x", tool_calls=OTHER)],
        "rejected": [user("b"), assistant("no")],
    }
    first, second = opened(written(tmp_path, [called, plain], to=to), to)["train"]
    assert first["prompt"] == [user("a", name=None, tool_calls=None)]
    assert first["chosen"] == [assistant(None, tool_calls=CALLS, name=None)]
    assert first["rejected"] == [assistant("no", tool_calls=None, name="bot")]
    assert second["chosen"] == [assistant("x", tool_calls=OTHER, name=None)]
    assert (first["tools"], second["tools"]) == ('[{"name": "f", "parameters": {}}]', None)
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert second["chat_template_kwargs"] is None


@pytest.mark.parametrize("to", STORES)
def test_one_record_of_messages_makes_messages_of_all(tmp_path, to):
    turns = [user("P2", name="x"), assistant("A", name="7"), user("Q", name=None)]
    records = [pair(1, chosen=""), pair(1), pair(2, prompt=turns), pair(3)]
    found = opened(written(tmp_path, records, to=to), to)["train"]
    bare = user("P1", name=None)
    assert found["prompt"][:] == [[bare], turns, [user("P3", name=None)]]
    assert found["rejected"][0] == [assistant("R1", name=None)]


def test_messages_of_which_no_pair_is_kept_leave_the_others_text(tmp_path):
    same = [assistant("same")]
    records = [pair(1), pair(2, prompt=[user("P")], chosen=same, rejected=same)]
    assert opened(written(tmp_path, records))["train"]["prompt"][:] == ["P1"]


VALUES = {
    "name": ("n", "", None),
    "tool_call_id": ("7", None, 7),
    "tool_calls": (None, [1], [{"x": None}]),
}


def random_side(dice, variety):
    """A prompt: a text, or turns with keys whose values are of the first `variety` kinds."""
    if not variety or dice.random() < 0.3:
        return dice.choice(("text", "é\n"))
    return [
        role(dice.choice(("é", "a b")))
        | {k: dice.choice(v[:variety]) for k, v in VALUES.items() if dice.random() < 0.3}
        for role in (user, assistant, user)[: dice.choice((1, 3))]
    ]


@pytest.mark.parametrize("seed", range(8))
def test_blocks_of_different_contents_fit_one_schema(tmp_path, monkeypatch, seed):
    """Each side of each block gets the keys that any other block has, and none is altered."""
    dice = random.Random(seed)
    use_small_blocks(monkeypatch, block=dice.choice((1, 300)))
    records, prompts = [], []
    for number in range(20):
        side = random_side(dice, number % 4 if seed else 0)
        prompts.append(side if isinstance(side, str) else [*side])
        records.append(pair(number, prompt=side))
    found = opened(written(tmp_path, records))["train"]["prompt"][:]
    keys = {
        key
        for side in prompts
        if not isinstance(side, str)
        for m in side
        for key in m
        if m[key] is not None
    }
    missing = dict.fromkeys(keys)
    expected = [[user(p)] if isinstance(p, str) and keys else p for p in prompts]
    assert found == [p if isinstance(p, str) else [missing | m for m in p] for p in expected]


@pytest.mark.parametrize("to", STORES)
def test_kept_columns_are_text_whatever_they_look_like(tmp_path, to):
    values = ["007", "NA", "2024-01-01", None, 7, 0.5, True, {"a": [1]}, "é"]
    records = [pair(i, **{' odd: "note"': value}) for i, value in enumerate(values)]
    directory = written(tmp_path, records, to=to, keep=('odd: "note"',))
    found = opened(directory, to)["train"]
    texts = ["007", "NA", "2024-01-01", None, "7", "0.5", "true", '{"a": [1]}', "é"]
    assert found['odd: "note"'][:] == texts
    assert found.features['odd: "note"'] == datasets.Value("string")


def date_notes(tmp_path, *records, **options):
    """The columns whose texts all look like dates, as the notes name them."""
    raw = write_lines(tmp_path / "raw.jsonl", records)
    options = {"to": "jsonl", "test_size": 0.0, "workers": 1} | options
    notes = convert((raw,), str(tmp_path / "out"), **options).figures["notes"]
    end = (
        " of train.jsonl looks like a date, which datasets.load_dataset would turn into a "
        "timestamp; --to arrow keeps it text"
    )
    assert all(note.startswith("every ") and note.endswith(end) for note in notes)
    return [note.removeprefix("every ").removesuffix(end) for note in notes]


@pytest.mark.parametrize("to", STORES)
def test_several_shards_open_as_one_split_in_the_order_of_the_records(tmp_path, monkeypatch, to):
    use_small_blocks(monkeypatch, block=400, shard=3000)
    records = [pair(i, chosen="" if i % 10 == 9 else f"C{i}") for i in range(100)]
    directory = written(tmp_path, records, to=to, test_size=0.5)
    for split in ("train", "test"):
        folder, name = (directory / split, "data") if to == "arrow" else (directory, split)
        names = sorted(path.name for path in folder.glob(f"{name}*.{to}"))
        assert len(names) > 2
        assert names == [f"{name}-{i:05d}-of-{len(names):05d}.{to}" for i in range(len(names))]
    kept = [record["prompt"] for record in records if record["chosen"]]
    found = opened(directory, to)
    read = [found[split]["prompt"][:] for split in ("train", "test")]
    assert read == [sorted(prompts, key=kept.index) for prompts in read]
    assert sorted(read[0] + read[1], key=kept.index) == kept
    rejects = read_lines(directory / "rejects.jsonl")
    assert [reject["line"] for reject in rejects] == list(range(10, 101, 10))
    own = {"README.md", "rejects.jsonl", "report.json", "dataset_dict.json", "train", "test"}
    assert {path.name for path in directory.iterdir() if "-of-" not in path.name} <= own


@pytest.mark.parametrize("to", STORES)
def test_the_same_input_gives_the_same_bytes_again_and_elsewhere(tmp_path, to):
    records = [pair(i, note="x") for i in range(50)] + [pair(1), {"prompt": "only"}]
    options = {"to": to, "keep": ("note",), "test_size": 0.3}
    before = contents(written(tmp_path, records, **options))
    assert {"report.json", "rejects.jsonl", "README.md"} < before.keys()
    assert contents(written(tmp_path, records, **options)) == before
    written(tmp_path, records, output=str(tmp_path / "b/c"), **options)
    assert contents(tmp_path / "b/c") == before

"""Datasets: how they are loaded, checked and joined; the files of the user stay unchanged."""

import contextlib
import json
import shlex
from itertools import zip_longest

import pytest
from converting import convert
from datasets import Dataset, DatasetDict, Image, load_from_disk

from data_tools.convert import main as convert_main
from dpo_wrap.config import load_settings
from dpo_wrap.data.splits import load_splits, move_into_run
from dpo_wrap.errors import DataError

ROWS = [{"prompt": f"Q{i}", "chosen": f" yes {i}", "rejected": f" no {i}"} for i in range(40)]


def user(*texts):
    """Messages of the user and the assistant in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def assistant(text):
    return [{"role": "assistant", "content": text}]


def talk(i):
    return {
        "prompt": user(f"Q{i}"),
        "chosen": assistant(f"yes {i}"),
        "rejected": assistant(f"no {i}"),
    }


TALKS = [talk(i) for i in range(20)]


@pytest.fixture
def load(tmp_path):
    """load_splits for these paths; the run directory is tmp_path/run."""

    def read(*paths, overrides=()):
        config = tmp_path / "config.yaml"
        keys = {"model_path": "m", "dataset_path": [str(p) for p in paths], "output_dir": "o"}
        config.write_text(json.dumps(keys))
        settings = load_settings(str(config), overrides)
        return load_splits(settings, tmp_path / "run", tmp_path / "temp")

    return read


@pytest.fixture
def refusal(load):
    """The message with which load_splits refuses these paths."""

    def read(*paths, **kwargs):
        with pytest.raises(DataError) as caught:
            load(*paths, **kwargs)
        assert caught.value.status == 2
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return read


@pytest.fixture
def saved(tmp_path):
    """The directory of a saved dataset with these splits."""

    def save(train, test=None, name="saved"):
        splits = {"train": Dataset.from_list(train)}
        if test is not None:
            splits["test"] = Dataset.from_list(test)
        DatasetDict(splits).save_to_disk(str(tmp_path / name))
        return tmp_path / name

    return save


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "raw.json"
    path.write_text(json.dumps(ROWS))
    return path


def files_under(folder):
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*"))}


# Where a dataset comes from


@pytest.mark.parametrize("kind", ["arrow", "parquet", "jsonl"])
def test_a_converted_directory_is_opened_and_not_changed(load, raw, tmp_path, kind):
    convert((str(raw),), output=str(tmp_path / "made"), test_size=0.3, to=kind)
    before = files_under(tmp_path / "made")
    splits = load(tmp_path / "made")
    prompts = [*splits.train["prompt"], *splits.test["prompt"]]
    assert sorted(prompts) == sorted(row["prompt"] for row in ROWS)
    assert not splits.conversational
    assert splits.train[0]["source"].startswith(str(raw))
    assert files_under(tmp_path / "made") == before


def test_a_raw_file_is_converted_again_only_when_it_changes(load, raw, tmp_path):
    before = set(tmp_path.iterdir())
    first = load(raw)
    assert first.notes == [f"{raw}: converted, 40 of 40 pairs kept"]
    assert set(tmp_path.iterdir()) - before == {tmp_path / "temp", tmp_path / "config.yaml"}
    (tmp_path / "run").mkdir()
    move_into_run(tmp_path / "run", tmp_path / "temp")
    assert (tmp_path / "run/dataset/report.json").is_file()
    again = load(raw)
    assert (again.notes, again.fingerprint) == ([], first.fingerprint)

    raw.write_text(json.dumps(ROWS[:-5]))
    changed = load(raw)
    assert changed.notes == [f"{raw}: converted, 35 of 35 pairs kept"]
    assert changed.fingerprint != first.fingerprint
    move_into_run(tmp_path / "run", tmp_path / "temp")
    assert load(raw).notes == []


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "Q", "chosen": "same", "rejected": "same"}, "kept (identical_pair 1); see why"),
        ({"what": 1}, "raw.json"),
    ],
)
def test_a_raw_file_that_convert_cannot_use_is_refused(refusal, tmp_path, record, message):
    (tmp_path / "raw.json").write_text(json.dumps([record]))
    assert message in refusal(tmp_path / "raw.json")


def test_the_fingerprint_depends_on_the_rows_and_their_order_only(load, saved):
    first = load(saved(ROWS, name="a")).fingerprint
    assert load(saved(ROWS, name="b")).fingerprint == first
    assert load(saved(ROWS[::-1], name="c")).fingerprint != first
    assert load(saved(ROWS[:-1], ROWS[-1:], name="d")).fingerprint != first


def test_a_directory_without_a_dataset_is_refused_with_the_command_that_converts_it(
    refusal, tmp_path
):
    (tmp_path / "folder").mkdir()
    message = refusal(tmp_path / "folder")
    assert "the directory has no converted dataset" in message
    assert f"python -m data_tools.convert {tmp_path / 'folder'}" in message


def test_a_damaged_dataset_is_refused(refusal, saved):
    path = saved(ROWS)
    file = next((path / "train").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:50])
    assert "the dataset is damaged" in refusal(path)


def test_a_hub_dataset_without_a_network_is_refused_in_one_line(refusal):
    message = refusal("someone/pairs")
    assert "dataset_path 'someone/pairs' could not be loaded: it is not a local path" in message


# Splits


def test_a_dataset_without_a_train_split_is_refused(refusal, tmp_path):
    DatasetDict({"train_prefs": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    assert "no split is named train (found: train_prefs)" in refusal(tmp_path / "d")


@pytest.mark.parametrize("empty", [{}, {"prompt": [], "chosen": [], "rejected": []}])
def test_a_test_split_without_rows_counts_as_none(load, refusal, tmp_path, empty):
    path = tmp_path / "saved"
    splits = {"train": Dataset.from_list(ROWS), "test": Dataset.from_dict(empty)}
    DatasetDict(splits).save_to_disk(str(path))
    loaded = load(path)
    assert (len(loaded.train), loaded.test) == (40, None)
    assert loaded.notes == [f"{path}: its test split has no rows"]
    message = refusal(path, overrides=["eval_strategy=epoch"])
    assert message.startswith("--set eval_strategy=epoch: eval_strategy: the data have no test spl")


def test_a_train_split_without_rows_is_refused(refusal, tmp_path):
    rows = Dataset.from_list(ROWS)
    DatasetDict({"train": rows.select([]), "test": rows}).save_to_disk(str(tmp_path / "d"))
    rows.select([]).save_to_disk(str(tmp_path / "e"))
    for name in ("d", "e"):
        assert f"{name}: its train split has no rows; convert the raw" in refusal(tmp_path / name)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_file_of_a_split_is_named(refusal, tmp_path, split):
    Dataset.from_list(ROWS).to_json(str(tmp_path / "d/train.jsonl"))
    (tmp_path / f"d/{split}.jsonl").write_text("")
    assert f"{split}.jsonl has no rows; remove it" in refusal(tmp_path / "d")


def test_a_split_with_another_name_is_noted_as_not_read(load, tmp_path):
    rows = Dataset.from_list(ROWS)
    DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "d"))
    splits = load(tmp_path / "d")
    assert splits.test is None
    assert splits.notes == [
        f"{tmp_path}/d: only train and test are read, not validation; save one of them as test to "
        "evaluate on it"
    ]


# Columns and rows


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (ROWS, {"prompt": " \n"}, "row 17 of train: the prompt is empty"),
        (ROWS, {"prompt": None}, "row 17 of train: the prompt is null"),
        (ROWS, {"chosen": None}, "row 17 of train: the chosen is null"),
        (ROWS, {"rejected": ""}, "row 17 of train: the rejected is empty"),
        (TALKS, {"prompt": []}, "row 17 of train: the prompt is empty"),
        (TALKS, {"prompt": user(" ")}, "row 17 of train: the prompt is empty"),
        (TALKS, {"chosen": assistant(None)}, "the chosen has a message without content"),
        (TALKS, {"chosen": user("Q5", "yes")}, "chosen answer begins with a message of user"),
    ],
)
def test_every_row_is_checked_not_only_the_first(refusal, saved, rows, change, message):
    rows = [row | change if i in (17, 19) else row for i, row in enumerate(rows)]
    found = refusal(saved(rows))
    assert message in found and "(and 1 more rows are unusable)" in found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"question": "Q", "chosen": "a", "rejected": "b"}],
            "the train split has no column 'prompt' (it has question, chosen, rejected)",
        ),
        (
            [row | {"prompt": "Q"} for row in TALKS],
            "prompt is text, chosen is messages, rejected is messages",
        ),
        (
            [row | {"chosen": 7} for row in TALKS],
            "prompt is messages, chosen is int64, rejected is messages",
        ),
        (
            [r | {n: r["prompt"] + r[n] for n in ("chosen", "rejected")} for r in ROWS],
            "every answer begins with its prompt",
        ),
    ],
    ids=["no prompt", "mixed", "numbers", "repeated prompt"],
)
def test_columns_that_trl_would_misread_are_refused(refusal, saved, rows, message):
    assert message in refusal(saved(rows))


def test_conversations_and_the_fields_of_their_messages_are_counted(load, saved, tmp_path):
    splits = load(saved(TALKS, name="talks"))
    assert splits.conversational and splits.fields == {}
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    calling = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    rows = [row | {"tools": "[]" if i else None, "chosen": calling} for i, row in enumerate(TALKS)]
    count = len(TALKS)
    expected = {("tool_calls", "assistant"): count}
    assert load(saved(rows)).fields == expected
    named = [[{**message, "name": "Ann"} for message in row["prompt"]] for row in rows]
    rows = [row | {"tools": "[{}]", "prompt": p} for row, p in zip(rows, named, strict=True)]
    expected |= {("tools", ""): count, ("name", "user"): count}
    assert load(saved(rows, name="more")).fields == expected
    # As convert stores them.
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load(path).fields == expected


def test_missing_template_arguments_are_an_empty_mapping_not_null(load, tmp_path):
    rows = [*TALKS[:3], TALKS[3] | {"chat_template_kwargs": {"style": "short"}}, *TALKS[4:]]
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    kwargs = load(path).train["chat_template_kwargs"]
    assert {} in kwargs and None not in kwargs and {"style": "short"} in kwargs


# Several datasets


def test_a_prompt_held_out_in_one_dataset_is_held_out_in_all(load, saved):
    one = saved(ROWS[:20], ROWS[20:25], name="one")
    # The same prompts except for white space, which the split ignores too.
    two = saved([r | {"prompt": f" {r['prompt']} "} for r in ROWS[15:30]], name="two")
    splits = load(one, two)
    prompts = {prompt.strip() for prompt in splits.train["prompt"]}
    assert not prompts & {f"Q{i}" for i in range(20, 25)}
    assert (len(splits.train), len(splits.test)) == (20 + 15 - 5, 5)
    assert splits.notes == [
        f"{one}: 20 pairs to train on, 5 held out",
        f"{two}: 10 pairs to train on, 0 held out",
        "train: 5 pairs dropped, because their prompts are held out",
        "train: 5 pairs are in another of the datasets too and count twice; convert the raw files "
        "together, which keeps one of each",
    ]


def test_a_row_of_several_datasets_has_the_position_of_its_dataset(load, raw, saved, tmp_path):
    other, third = (
        [row | {"prompt": f"{name} {row['prompt']}"} for row in ROWS] for name in ("other", "third")
    )
    other = saved(other, name="other")
    before = files_under(other)
    (tmp_path / "third.json").write_text(json.dumps(third))
    positions = {"Q": 0, "o": 1, "t": 2}
    for row in load(raw, other, tmp_path / "third.json").train:
        assert row["dataset"] == positions[row["prompt"][0]]
        # Only converted rows have a source.
        assert (row["source"] is None) == (row["dataset"] == 1)
    assert files_under(other) == before
    converted = {path.name for path in (tmp_path / "temp").iterdir() if path.is_dir()}
    assert converted == {"dataset-1", "dataset-3"}
    assert "dataset" not in load(other).train.column_names


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        ((["pab", "qab"], ["rab"]), (), []),
        ((["pab", "pab", "qab", "qba"], ["rab", "qac"]), (), []),
        # q is repeated, twice in one dataset; p has both orders; r has different answers.
        (
            (["pab", "qab", "rab"], ["pba", "qab", "rac", "qab"]),
            (),
            ["train: the datasets contradict each other on 1 pairs", "train: 1 pairs are in"],
        ),
        ((["pab"], ["pab"], ["pab"]), (), ["train: 2 pairs are in another of the datasets too"]),
        (
            (["pab", "qab"], ["rab", "sab"]),
            (["sba"], ["sab"]),
            ["train: 1 pairs dropped", "test: the datasets contradict each other on 1 pairs"],
        ),
    ],
)
def test_repeated_and_contradictory_pairs_of_several_datasets_are_counted(
    load, saved, train, test, expected
):
    """`pab` is a row: to the prompt p, the answer a is better than b."""

    def rows(words):
        names = ("prompt", "chosen", "rejected")
        return [dict(zip(names, word, strict=True)) for word in words]

    paths = [
        saved(rows(words), rows(held_out) if held_out else None, name=f"d{n}")
        for n, (words, held_out) in enumerate(zip_longest(train, test))
    ]
    found = load(*paths).notes[len(paths) :]
    assert [note[: len(start)] for note, start in zip(found, expected, strict=True)] == expected


@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        ((ROWS[:5], ROWS[5:]), (ROWS[5:], ROWS[:5]), "no rows are left to train on"),
        ((ROWS,), (TALKS,), "text and messages are mixed"),
        (
            (TALKS[:9],),
            ([t | {"prompt": [{"role": "user", "content": "Q", "name": "A"}]} for t in TALKS],),
            "the datasets cannot be joined",
        ),
        ((TALKS[:9],), ([t | {"tools": "[]"} for t in TALKS],), "only some of the datasets have"),
    ],
)
def test_datasets_that_cannot_be_joined_are_refused(refusal, saved, one, two, message):
    assert message in refusal(saved(*one, name="one"), saved(*two, name="two"))


def test_a_dataset_that_is_given_twice_is_refused(refusal, saved):
    path = saved(ROWS)
    again = f"{path.parent}/./{path.name}/"
    assert f"dataset_path: '{path}' and {again!r} are the same; remove one" in refusal(path, again)


# Columns that training ignores


ADVICE = {
    "system texts": "write each split with to_json and convert the files: ",
    "earlier turns": "put them into prompt, which may be a list of messages; ",
    "media": "remove the rows that need it, because training reads text only; ",
    "context": "put it into prompt; ",
}
TURN = {"role": "user", "content": "Earlier?"}
PICTURE = {"bytes": b"not decoded", "path": None}


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("system_prompt", "Be brief.", "system texts"),
        ("System Message", "Be brief.", "system texts"),
        ("system", {"role": "system", "content": "Be brief."}, "system texts"),
        ("history", [["Hi.", "Hello."]], "earlier turns"),
        ("history", '[["Hi.", "Hello."]]', "earlier turns"),
        # Only part of a word of the answer, "yes".
        ("history", [["es"]], "earlier turns"),
        ("messages", [TURN], "earlier turns"),
        ("conversations", [{"from": "human", "value": "Earlier?"}], "earlier turns"),
        ("images", ["a.png"], "media"),
        ("img", 17, "media"),
        ("audios", [["a.wav"]], "media"),
        ("passages", [{"title": "Rome", "text": "Seven hills."}], "context"),
        ("input", "Rome", "context"),
    ],
)
def test_a_column_that_the_model_should_see_is_refused_until_it_is_removed(
    refusal, load, saved, tmp_path, column, value, what
):
    rows = [row | {column: value if i == 31 else None} for i, row in enumerate(ROWS)]
    message = refusal(saved(rows))
    start = f": the column {column!r} has {what} that the model would not see (row 31 of train); "
    assert start + ADVICE[what] in message
    assert message.endswith(f"; or remove the column: dataset.remove_columns({column!r})")
    dataset = load_from_disk(str(tmp_path / "saved"))
    dataset.remove_columns(column).save_to_disk(str(tmp_path / "without"))
    assert load(tmp_path / "without").notes == []


def test_such_a_column_of_the_test_split_is_refused_too(refusal, saved):
    message = refusal(saved(ROWS[:30], [row | {"context": "Rome."} for row in ROWS[30:]]))
    assert "the column 'context' has context that the model would not see (row 0 of t" in message


def test_images_are_refused_without_decoding_them(refusal, tmp_path):
    rows = Dataset.from_list([row | {"image": PICTURE} for row in ROWS])
    rows.cast_column("image", Image()).save_to_disk(str(tmp_path / "d"))
    assert "the column 'image' has media" in refusal(tmp_path / "d")


@pytest.mark.parametrize("value", [None, " \n", [], [["", None]], {"bytes": None}, "[]"])
@pytest.mark.parametrize("column", ["system", "images"])
def test_a_column_that_is_empty_in_every_row_is_allowed(load, saved, column, value):
    path = saved([row | {column: value} for row in ROWS])
    splits = load(path)
    assert splits.train.column_names == ["prompt", "chosen", "rejected"]
    assert splits.notes == [f"{path}: columns not trained on: {column!r}"]


def test_a_column_whose_texts_the_pair_has_already_is_allowed(load, saved):
    rows = [
        row
        | {"prompt": [{"role": "system", "content": "Be  brief."}, *row["prompt"]]}
        | {"system": "Be brief.", "messages": [*row["prompt"], *row["chosen"]]}
        for row in TALKS
    ]
    assert len(load(saved(rows, name="a")).train) == 20
    rows = [
        row | {"context": "Seven\nhills!", "prompt": f"Context: <Seven hills!> {row['prompt']}"}
        for row in ROWS
    ]
    assert len(load(saved(rows, name="b")).train) == 40


@pytest.mark.parametrize(
    ("row", "column"), [(ROWS[0], "system"), (talk(0), "System Message")], ids=["text", "messages"]
)
def test_the_advice_for_a_system_text_makes_it_the_first_message(
    refusal, load, saved, tmp_path, row, column
):
    message = refusal(saved([row | {column: "Be brief."}]))
    command = message.split("convert the files: python -m data_tools.convert FILES ")[1]
    Dataset.from_list([row | {column: "Be brief."}]).to_json(str(tmp_path / "train.jsonl"))
    options = [*shlex.split(command.split(";")[0]), "-o", str(tmp_path / "made")]
    assert convert_main([str(tmp_path / "train.jsonl"), *options]) == 0
    prompt = load(tmp_path / "made").train[0]["prompt"]
    assert prompt == [{"role": "system", "content": "Be brief."}, *user("Q0")]


def test_other_columns_are_noted_as_not_trained_on(load, saved):
    one = saved([row | {"id": 1, "score\x1b": 0.5} for row in ROWS], name="one")
    two = saved([row | {"prompt": "other"} for row in ROWS], name="two")
    notes = load(one, two).notes
    assert notes[0] == f"{one}: columns not trained on: 'id', 'score\\x1b'"
    assert not any("two: columns" in note for note in notes)


def test_a_column_that_convert_kept_is_allowed_only_with_the_report_of_convert(
    load, refusal, saved, tmp_path
):
    rows = [row | {"context": "Rome has hills."} for row in ROWS]
    (tmp_path / "raw.json").write_text(json.dumps(rows))
    options = ["--keep", "context", "-o", str(tmp_path / "made")]
    assert convert_main([str(tmp_path / "raw.json"), *options]) == 0
    assert load(tmp_path / "made").notes == []
    (tmp_path / "made/report.json").unlink()
    assert "the column 'context' has context" in refusal(tmp_path / "made")
    path = saved(rows)
    (path / "report.json").write_text("{}")
    assert "the column 'context' has context" in refusal(path)


@pytest.mark.parametrize(
    "more", [{"id": "1"}, {"context": "Rome has hills."}, {"chat_template_kwargs": {"style": "a"}}]
)
def test_a_dataset_that_is_checked_is_not_changed(load, saved, more):
    path = saved([row | more for row in ROWS])
    before = files_under(path)
    with contextlib.suppress(DataError):
        load(path)
    assert files_under(path) == before

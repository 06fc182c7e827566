"""data and columns: what may be trained on, where from, and what stays untouched."""

import contextlib
import json
import shlex
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict, Image, load_from_disk

from data_tools.convert import convert
from data_tools.convert import main as convert_main
from dpo_wrap.config import load_settings
from dpo_wrap.data.splits import adopt, load_splits
from dpo_wrap.errors import DataError

ROWS = [{"prompt": f"Q{i}", "chosen": f" yes {i}", "rejected": f" no {i}"} for i in range(40)]


def turns(*texts, first="user"):
    roles = ["user", "assistant"] if first == "user" else ["assistant", "user"]
    return [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]


def talk(i):
    sides = ("chosen", f"yes {i}"), ("rejected", f"no {i}")
    return {"prompt": turns(f"Q{i}")} | {n: turns(text, first="assistant") for n, text in sides}


@pytest.fixture
def load(tmp_path):
    """load_splits for these paths; the run directory is tmp_path/run."""

    def read(*paths, overrides=()):
        config = tmp_path / "config.yaml"
        keys = {"model_path": "m", "dataset_path": [str(p) for p in paths], "output_dir": "o"}
        config.write_text(json.dumps(keys))
        settings = load_settings(str(config), overrides)
        return load_splits(settings, tmp_path / "run", tmp_path / "aside")

    return read


@pytest.fixture
def refusal(load):
    def read(*paths, **kwargs):
        with pytest.raises(DataError) as caught:
            load(*paths, **kwargs)
        assert caught.value.status == 2
        return str(caught.value)

    return read


@pytest.fixture
def saved(tmp_path):
    """The folder of a saved dataset with these splits."""

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


def test_a_converted_directory_is_opened_and_left_as_it_was(load, raw, tmp_path):
    convert((str(raw),), output=str(tmp_path / "made"), test_size=0.3)
    before = files_under(tmp_path / "made")
    splits = load(tmp_path / "made")
    assert len(splits.train) + len(splits.test) == 40
    assert not splits.conversational
    assert splits.train[0]["source"].startswith(str(raw))
    assert files_under(tmp_path / "made") == before


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_the_other_stores_of_convert_are_opened_too(load, raw, tmp_path, kind):
    convert((str(raw),), output=str(tmp_path / "made"), test_size=0.3, to=kind)
    splits = load(tmp_path / "made")
    prompts = [*splits.train["prompt"], *splits.test["prompt"]]
    assert sorted(prompts) == sorted(row["prompt"] for row in ROWS)


def test_a_raw_file_is_converted_aside_and_taken_into_the_run(load, raw, tmp_path):
    before = set(tmp_path.iterdir())
    splits = load(raw)
    assert splits.notes == [f"{raw}: converted, 40 of 40 pairs kept"]
    assert set(tmp_path.iterdir()) - before == {tmp_path / "aside", tmp_path / "config.yaml"}
    (tmp_path / "run").mkdir()
    adopt(tmp_path / "run", tmp_path / "aside")
    assert (tmp_path / "run/dataset/report.json").is_file()
    again = load(raw)
    assert again.notes == []
    assert again.fingerprint == splits.fingerprint


def test_a_changed_raw_file_is_converted_anew(load, raw, tmp_path):
    first = load(raw)
    (tmp_path / "run").mkdir()
    adopt(tmp_path / "run", tmp_path / "aside")
    raw.write_text(json.dumps(ROWS[:-5]))
    second = load(raw)
    assert second.notes == [f"{raw}: converted, 35 of 35 pairs kept"]
    assert second.fingerprint != first.fingerprint
    assert len(json.loads((tmp_path / "run/dataset/report.json").read_text())["splits"]) >= 1
    adopt(tmp_path / "run", tmp_path / "aside")
    assert load(raw).notes == []


def test_a_raw_file_without_a_usable_pair_is_refused_with_the_reasons(refusal, tmp_path):
    path = tmp_path / "raw.json"
    path.write_text(json.dumps([{"prompt": "Q", "chosen": "same", "rejected": "same"}]))
    said = refusal(path)
    assert "no pair could be kept (identical_pair 1)" in said
    assert "python -m data_tools.convert --check" in said


def test_a_raw_file_that_convert_refuses_is_refused_in_its_words(refusal, tmp_path):
    path = tmp_path / "raw.json"
    path.write_text('[{"what": 1}]')
    assert str(path) in refusal(path)


def test_the_same_rows_have_the_same_fingerprint_wherever_they_stand(load, saved):
    first = load(saved(ROWS, name="a")).fingerprint
    assert load(saved(ROWS, name="b")).fingerprint == first
    assert load(saved(ROWS[::-1], name="c")).fingerprint != first
    assert load(saved(ROWS[:-1], ROWS[-1:], name="d")).fingerprint != first


def test_a_directory_without_a_dataset_says_to_convert_it(refusal, tmp_path):
    (tmp_path / "folder").mkdir()
    said = refusal(tmp_path / "folder")
    assert "a directory without a converted dataset" in said
    assert f"python -m data_tools.convert {tmp_path / 'folder'}" in said


def test_a_damaged_dataset_is_refused(refusal, saved):
    path = saved(ROWS)
    file = next((path / "train").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:50])
    assert "the dataset is damaged" in refusal(path)


def test_a_dataset_of_the_hub_without_a_network_is_one_line(refusal):
    said = refusal("someone/pairs")
    assert "dataset_path 'someone/pairs' could not be loaded: it is no local path" in said
    assert "\n" not in said


def test_splits_of_other_names_are_refused(refusal, tmp_path):
    DatasetDict({"train_prefs": Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "d"))
    assert "no split is called train; there are train_prefs" in refusal(tmp_path / "d")


def test_a_missing_prompt_column_is_refused(refusal, saved):
    rows = [{"question": r["prompt"], "chosen": "a", "rejected": "b"} for r in ROWS]
    said = refusal(saved(rows))
    assert "the train split has no column 'prompt' (it has question, chosen, rejected)" in said


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": " \n"}, "row 17 of train: the prompt is empty"),
        ({"prompt": None}, "row 17 of train: the prompt is null"),
        ({"chosen": None}, "row 17 of train: the chosen is null"),
        ({"rejected": ""}, "row 17 of train: the rejected is empty"),
    ],
)
def test_every_row_of_text_is_checked_not_the_first_alone(refusal, saved, row, said):
    rows = [dict(r) for r in ROWS]
    rows[17] |= row
    assert said in refusal(saved(rows))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": []}, "row 5 of train: the prompt has no messages"),
        ({"prompt": turns(" ")}, "row 5 of train: the prompt is empty"),
        ({"chosen": turns(None, first="assistant")}, "the chosen has a message without content"),
        ({"chosen": turns("Q5", "yes")}, "the chosen answer begins with a turn of user"),
    ],
)
def test_every_conversation_is_checked_not_the_first_alone(refusal, saved, row, said):
    rows = [talk(i) for i in range(20)]
    rows[5] |= row
    assert said in refusal(saved(rows))


def test_conversations_are_recognised(load, saved):
    splits = load(saved([talk(i) for i in range(20)]))
    assert splits.conversational
    assert not splits.tools


def test_text_prompts_with_message_answers_are_refused(refusal, saved):
    rows = [talk(i) | {"prompt": "Q"} for i in range(4)]
    said = refusal(saved(rows))
    assert "prompt is text, chosen is messages, rejected is messages" in said


def test_numbers_as_answers_are_refused(refusal, saved):
    assert "chosen is int64" in refusal(saved([r | {"chosen": 7} for r in ROWS]))


def test_answers_that_repeat_their_prompt_are_refused(refusal, saved):
    rows = [r | {n: r["prompt"] + r[n] for n in ("chosen", "rejected")} for r in ROWS]
    assert "every answer begins with its prompt" in refusal(saved(rows))


def test_in_a_list_prompts_held_out_in_one_are_held_out_in_all(load, saved):
    one = saved(ROWS[:20], ROWS[20:25], name="one")
    # The same prompts but for white space, which the split does not see either.
    two = saved([r | {"prompt": f" {r['prompt']} "} for r in ROWS[15:30]], name="two")
    splits = load(one, two)
    prompts = {prompt.strip() for prompt in splits.train["prompt"]}
    assert not prompts & {f"Q{i}" for i in range(20, 25)}
    assert len(splits.train) == 20 + 15 - 5
    assert len(splits.test) == 5
    assert splits.notes == [
        f"{one}: 20 pairs to train on, 5 held out",
        f"{two}: 10 pairs to train on, 0 held out",
        "train: 5 pairs left out, as their prompts are held out for test",
        "train: 5 pairs stand in another of the datasets too and count twice; convert the raw "
        "files together, which keeps one of each",
    ]


def test_a_conversation_held_out_in_one_is_held_out_in_all(load, saved):
    one = saved([talk(i) for i in range(9)], [talk(9)], name="one")
    named = [message | {"name": None} for message in turns("Q9")]
    two = saved([talk(i) for i in range(8, 12)], name="two")
    assert named[0].keys() > talk(9)["prompt"][0].keys()
    splits = load(two, one)
    assert [turns("Q9")] == list(splits.test["prompt"])
    assert turns("Q9") not in list(splits.train["prompt"])
    assert len(splits.train) == 3 + 9


def test_rows_of_several_datasets_know_which_one_they_came_from(load, raw, saved):
    prompts = [{"prompt": f"other {r['prompt']}"} for r in ROWS]
    other = saved([r | p for r, p in zip(ROWS, prompts, strict=True)], name="other")
    before = files_under(other)
    splits = load(raw, other)
    for row in splits.train:
        assert row["dataset"] == row["prompt"].startswith("other")
        # Only what was converted knows its line.
        assert (row["source"] is None) == row["prompt"].startswith("other")
    assert files_under(other) == before
    assert "dataset" not in load(other).train.column_names


def test_a_raw_file_and_its_conversion_by_another_seed_share_no_prompt(load, raw, tmp_path):
    for seed in (1, 2):
        output = str(tmp_path / f"made-{seed}")
        convert((str(raw),), output=output, test_size=0.3, seed=seed)
    splits = load(raw, tmp_path / "made-1", tmp_path / "made-2")
    assert not set(splits.train["prompt"]) & set(splits.test["prompt"])
    assert {row["dataset"] for row in splits.test} >= {1, 2}


def test_a_dataset_that_is_named_twice_is_refused(refusal, saved):
    path = saved(ROWS)
    again = f"{path.parent}/./{path.name}/"
    said = refusal(path, again)
    assert f"{again!r} is the same dataset as '{path}'; name it once" in said


def test_what_datasets_judge_differently_is_counted(load, saved):
    turned = [r | {"chosen": r["rejected"], "rejected": r["chosen"]} for r in ROWS]
    one = saved([*ROWS[:20], ROWS[3]], ROWS[30:], name="one")
    two = saved(turned[15:22], turned[38:], name="two")
    notes = load(one, two).notes
    assert (
        "train: 5 comparisons are judged both ways by the datasets, and nothing is learned from "
        "such; convert the raw files together, which takes them out"
    ) in notes
    assert any(note.startswith("test: 2 comparisons are judged both ways") for note in notes)
    # A pair that one dataset holds twice is not the matter of several.
    assert not any("count twice" in note for note in notes)


def test_a_dataset_may_be_held_out_whole(load, saved):
    splits = load(saved(ROWS[:9], name="one"), saved(ROWS[9:], ROWS[:9], name="two"))
    assert set(splits.train["prompt"]) == {row["prompt"] for row in ROWS[9:]}
    assert f"{splits.notes[0]}".endswith("one: 0 pairs to train on, 0 held out")


def test_nothing_left_to_train_on_is_refused(refusal, saved):
    one, two = saved(ROWS[:5], ROWS[5:], name="one"), saved(ROWS[5:], ROWS[:5], name="two")
    assert "no rows are left to train on" in refusal(one, two)


def test_datasets_of_other_columns_are_not_joined(refusal, saved):
    one = saved([talk(i) for i in range(9)], name="one")
    named = [{"role": "user", "content": "Q", "name": "Ann"}]
    two = saved([talk(i) | {"prompt": named} for i in range(9, 18)], name="two")
    said = refusal(one, two)
    assert "the datasets cannot be joined" in said and "convert them together" in said
    assert "\n" not in said


@pytest.mark.parametrize("empty", [{}, {"prompt": [], "chosen": [], "rejected": []}])
def test_a_test_split_without_rows_counts_as_none(load, refusal, tmp_path, empty):
    path = tmp_path / "saved"
    splits = {"train": Dataset.from_list(ROWS), "test": Dataset.from_dict(empty)}
    DatasetDict(splits).save_to_disk(str(path))
    loaded = load(path)
    assert (len(loaded.train), loaded.test) == (40, None)
    assert loaded.notes == [f"{path}: its test split has no rows"]
    assert "no test split to evaluate on" in refusal(path, overrides=["eval_strategy=epoch"])


def test_a_train_split_without_rows_is_refused(refusal, tmp_path):
    rows = Dataset.from_list(ROWS)
    DatasetDict({"train": rows.select([]), "test": rows}).save_to_disk(str(tmp_path / "d"))
    rows.select([]).save_to_disk(str(tmp_path / "e"))
    for name in ("d", "e"):
        assert f"{name}: its train split has no rows; convert the raw" in refusal(tmp_path / name)


def test_a_file_of_a_split_without_rows_is_named(refusal, tmp_path):
    Dataset.from_list(ROWS).to_json(str(tmp_path / "d/train.jsonl"))
    (tmp_path / "d/test.jsonl").touch()
    assert "the file of its test split holds no rows; remove it" in refusal(tmp_path / "d")
    (tmp_path / "d/train.jsonl").write_text("")
    assert "its files hold no rows" in refusal(tmp_path / "d")


def test_a_split_by_another_name_is_said_not_to_be_read(load, refusal, saved, tmp_path):
    rows = Dataset.from_list(ROWS)
    DatasetDict({"train": rows, "validation": rows}).save_to_disk(str(tmp_path / "d"))
    splits = load(tmp_path / "d")
    assert splits.test is None
    assert splits.notes == [
        f"{tmp_path}/d: only train and test are read, not validation; save one of them as test to "
        "evaluate on it"
    ]
    said = refusal(tmp_path / "d", overrides=["eval_strategy=epoch"])
    assert "no test split to evaluate on (not read: validation)" in said


def test_text_and_conversations_are_not_mixed_in_a_list(refusal, saved):
    one, two = saved(ROWS, name="one"), saved([talk(i) for i in range(9)], name="two")
    said = refusal(one, two)
    assert "text and messages cannot be mixed" in said
    assert f"{one} has text, {two} has messages" in said


def test_raw_files_in_a_list_are_converted_each(load, raw, tmp_path):
    other = tmp_path / "other.json"
    other.write_text(json.dumps([r | {"prompt": f"other {r['prompt']}"} for r in ROWS]))
    splits = load(raw, other)
    assert len(splits.train) + len(splits.test or []) == 80
    assert {p.name for p in Path(tmp_path / "aside").iterdir() if p.is_dir()} == {
        "dataset-1", "dataset-2",
    }  # fmt: skip


def test_evaluation_without_a_test_split_is_refused(refusal, load, saved):
    path = saved(ROWS)
    said = refusal(path, overrides=["eval_strategy=steps"])
    assert said.startswith("--set eval_strategy=steps: eval_strategy: the data have no test split")
    assert load(path).test is None


def test_rows_without_template_arguments_have_none_rather_than_null(load, tmp_path):
    rows = [talk(i) for i in range(20)]
    rows[3]["chat_template_kwargs"] = {"style": "short"}
    path = tmp_path / "raw.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    splits = load(path)
    kwargs = splits.train["chat_template_kwargs"]
    assert {} in kwargs and None not in kwargs
    assert {"style": "short"} in kwargs


TURN = {"role": "user", "content": "Earlier?"}
PICTURE = {"bytes": b"not decoded", "path": None}


@pytest.mark.parametrize(
    ("column", "value", "what"),
    [
        ("system", "Be brief.", "system texts"),
        ("system_prompt", "Be brief.", "system texts"),
        ("System Message", "Be brief.", "system texts"),
        ("system", {"role": "system", "content": "Be brief."}, "system texts"),
        ("history", [["Hi.", "Hello."]], "earlier turns"),
        ("history", '[["Hi.", "Hello."]]', "earlier turns"),
        ("chat_history", "User: Hi.", "earlier turns"),
        ("messages", [TURN], "earlier turns"),
        ("conversations", [{"from": "human", "value": "Earlier?"}], "earlier turns"),
        ("images", ["a.png"], "media"),
        ("images", [PICTURE], "media"),
        ("Image", "https://example.org/a.png", "media"),
        ("image_path", "a.png", "media"),
        ("img", 17, "media"),
        ("video", "a.mp4", "media"),
        ("audios", [["a.wav"]], "media"),
        ("context", "Rome has seven hills.", "context"),
        ("passages", [{"title": "Rome", "text": "Seven hills."}], "context"),
        ("input", "Rome", "context"),
        ("initial_reason_steps", "Step 1: count.", "context"),
    ],
)
def test_a_column_that_the_model_should_see_is_refused_until_it_is_removed(
    refusal, load, saved, tmp_path, column, value, what
):
    rows = [row | {column: value if i == 31 else None} for i, row in enumerate(ROWS)]
    said = refusal(saved(rows))
    expected = f": the column {column!r} has {what} that the model would not see (row 31 of train)"
    assert expected in said and "\n" not in said
    assert said.endswith(f"; or remove the column: dataset.remove_columns({column!r})")
    dataset = load_from_disk(str(tmp_path / "saved"))
    dataset.remove_columns(column).save_to_disk(str(tmp_path / "without"))
    assert load(tmp_path / "without").notes == []


def test_such_a_column_of_the_test_split_is_refused_too(refusal, saved):
    said = refusal(saved(ROWS[:30], [row | {"context": "Rome."} for row in ROWS[30:]]))
    assert "the column 'context' has context that the model would not see (row 0 of test)" in said


def test_images_are_refused_without_being_decoded(refusal, saved, tmp_path):
    rows = Dataset.from_list([row | {"image": PICTURE} for row in ROWS])
    rows.cast_column("image", Image()).save_to_disk(str(tmp_path / "d"))
    assert "the column 'image' has media" in refusal(tmp_path / "d")


@pytest.mark.parametrize("value", [None, "", " \n", [], [[]], [["", None]], {"bytes": None}, "[]"])
@pytest.mark.parametrize("column", ["system", "history", "images", "context"])
def test_a_column_that_is_empty_in_every_row_is_no_reason(load, saved, column, value):
    path = saved([row | {column: value} for row in ROWS])
    splits = load(path)
    assert splits.train.column_names == ["prompt", "chosen", "rejected"]
    assert splits.notes == [f"{path}: columns not trained on: {column!r}"]


def test_what_the_pair_has_already_is_no_reason(load, saved):
    rows = [
        row
        | {"prompt": [{"role": "system", "content": "Be  brief."}, *row["prompt"]]}
        | {"system": "Be brief.", "messages": [*row["prompt"], *row["chosen"]]}
        for row in map(talk, range(20))
    ]
    assert len(load(saved(rows, name="a")).train) == 20
    rows = [
        row | {"context": "Seven\nhills!", "prompt": f"Context: <Seven hills!> {row['prompt']}"}
        for row in ROWS
    ]
    assert len(load(saved(rows, name="b")).train) == 40


def test_a_part_of_a_word_is_not_what_the_pair_has(refusal, saved):
    rows = [row | {"prompt": "Which?", "history": [["hi", "yes"]]} for row in ROWS]
    assert "the column 'history' has earlier turns" in refusal(saved(rows))


@pytest.mark.parametrize("row", [ROWS[0], talk(0)], ids=["text", "messages"])
@pytest.mark.parametrize("column", ["system", "system_prompt", "System Message"])
def test_the_advice_for_a_system_text_makes_it_the_first_turn(
    refusal, load, saved, tmp_path, row, column
):
    said = refusal(saved([row | {column: "Be brief."}]))
    command = said.split("convert the files: python -m data_tools.convert FILES ")[1].split(";")[0]
    Dataset.from_list([row | {column: "Be brief."}]).to_json(str(tmp_path / "train.jsonl"))
    options = [*shlex.split(command), "-o", str(tmp_path / "made")]
    assert convert_main([str(tmp_path / "train.jsonl"), *options]) == 0
    prompt = load(tmp_path / "made").train[0]["prompt"]
    assert prompt == [{"role": "system", "content": "Be brief."}, *turns("Q0")]


def test_the_advice_for_turns_context_and_media_is_accepted(refusal, load, saved):
    history = {"history": [["Hi.", "Hello."]]}
    said = refusal(saved([talk(i) | history for i in range(9)], name="turns"))
    assert "; put them into prompt, which may be a list of messages; or" in said
    rows = [talk(i) | history | {"prompt": turns("Hi.", "Hello.", f"Q{i}")} for i in range(9)]
    assert len(load(saved(rows, name="turns-put")).train) == 9

    rows = [row | {"context": "Rome has hills."} for row in ROWS]
    assert "; put it into prompt; or" in refusal(saved(rows, name="context"))
    rows = [row | {"prompt": f"{row['context']}\n\n{row['prompt']}"} for row in rows]
    assert len(load(saved(rows, name="context-put")).train) == 40

    rows = [row | {"images": ["a.png"] * (i % 2)} for i, row in enumerate(ROWS)]
    said = refusal(saved(rows, name="media"))
    assert "(row 1 of train); remove the rows that need it, as training reads text alone" in said
    assert len(load(saved([r for r in rows if not r["images"]], name="media-left")).train) == 20


def test_other_columns_are_named_as_not_trained_on(load, saved):
    one = saved([row | {"id": 1, "score\x1b": 0.5} for row in ROWS], name="one")
    two = saved([row | {"prompt": "other"} for row in ROWS], name="two")
    notes = load(one, two).notes
    assert notes[0] == f"{one}: columns not trained on: 'id', 'score\\x1b'"
    assert not any("two: columns" in note for note in notes)


def test_columns_that_convert_was_told_to_keep_are_as_wanted(load, refusal, tmp_path):
    raw = tmp_path / "raw.json"
    raw.write_text(json.dumps([row | {"context": "Rome has hills."} for row in ROWS]))
    assert convert_main([str(raw), "--keep", "context", "-o", str(tmp_path / "made")]) == 0
    assert load(tmp_path / "made").notes == []
    # The same rows without the report are a dataset like any other.
    (tmp_path / "made/report.json").unlink()
    assert "the column 'context' has context" in refusal(tmp_path / "made")


def test_a_report_of_something_else_does_not_make_a_dataset_of_convert(refusal, saved):
    path = saved([row | {"context": "Rome has hills."} for row in ROWS])
    (path / "report.json").write_text("{}")
    assert "the column 'context' has context" in refusal(path)


@pytest.mark.parametrize("column", ["id", "context"])
def test_a_dataset_that_is_checked_is_left_as_it_was(load, saved, column):
    path = saved([row | {column: "Rome has hills."} for row in ROWS])
    before = files_under(path)
    with contextlib.suppress(DataError):
        load(path)
    assert files_under(path) == before

"""The figures: what they count, how they read, and the card that goes with the data."""

import json

import yaml

from data_tools.record import Fault, Pair, Place
from data_tools.report import Figures, Report, as_json, card


def figures(notes=()):
    """Three records: one pair kept in train, one rejected, one that made no pair."""
    found = Figures("hh", "as --format says", ["a.jsonl"], {"to": "arrow"}, list(notes))
    found.keep(Place("a.jsonl", 1, 1), Pair("PPP", "CC", "R", True), ("html",), "train")
    found.count(1, True)
    found.reject(Place("a.jsonl", 2, 2), Fault("duplicate", "the same pair stands at a.jsonl:1"))
    found.count(1, False)
    found.reject(Place("a.jsonl", 4, 3), Fault("bad_json", "x" * 200))
    found.count(0, False)
    found.prompts = {"train": 1, "test": 0, "shared": 0}
    return found


def test_the_counts_add_up():
    found = figures().as_dict()
    assert found["records"] == {"read": 3, "converted": 1, "rejected": 2}
    assert found["pairs"] == {"made": 2, "kept": 1, "rejected": 1}
    assert found["reasons"] == {"bad_json": 1, "duplicate": 1}
    assert found["splits"] == {"train": 1, "test": 0}
    assert found["warnings"] == {"html": 1}


def test_reasons_stand_in_their_order_with_the_first_example_of_each():
    found = figures()
    found.reject(Place("a.jsonl", 9, 9), Fault("bad_json", "later"))
    found = found.as_dict()
    assert list(found["reasons"]) == ["bad_json", "duplicate"]
    assert found["examples"]["bad_json"] == "a.jsonl:4: " + "x" * 200


def test_lengths_and_shares_are_of_the_pairs_that_were_kept():
    found = Figures("hh", "", [], {})
    for i in range(101):
        found.keep(Place("f", i, i), Pair("P" * i, "C" * 2, "R" * (i % 4), i % 4 == 0), (), "train")
    found = found.as_dict()
    assert found["characters"]["prompt"] == {"p5": 5, "p50": 50, "p95": 95, "p100": 100}
    assert found["chosen_longer"] == round(51 / 101, 4)
    assert found["first_answer_wins"] == round(26 / 101, 4)


def test_shares_of_nothing_are_none():
    found = Figures("hh", "", [], {}).as_dict()
    assert found["chosen_longer"] is None
    assert found["first_answer_wins"] is None
    assert found["characters"]["prompt"] == {}


def test_messages_are_measured_by_their_text():
    found = Figures("hh", "", [], {})
    prompt = [{"role": "user", "content": "four"}, {"role": "assistant", "content": None}]
    found.keep(Place("f", 1, 1), Pair(prompt, [prompt[0]] * 2, []), (), "train")
    assert found.as_dict()["characters"]["prompt"]["p100"] == 4
    assert found.as_dict()["characters"]["chosen"]["p100"] == 8


def test_the_text_shows_every_figure_with_one_place_each():
    done = Report(0, figures(["cells are separated by tabs"]).as_dict(), "out", "out/rejects.jsonl")
    assert done.text().splitlines() == [
        "format    hh: as --format says",
        "note      cells are separated by tabs",
        "records   3 read, 1 converted, 2 rejected",
        "pairs     2 made, 1 kept, 1 rejected",
        "          1 bad_json             a.jsonl:4: " + "x" * 88 + "…",
        "          1 duplicate            a.jsonl:2: the same pair stands at a.jsonl:1",
        "          1 html                 kept, but look at them",
        "splits    train 1 pairs (1 prompts), test 0 (0), prompts in both 0",
        "length    prompt   p5 3, p50 3, p95 3, p100 3 characters",
        "length    chosen   p5 2, p50 2, p95 2, p100 2 characters",
        "length    rejected p5 1, p50 1, p95 1, p100 1 characters",
        "chosen is the longer answer in 100.0% of pairs",
        "the first answer wins in 100.0% of pairs",
        "dataset   out",
        'open it   datasets.load_from_disk("out")',
        "rejects   out/rejects.jsonl",
    ]


def test_the_text_says_only_what_there_is():
    empty = Figures("hh", "why", [], {"to": "parquet"})
    empty.count(0, False)
    assert Report(1, empty.as_dict(), reason="no pair was kept").text().splitlines() == [
        "format    hh: why",
        "records   1 read, 0 converted, 1 rejected",
        "pairs     0 made, 0 kept, 0 rejected",
    ]


def test_the_json_is_the_figures():
    found = figures().as_dict()
    assert json.loads(as_json(found)) == found


def test_the_card_has_a_head_that_yaml_reads_and_no_configs_block():
    done = Report(0, figures().as_dict(), "out", None)
    block = 'dataset_info:\n  features:\n  - name: "prompt"\n    dtype: string'
    text = card(done, block)
    head = yaml.safe_load(text.split("---")[1])
    assert head == {
        "tags": ["preference", "dpo"],
        "dataset_info": {"features": [{"name": "prompt", "dtype": "string"}]},
    }
    assert yaml.safe_load(card(done, "").split("---")[1]) == {"tags": ["preference", "dpo"]}


def test_the_card_names_the_source_the_figures_and_how_to_load_it():
    text = card(Report(0, figures().as_dict(), "some/where/out", None), "")
    assert "from 1 file(s):\n\n- `a.jsonl`\n" in text
    assert "records   3 read, 1 converted, 2 rejected" in text
    assert 'datasets.load_from_disk("path/to/this/directory")' in text
    assert "some/where" not in text
    parquet = figures().as_dict() | {"options": {"to": "parquet"}}
    assert "datasets.load_dataset(" in card(Report(0, parquet, "out", None), "")

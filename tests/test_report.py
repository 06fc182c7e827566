"""The figures: what they count, how they read, and the card that goes with the data."""

import json

import pytest
import yaml
from test_figures import figures, keep

from data_tools.agreement import Ballot
from data_tools.figures import Figures
from data_tools.odd import WARNINGS
from data_tools.record import Fault, Pair, Place
from data_tools.report import Report, as_json, card


def lines(found, **more):
    return Report(0, found.as_dict(), **more).text().splitlines()


def test_the_text_shows_every_figure_with_one_place_each():
    done = Report(0, figures(["cells are separated by tabs"]).as_dict(), "out", "out/rejects.jsonl")
    assert done.text().splitlines() == [
        "format    hh: as --format says",
        "note      cells are separated by tabs",
        "records   3 read, 1 converted, 2 rejected",
        "pairs     2 made, 1 kept, 1 rejected",
        "rejected  by reason, with the first place of each",
        "          1 bad_json",
        "            a.jsonl:4: " + "x" * 288 + "…",
        "          1 duplicate",
        "            a.jsonl:2: the same pair stands at a.jsonl:1",
        "repeats   50.0% of the pairs are duplicates, 0.0% contradict each other",
        "odd       kept, but look at them",
        "          1 html                  a.jsonl:1: HTML tags or entities",
        "splits    train 1 pairs (1 prompts), test 0 (0), prompts in both 0; pairs per prompt 1.0",
        "length    prompt   p5 3, p50 3, p95 3, p100 3 characters",
        "length    chosen   p5 2, p50 2, p95 2, p100 2 characters",
        "length    rejected p5 1, p50 1, p95 1, p100 1 characters",
        "length    chosen is the longer answer in 100.0% of pairs, the shorter in 0.0%",
        "labels    the first answer wins in 100.0% of 1 pairs",
        "dataset   out",
        'open it   datasets.load_from_disk("out")',
        "rejects   out/rejects.jsonl",
    ]


def test_the_text_says_only_what_there_is():
    empty = Figures("hh", "why", [], {"to": "parquet"})
    empty.read = 1
    assert Report(1, empty.as_dict(), reason="no pair was kept").text().splitlines() == [
        "format    hh: why",
        "records   1 read, 0 converted, 1 rejected",
        "pairs     0 made, 0 kept, 0 rejected",
    ]


def test_a_bias_of_the_whole_dataset_is_a_warning_and_a_word_beside_its_share():
    found = Figures("hh", "", [], {"to": "arrow"})
    for i in range(100):
        longer, first = i < 20, i < 85
        answers = ("long", "no") if longer else ("no", "long")
        keep(found, "train", (Place("f", i, i), Pair(f"P{i}", *answers, first), ()))
    found.prompts = {"train": 100, "test": 0, "shared": 0}
    assert found.as_dict()["warnings"] == {"first_answer_bias": 85, "length_bias": 80}
    assert found.as_dict()["warning_examples"] == {}
    shown = lines(found)
    assert f"         85 first_answer_bias     {WARNINGS['first_answer_bias']}" in shown
    assert (
        "length    chosen is the longer answer in 20.0% of pairs, the shorter in 80.0%: "
        "a length bias, which a model learns too"
    ) in shown
    assert (
        "labels    the first answer wins in 85.0% of 100 pairs: who judged may favour a position"
    ) in shown


def test_answers_of_equal_length_are_no_length_bias():
    found = Figures("hh", "", [], {})
    for i in range(1000):
        answers = ("ab", "cd") if i < 900 else ("abc", "d") if i % 2 else ("a", "bcd")
        keep(found, "train", (Place("f", i, i), Pair("P", *answers), ()))
    assert found.as_dict()["chosen_longer"] == 0.05
    assert found.as_dict()["warnings"] == {}


def test_prompts_alike_across_the_splits_are_a_warning_with_a_place():
    found = figures()
    found.alike, found.alike_at = 1, "b.jsonl:5"
    found = found.as_dict()
    assert found["warnings"] == {"alike_across_splits": 1, "html": 1}
    assert found["warning_examples"]["alike_across_splits"] == "b.jsonl:5"


def test_agreement_is_told_where_several_judged():
    found = figures()
    found.ballot(Ballot(b"x", (("ann", 0), ("bob\x1b[2J", 0), ("cat", 1))))
    found.ballot(Ballot(b"y", (("ann", None), ("cat", None))))
    found.ballot(Ballot(b"z", (("ann", 1),)))
    assert found.as_dict()["agreement"]["disagreeing"] == 1
    shown = lines(found)
    start = shown.index("judges    3 annotators, 3 comparisons, 2 of them judged by several")
    # Coincidences off the diagonal: 2 pairs of ways, of n = 5 with 2, 1 and 2: 1 - 4 · 2 / 16.
    assert shown[start + 1 :] == [
        "judges    Krippendorff's alpha 0.500 (1 is agreement, 0 is chance)",
        "judges    they disagree on 1 of 2 (50.0%): a ceiling for any model",
        "judges    the majority calls 1 a tie",
        "          judgements  differs  first wins    ties  annotator",
        "                   3     0.0%       50.0%   33.3%  'ann'",
        "                   2    50.0%        0.0%   50.0%  'cat'",
        "                   1     none      100.0%    0.0%  'bob\\x1b[2J'",
        "          differs: from the majority of the others, where they have one",
    ]


def test_annotators_who_never_met_are_shown_without_agreement():
    found = figures()
    found.ballot(Ballot(b"x", (("ann", 0),)))
    found.ballot(Ballot(b"y", (("bob", 0),)))
    shown = lines(found)
    start = shown.index("judges    2 annotators, 2 comparisons, 0 of them judged by several")
    assert shown[start + 1 :] == [
        "          judgements  differs  first wins    ties  annotator",
        "                   1     none      100.0%    0.0%  'ann'",
        "                   1     none      100.0%    0.0%  'bob'",
    ]


def test_displays_have_an_end_and_counts_have_none():
    found = figures([f"note {i}" for i in range(15)])
    found.inputs = [f"part-{i}.jsonl" for i in range(30)]
    found.ballot(Ballot(b"x", tuple((f"a{i:02}", 0) for i in range(25))))
    shown = lines(found)
    assert sum(line.startswith("note ") for line in shown) == 11
    assert "note      5 more in report.json" in shown
    assert sum(line.endswith("'") for line in shown) == 10
    assert "          and 15 more in report.json" in shown
    text = card(Report(0, found.as_dict(), "out"), "")
    assert "from 30 file(s)" in text
    assert "- `part-19.jsonl`\n- and 10 more, which `report.json` names\n" in text
    assert len(found.as_dict()["agreement"]["per_annotator"]) == 25


def test_nothing_that_a_terminal_would_obey_is_shown():
    found = figures(["a column \x1b[31m"])
    found.inputs = ["a\nb.jsonl"]
    found.reject(Place("a\x07\u202e.jsonl", 9, 9), Fault("tie", "\x9b2J"))
    done = Report(0, found.as_dict(), "o\x1b]0;", "o\x1b]0;/rejects.jsonl")
    for text in (done.text(), card(done, "")):
        assert all(line.isprintable() for line in text.splitlines())
        assert r"a\x07\u202e.jsonl:9: \x9b2J" in text
    assert 'open it   datasets.load_from_disk("o\\u001b]0;")' in done.text()
    assert "- `a\\nb.jsonl`\n" in card(done, "")


@pytest.mark.parametrize("name", ["out", 'a "b"', "a\\b", "über"])
def test_the_line_that_opens_the_dataset_is_python(name):
    line = next(x for x in lines(figures(), output=name) if x.startswith("open it"))
    assert eval(line.split("load_from_disk")[1]) == name


def test_the_json_is_the_figures():
    found = figures()
    found.ballot(Ballot(b"x", (("ann", 0), ("bob", 1))))
    found = found.as_dict()
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


def test_the_card_says_first_what_it_is_from_which_files_how_many_and_how_to_load_it():
    text = card(Report(0, figures().as_dict(), "some/where/out", None), "")
    assert text.split("---\n\n")[1].startswith(
        "# Preference pairs\n\n"
        "1 pairs, 1 in `train` and 0 in `test`: which of two answers to a prompt was preferred.\n"
        "Prompts in both splits: 0.\n\n"
        "Converted by `python -m data_tools.convert` from 1 file(s) of the format `hh`:\n\n"
        "- `a.jsonl`\n\n"
        "## Load it\n\n"
        "```python\nimport datasets\n\n"
        'dataset = datasets.load_from_disk("path/to/this/directory")\n```\n\n'
        "| column | what |\n|---|---|\n"
    )
    assert "records   3 read, 1 converted, 2 rejected" in text
    assert "some/where" not in text
    parquet = figures().as_dict() | {"options": {"to": "parquet"}}
    assert "datasets.load_dataset(" in card(Report(0, parquet, "out", None), "")


def test_the_card_names_the_columns_that_were_kept():
    found = figures().as_dict() | {"options": {"to": "arrow", "keep": ("id", "a|b")}}
    text = card(Report(0, found, "out", None), "")
    assert "| `id` | as in the records |\n| `a\\|b` | as in the records |\n\n## Figures" in text

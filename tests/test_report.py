"""The figures of a conversion: what they count, how they are shown, and the dataset's card."""

import json
import random
from pathlib import Path

import pytest
import yaml
from converting import convert, pair, write_lines


def judgement(prompt, label, who, first="A", second="B"):
    answers = {"prompt": prompt, "response_a": first, "response_b": second}
    return answers | {"preference": label, "annotator_id": who}


JUDGED = [
    judgement("PPP", "a", "ann", "<br>C", "R"),
    judgement("PPP", "b", "bob\x1b[2J", "R", "<br>C"),
    judgement("PPP", "b", "cat", "<br>C", "R"),
    judgement("Q", "tie", "ann"),
    judgement("Q", "tie", "cat"),
    judgement("S", "b", "ann"),
    judgement("S", "b", "ann"),
    judgement("T", "neither of them", "ann"),
]


def test_the_text_shows_every_figure_with_the_first_place_of_each(convert_file):
    done = convert_file(JUDGED, "--sheet", "none")
    assert done.out.splitlines() == [
        "format    labelled-pairs: 8 of the first 8 records fit; columns annotator_id, preference, "
        "prompt, response_a, response_b",
        "note      --sheet none has no effect: no input is .xlsx",
        "records   8 read, 4 converted, 4 rejected",
        "pairs     3 made, 2 kept, 1 rejected",
        "rejected  by reason, with the first of each",
        "          1 unknown_label",
        "            raw.jsonl:8: the label 'neither of them' names no answer; known are "
        "response_a, response_b, A, B, first, second, tie; define it with --label",
        "          1 tie",
        "            raw.jsonl:4: the judgement is that neither answer is better; remove the pair, "
        "or label the better one",
        "          1 duplicate",
        "            raw.jsonl:7: the same annotator's judgement of the same two answers is at "
        "raw.jsonl:6, which counts",
        "warnings  kept, but worth a look",
        "          1 html                  raw.jsonl:1: HTML tags or entities",
        "splits    train 2 pairs (2 prompts), test 0 (0), prompts in both 0; pairs per prompt 1.0",
        "length    prompt   p5 1, p50 1, p95 3, p100 3 characters",
        "length    chosen   p5 1, p50 1, p95 5, p100 5 characters",
        "length    rejected p5 1, p50 1, p95 1, p100 1 characters",
        "length    chosen is the longer answer in 50.0% of pairs, the shorter in 0.0%",
        "labels    the first answer wins in 50.0% of 2 pairs",
        "labels    25.0% of the judgements are ties",
        "judges    3 annotators, 3 comparisons, 2 judged by several",
        # Coincidences off the diagonal: 2 pairs of ways, of n = 5 with 2, 1 and 2: 1 - 4 · 2 / 16.
        "judges    Krippendorff's alpha 0.500 (1 is agreement, 0 is chance)",
        "judges    they disagree on 1 of 2 (50.0%), which limits the accuracy of any model",
        "judges    1 are a tie by majority",
        "          judgements  differs  first wins    ties  annotator",
        "                   3     0.0%       50.0%   33.3%  'ann'",
        "                   2    50.0%        0.0%   50.0%  'cat'",
        "                   1     none        0.0%    0.0%  'bob\\x1b[2J'",
        "          differs: from the majority of the others, where they have one",
        "dataset   out",
        'open it   datasets.load_from_disk("out")',
        "rejects   out/rejects.jsonl",
    ]


def test_lengths_and_shares_are_of_the_pairs_that_are_kept(convert_file):
    records = [judgement("P" * i, "a" if i % 4 else "b", "ann") for i in range(1, 101)]
    for i, record in enumerate(records, start=1):
        record |= {"response_a": "AA", "response_b": "b" * (i % 5 + 1)}
    random.Random(0).shuffle(records)
    found = convert_file([*records, judgement("P" * 500, "a", "ann", "", "B")]).report
    assert found["characters"]["prompt"] == {"p5": 6, "p50": 51, "p95": 95, "p100": 100}
    assert (found["first_answer_wins"], found["ordered_pairs"]) == (0.75, 100)
    # The answers are equally long for i % 5 == 1; the second is shorter for i % 5 == 0.
    longer = sum((i % 5 == 0) if i % 4 else (i % 5 > 1) for i in range(1, 101))
    shorter = sum((i % 5 > 1) if i % 4 else (i % 5 == 0) for i in range(1, 101))
    assert (found["chosen_longer"], found["chosen_shorter"]) == (longer / 100, shorter / 100)


def test_repeats_are_shares_of_all_pairs_and_ties_of_all_judgements(convert_file):
    judged = [judgement(f"P{i}", "a", None) for i in range(4)]
    for record in judged:
        del record["annotator_id"]
    twice = [judged[0], judged[1], judged[1] | {"preference": "b"}]
    ties = [record | {"preference": "tie"} for record in judged[:2]]
    found = convert_file([*judged, *twice, *ties, {"prompt": "P"}]).report
    assert (found["duplicates"], found["contradictions"]) == (round(1 / 7, 4), round(3 / 7, 4))
    assert found["ties"] == round(2 / 9, 4)


def test_shares_of_nothing_are_none(tmp_path):
    raw = write_lines(tmp_path / "raw.jsonl", [pair(chosen="")])
    found = convert((raw,), check=True).figures
    names = ("chosen_longer", "chosen_shorter", "first_answer_wins", "pairs_per_prompt")
    assert {found[name] for name in names} == {None}
    assert (found["agreement"], found["warnings"], found["warning_examples"]) == (None, {}, {})
    assert found["characters"]["prompt"] == {}


def test_a_bias_of_the_whole_dataset_is_a_warning_and_is_shown_with_its_share(convert_file):
    records = []
    for i in range(100):
        won, lost = ("long", "no") if i < 20 else ("no", "long")
        answers, label = ((won, lost), "a") if i % 20 < 17 else ((lost, won), "b")
        records.append(judgement(f"P{i}", label, "ann", *answers))
    done = convert_file(records)
    assert done.report["warnings"] == {"first_answer_bias": 85, "length_bias": 80}
    assert done.report["warning_examples"] == {}
    for line in (
        "         85 first_answer_bias     one position wins far more often than the other",
        "length    chosen is the longer answer in 20.0% of pairs, the shorter in 80.0%",
        "labels    the first answer wins in 85.0% of 100 pairs",
    ):
        assert line in done.out.splitlines()


def test_lists_that_are_shown_are_cut_and_those_of_report_json_are_not(convert_file):
    names = [f"part-{i:02}.jsonl" for i in range(25)]
    for name in names:
        write_lines(name, [judgement("P", "a", f"ann of {name}")])
    repeated = [*names[:12], *names]
    done = convert_file([judgement("P", "a", "ann")], *repeated, "--workers", "1")
    shown = done.out.splitlines()
    assert sum(line.startswith("note ") for line in shown) == 11
    assert "note      2 more in report.json" in shown
    assert sum(line.endswith("'") for line in shown) == 10
    assert "          16 more in report.json" in shown
    assert len(done.report["agreement"]["per_annotator"]) == 26
    text = Path("out/README.md").read_text()
    assert "from 26 file(s)" in text
    assert "- `part-08.jsonl`\n- 16 more in report.json\n" in text


def test_no_control_character_of_the_data_reaches_the_terminal_or_the_card(convert_file):
    records = [pair(1), pair(1), pair(2, prompt=None), {"\x9b2J": "x", **pair(3, chosen="")}]
    name = "a\x07\u202e\nb.jsonl"
    done = convert_file(records, "--keep", "\x9b2J", name=name)
    card = Path("out/README.md").read_text()
    for text in (done.out, card):
        assert all(line.isprintable() for line in text.splitlines())
        assert r"a\x07\u202e\nb.jsonl:2: the same pair is at a\x07\u202e\nb.jsonl:1" in text
    assert r"| `\x9b2J` | as in the records |" in card
    shown = convert_file(records, "--json", name=name).out
    assert all(line.isprintable() for line in shown.splitlines())
    assert json.loads(shown)["inputs"] == [name]


@pytest.mark.parametrize("name", ["out", 'a "b"', "a\\b", "über", "o\x1b]0;"])
@pytest.mark.parametrize("to", ["arrow", "parquet"])
def test_the_line_that_opens_the_dataset_is_python(tmp_path, monkeypatch, name, to):
    monkeypatch.chdir(tmp_path)
    raw = write_lines("raw.jsonl", [pair()])
    lines = convert((raw,), name, to=to).text().splitlines()
    (line,) = [line for line in lines if line.startswith("open it   ")]
    call, _, argument = line.removeprefix("open it   ").partition("(")
    assert call == {"arrow": "datasets.load_from_disk", "parquet": "datasets.load_dataset"}[to]
    assert line.isprintable() and eval(argument.removesuffix(")")) == name


@pytest.mark.parametrize("to", ["arrow", "jsonl"])
def test_the_card_has_a_yaml_head_without_a_configs_block(convert_file, to):
    assert convert_file([pair()], "--to", to).status == 0
    head = yaml.safe_load(Path("out/README.md").read_text().split("---")[1])
    assert head.pop("tags") == ["preference", "dpo"]
    types = [{"name": n, "dtype": "string"} for n in ("prompt", "chosen", "rejected", "source")]
    assert head == ({} if to == "arrow" else {"dataset_info": {"features": types}})


def test_the_card_says_what_it_is_from_which_files_and_how_to_load_it(convert_file):
    done = convert_file([pair(1, **{"a|b": "x"}), pair(1)], "--keep", "a|b")
    text = Path("out/README.md").read_text()
    assert text.split("---\n\n")[1].startswith(
        "# Preference pairs\n\n"
        "1 pairs, 1 in `train` and 0 in `test`: which of two answers to a prompt was preferred.\n"
        "Prompts in both splits: 0.\n\n"
        "Converted by `python -m data_tools.convert` from 1 file(s) of the format `preference`:\n\n"
        "- `raw.jsonl`\n\n"
        "## Load it\n\n"
        "```python\nimport datasets\n\n"
        'dataset = datasets.load_from_disk("path/to/this/directory")\n```\n\n'
        "| column | content |\n|---|---|\n"
    )
    assert "| `a\\|b` | as in the records |\n\n## Figures\n\n```text\nformat    preference" in text
    assert done.out.partition("\ndataset ")[0] in text


def test_a_place_with_a_long_detail_is_cut_at_its_end(convert_file):
    name = f"{'long' * 60}.jsonl"
    done = convert_file([pair(), pair(2, chosen="")], name=name)
    (line,) = [line for line in done.out.splitlines() if line.startswith(f"            {name}:2: ")]
    assert line.endswith("…") and len(line) == 12 + 300
    assert done.report["examples"]["empty_response"] == f"{name}:2: {done.rejects[0]['detail']}"

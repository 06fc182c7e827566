"""report.html: complete, self-contained, and safe for any content of data, model and config."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
from training import metrics, runner

from dpo_wrap import eval as eval_command
from dpo_wrap.report.page import WIDTH, Curve, line_chart, outline, page, ticks, write_page

EVIL = "<script>document.title = 0</script><img src='//evil.example' onerror=alert(1)>"
LOADING = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"}


class Parsed(HTMLParser):
    """The elements of a page with their attributes, and its texts with the element around each.

    A page that is not well-formed, loads something or runs a script fails an assertion.
    """

    def __init__(self, source):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(source)
        self.close()
        self.source = source
        self.text = "\n".join(data for tag, data in self.texts if tag != "style")
        self.headings = [data for tag, data in self.texts if tag == "h2"]
        assert self.open == []
        tags = {tag for tag, _ in self.elements}
        assert not tags & {"script", "link", "iframe", "img", "object", "embed", "base", "a"}
        for _, attributes in self.elements:
            assert not attributes.keys() & LOADING
            assert not any(name.startswith("on") for name in attributes)
        assert not re.search(r"url\(|@import|https?:|//\w", source.replace("//evil.example", ""))
        policy = next(a["content"] for _, a in self.elements if "http-equiv" in a)
        assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))


@pytest.fixture
def shown(tmp_path):
    """A function that writes files of a run directory, as JSON unless they are text, and its page.

    `eval__json={...}` is the file eval.json; a list becomes JSON Lines.
    """

    def show(**files):
        for name, content in files.items():
            if isinstance(content, list):
                content = "".join(json.dumps(line) + "\n" for line in content)
            elif not isinstance(content, str):
                content = json.dumps(content)
            (tmp_path / name.replace("__", ".")).write_text(content, "utf-8")
        return Parsed(page(tmp_path))

    return show


RUN = {
    "verdict": "learned: the margin rose to 1.75",
    "figures": {"first_loss": 0.6931, "loss": 0.3, "reward_accuracy": 0.9, "reward_margin": 1.75},
    "steps": 3,
    "data": {"train": 1200, "fit": {"train": {"pairs": 1200, "lengths": {"pair": [5, 6, 7, 9]}}}},
    "versions": {"trl": "1.16.0"},
}
LINES = [
    {"step": step, "loss": 0.7 - step / 10, "rewards/accuracies": 0.5, "rewards/margins": step}
    | {"rewards/chosen": step / 2, "rewards/rejected": -step / 2}
    for step in (1, 2, 3)
]
FOUND = {
    "examples": 40,
    "split": "test",
    "steps": 3,
    "reward_accuracy": 0.95,
    "reward_accuracy_interval": [0.9, 0.98],
    "reward_margin": 1.5,
    "kl_per_sequence": None,
    "slices": {
        "data/one": {"examples": 30, "reward_accuracy": 0.9},
        "data/two": {"examples": 10, "reward_accuracy": 1.0},
    },
    "groups": {
        "annotator": {
            "ann": {"reward_accuracy": 0.25, "examples": 80, "ties": 0}
            | {"reward_accuracy_interval": [0.1, 0.45]},
            "bob": {"reward_accuracy": 0.25, "examples": 80, "ties": 50}
            | {"reward_accuracy_interval": [0.1, 0.45]},
        }
    },
    "findings": [
        {"tone": "good", "text": "it prefers the chosen answer in 95.0%"},
        {"tone": "warning", "text": "annotator ann: chosen and rejected look swapped"},
    ],
    "baselines": {"longer": {"accuracy": 0.61, "accuracy_interval": [0.5, 0.7]}},
    "length_matched": {
        "accuracy": 0.72,
        "accuracy_interval": [0.6, 0.8],
        "bins": [{"from": 1.0, "to": 1.1, "accuracy_where_longer": 0.81, "chosen_longer": 33}],
    },
    "calibration": {"bins": [{"confidence": 0.74, "accuracy": 0.66, "pairs": 12}]},
    "likelihood_margins": {"edges": [-1, 0, 1], "reference": [20, 20], "policy": [5, 35]},
    "eos_rate": {"reference": 1.0, "policy": 0.985},
    "metrics": {"sentiment": {"reference": 0.1, "policy": 0.5, "change": 0.4}},
    "against_label": [
        {"source": "raw.csv:17", "reward_margin": -2.25, "prompt": "P?"}
        | {"chosen": "called better", "rejected": "called worse"}
    ],
    "win_rate": {"win_rate": 0.625, "win_rate_interval": [0.5, 0.75], "pairs": 8},
    "against": {
        "run": "checkpoints/other",
        "differences": {"reward_accuracy": {"here": 0.95, "there": 0.9, "difference": 0.05}},
    },
}
SAMPLE = {"prompt": "Q: why?", "reference": "no idea", "policy": "because"}
SUSPECT = {"source": "raw.csv:99", "reward_margin": -3.5, "prompt": "S?"}


def run_with(text):
    """The files of a run with this text wherever data, a model or a config may put it."""
    found = {
        "findings": [{"tone": text, "text": text}] * 2,
        "slices": {text: {"reward_accuracy": 1}},
        "groups": {text: {text: {"reward_accuracy": 0.5, "examples": 10}}},
        "metrics": {text: {"reference": 1, "policy": 1}},
        "against": FOUND["against"] | {"run": text},
        "reward_margin": 1e12,
    }
    run = {"verdict": text, "warnings": [{"lines": [text]}], "notes": [text]}
    return {
        "run__json": RUN | run | {"step_0": {"fault": text}, "versions": {text: text}},
        "eval__json": FOUND | found,
        "samples__jsonl": [dict.fromkeys(SAMPLE, text)],
        "suspects__json": {"crowds": [text]},
        "suspects__jsonl": [dict.fromkeys([*SUSPECT, "chosen", "rejected", text], text)],
    }


def test_the_page_holds_every_part_of_a_run_and_the_verdict_comes_first(shown):
    found = shown(
        run__json=RUN,
        metrics__jsonl=LINES,
        eval__json=FOUND,
        samples__jsonl=[SAMPLE],
        config__resolved__yaml="beta: 0.1\n",
    )
    for text in (
        *("from 0.6931", "0.3000", "0.950", "[0.900, 0.980]", "1,200", "held-out accuracy"),
        *("no idea", "because", "beta: 0.1", "1.16.0", "5, 6, 7, 9", "rewards", "reward margin"),
        *("data/one (30)", "data/two (10)", "ann (80)", "25.0%", "98.5%", "+0.400", "+0.050"),
        *("always the longer answer", "this policy, length-matched", "72.0%", "1–1.1 times longer"),
        *("81.0%", "74% (12)", "66.0%", "raw.csv:17, margin -2.25", "called better", "0.625"),
    ):
        assert text in found.text
    assert found.headings == [
        *("Does it prefer the chosen answers?", "Labels to look at"),
        *("How far is it from the reference?", "Win rate by judges", "Against checkpoints/other"),
        *("Samples", "Training", "Data", "More"),
    ]
    order = ("it prefers the chosen", "learned: the margin", "look swapped")
    order += ("held-out accuracy", "61.0%", "Q: why?")
    places = [found.text.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize("tone", ["good", "warning", "neutral"])
def test_the_headline_has_the_style_of_its_tone(shown, tone):
    found = shown(run__json=RUN, eval__json=FOUND | {"findings": [{"tone": tone, "text": "so"}]})
    assert ("p", {"class": f"verdict {tone}", "dir": "auto"}) in found.elements


def test_bars_are_as_long_as_their_shares_and_a_group_surely_below_chance_is_marked(shown):
    found = shown(run__json=RUN, eval__json=FOUND)
    bars = [(a["width"], a["class"]) for tag, a in found.elements if tag == "rect"]
    assert bars[:3] == [("95.0%", "policy"), ("72.0%", "policy"), ("61.0%", "baseline")]
    # Fifty of bob's eighty pairs are ties, which contradict no label.
    assert bars[3:5] == [("25.0%", "below"), ("25.0%", "policy")]
    intervals = [a for tag, a in found.elements if a.get("class") == "interval"]
    assert (intervals[0]["x1"], intervals[0]["x2"]) == ("90.0%", "98.0%")


def test_nan_and_inf_are_gaps_and_a_point_between_gaps_is_a_dot():
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 4.0, 5.0, 6.0]
    chart = line_chart("x", [Curve("a", "one", list(enumerate(values)))], 0.0)
    assert [len(points(line)) for line in chart["lines"]] == [2, 3] and len(chart["dots"]) == 1


def test_the_curves_have_a_point_for_each_logged_line_and_evaluations_a_dot(shown):
    held_out = [{"step": 2, "eval_loss": 0.5, "eval_rewards/accuracies": 1.0}]
    found = shown(run__json=RUN, metrics__jsonl=LINES + held_out)
    lines = [a["points"] for tag, a in found.elements if tag == "polyline"]
    # Loss, accuracy and margin of training, chosen and rejected rewards.
    assert [len(line.split()) for line in lines] == [3] * 5
    assert found.source.count("<circle") == 2
    # A line of one point would be invisible.
    assert shown(run__json=RUN, metrics__jsonl=LINES[:1]).source.count("<circle") == 5


def test_a_row_is_shown_where_only_its_first_value_is_missing(shown):
    metrics = {"new": {"reference": None, "policy": 0.515}, "gone": {"reference": None}}
    found = shown(run__json=RUN, eval__json=FOUND | {"metrics": metrics})
    assert "0.515" in found.text and "new" in found.text and "gone" not in found.text


def test_suspects_out_of_fold_replace_those_of_the_evaluation(shown):
    search = {"pairs": 3180, "crowds": ["team b: 9 of its 20 pairs are suspect"]}
    many = [SUSPECT | {"prompt": f"S{number}?", "team": "b"} for number in range(50)]
    text = shown(run__json=RUN, eval__json=FOUND, suspects__jsonl=many, suspects__json=search).text
    assert "raw.csv:99, margin -3.50, team b" in text and "raw.csv:17" not in text
    assert "50 of 3,180 pairs for which a policy that was not trained" in text
    assert "team b: 9 of" in text
    assert "S29?" in text and "S30?" not in text and "20 more in suspects.jsonl" in text


def test_samples_that_training_changed_come_first(shown):
    samples = [{"prompt": f"Q{n}?", "reference": "x", "policy": "x" * n} for n in range(1, 70)]
    text = shown(run__json=RUN, eval__json=FOUND, samples__jsonl=samples).text
    assert text.index("Q2?") < text.index("Q64?") and "Q66?" not in text and "Q1?" not in text
    assert "1 of 69 answers are identical" in text and "5 more in samples.jsonl" in text


def test_markup_from_data_model_or_config_stays_text(shown):
    found = shown(**run_with(EVIL), config__resolved__yaml=EVIL)
    assert found.text.count(EVIL) == 24 and EVIL not in found.source


def test_control_characters_and_lone_surrogates_are_replaced(shown, tmp_path):
    sample = {"prompt": "\x00\ud800\u202e\x1babc\n\t", "policy": "\u2028", "reference": ""}
    shown(run__json=RUN, eval__json=FOUND, samples__jsonl=[sample])
    write_page(tmp_path)
    assert "\ufffd\ufffd\u202e\ufffdabc\n\t" in (tmp_path / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.glob("report*")] == ["report.html"]


def test_missing_files_and_lines_that_were_cut_off_leave_their_sections_out(shown):
    empty = shown()
    assert "no finished run in this directory" in empty.text and empty.headings == []
    found = shown(run__json="{", metrics__jsonl='{"step": 1, "loss": 0.6}\n{"ste')
    assert found.headings == ["Training", "More"]


@pytest.mark.parametrize("value", [None, "text", True, [1], {}, 10**400, [[[1]]]], ids=str)
def test_an_evaluation_of_another_version_is_left_out_with_a_warning(shown, value):
    damaged = FOUND | dict.fromkeys(set(FOUND) - {"split", "steps"}, value)
    found = shown(run__json=RUN, eval__json=damaged, samples__jsonl=[{"prompt": value}])
    assert "learned: the margin rose to 1.75" in found.text
    assert "is damaged or was written by another version; run python -m dpo_wrap.eval" in found.text
    found = shown(run__json=RUN, suspects__jsonl=[{"source": value, "prompt": value}])
    assert "learned: the margin rose to 1.75" in found.text
    found = shown(run__json=RUN, metrics__jsonl=[*LINES, {"step": 9, "loss": value}, {"loss": 1}])
    assert "learned: the margin rose to 1.75" in found.text
    shown(run__json=RUN | dict.fromkeys(set(RUN) - {"steps"}, value))


def test_paths_and_texts_of_any_length_fit_on_the_page(shown):
    run = RUN | {"config": {"dataset_path": ["d" * 200]}}
    sample = SAMPLE | {"prompt": "p" * 100_000}
    found = shown(run__json=run, eval__json=FOUND, samples__jsonl=[sample])
    assert "(100,000 characters)" in found.text and len(found.text) < 50_000


def test_warnings_of_the_run_are_above_the_curves(shown):
    flat = {"step": 20, "what": "flat", "lines": ["the margin is flat", "raise learning_rate"]}
    run = RUN | {"warnings": [flat], "step_0": {"fault": "step 0 has a margin of 0.2"}}
    text = shown(run__json=run, metrics__jsonl=LINES).text
    order = ["step 0 has a margin of 0.2", "the margin is flat\nraise", "reward margin"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_an_evaluation_of_older_weights_is_not_shown(shown):
    found = shown(run__json=RUN | {"steps": 9}, eval__json=FOUND, samples__jsonl=[SAMPLE])
    assert "eval.json was computed at step 3" in found.text
    assert "Q: why?" not in found.text and "0.950" not in found.text


def test_the_conversions_of_a_directory_and_of_a_raw_file_are_shown(shown, tmp_path):
    report = {"format": "preference", "records": {"read": 9}, "pairs": {"made": 9, "kept": 7}}
    for name in ("made", "dataset-2"):
        (tmp_path / name).mkdir()
        content = json.dumps(report | {"reasons": {"tie": 2}, "evidence": name})
        (tmp_path / name / "report.json").write_text(content)
    paths = [str(tmp_path / "made"), "raw.csv", "someone/hub"]
    text = shown(run__json=RUN | {"config": {"dataset_path": paths}}).text
    assert f"conversion of {paths[0]}" in text and "dataset-2" in text
    assert "raw.csv: 9 records read, 7 pairs kept; rejected: tie 2" in text
    assert "someone/hub" not in text
    (tmp_path / "made/report.json").write_text('{"format": "of another program"}')
    assert "conversion of" not in shown(run__json=RUN | {"config": {"dataset_path": paths[0]}}).text


def test_train_writes_the_page_and_eval_refreshes_it(tiny_model_dir, tmp_path):
    status, out = runner(tiny_model_dir, tmp_path)()
    assert status == 0
    before = Parsed((out / "report.html").read_text("utf-8"))
    first, _, rest = json.loads((out / "run.json").read_text())["verdict"].partition(". ")
    assert first in before.text and rest in before.text
    assert "learning_rate: 0.01" in before.text and "pairs kept" in before.text
    assert "Samples" not in before.headings
    loss = next(a["points"] for tag, a in before.elements if tag == "polyline")
    assert len(loss.split()) == len(metrics(out)) == 3
    config = str(out / "config.resolved.yaml")
    words = ("--split", "train", "--samples", "2", "--max-new-tokens", "4")
    assert eval_command.main([config, *words]) == 0
    after = Parsed((out / "report.html").read_text("utf-8"))
    for line in (out / "samples.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line)["prompt"] in after.text
    assert after.headings[0] == "Does it prefer the chosen answers?"


# Charts: every point has its position, NaN and inf are gaps, lone points are dots.


def points(line):
    _, text = line
    return [tuple(map(float, pair.split(","))) for pair in text.split()]


def test_a_curve_has_a_position_for_each_point_and_falls_where_its_values_fall():
    chart = line_chart("loss", [Curve("training", "one", [(n, 1 / n) for n in range(1, 51)])], 0.0)
    (line,) = chart["lines"]
    assert len(points(line)) == 50 and chart["dots"] == []
    # y grows downwards.
    assert points(line) == sorted(points(line))
    assert [y for _, y in points(line)] == sorted(y for _, y in points(line))
    assert (points(line)[0][0], points(line)[-1][0]) == (0, WIDTH)
    assert [label for *_, label in chart["labels"]] == ["step 1", "step 50"]


def test_a_histogram_is_as_high_as_its_counts_between_its_edges():
    curve = Curve("after", "one", outline([-1.0, 0.0, 3.0], [5.0, 35.0]))
    chart = line_chart("x", [curve], 0.0, vertical=0.0, x_format="{:.3g}")
    floor = chart["level"]
    start, *corners, end = [(x, floor - y) for x, y in points(chart["lines"][0])]
    assert (start, end) == ((0, 0), (WIDTH, 0))
    zero = chart["vertical"]
    assert zero == pytest.approx(WIDTH / 4, abs=0.1)
    assert [x for x, _ in corners] == [0, zero, zero, WIDTH]
    low, same, high, same_high = [y for _, y in corners]
    assert low == same and high == same_high == pytest.approx(7 * low, rel=0.02)


@pytest.mark.parametrize("low", [-3.0, 0.0, 0.69, 1e6])
@pytest.mark.parametrize("size", [0.013, 0.1, 0.7, 1.0, 4.9, 99.0, 1e9])
def test_ticks_are_few_and_round(low, size):
    marks = ticks(low, low + size)
    assert 3 <= len(marks) <= 6
    assert low <= marks[0] and marks[-1] <= low + size * 1.0001

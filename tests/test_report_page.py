"""report.html: complete, by itself, and safe whatever the data, the model and the config say."""

import json
import math
import re
from html.parser import HTMLParser

import pytest
from training import metrics, runner

from dpo_wrap import eval as eval_command
from dpo_wrap.report.page import page, write_page
from dpo_wrap.report.run_files import read_pieces

EVIL = "<script>alert(1)</script>"
FETCHING = ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background")


class Parsed(HTMLParser):
    """The elements of a page, the text by the element that it stands in, and what is left open."""

    VOID = {"meta"}

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.open[-1] if self.open else "", data))

    def said(self):
        return "\n".join(data for place, data in self.texts if place != "style")

    def names(self):
        return {tag for tag, _ in self.elements}


def checked(text):
    """The parsed page, which is well-formed and fetches nothing."""
    found = Parsed(text)
    assert found.open == []
    assert not found.names() & {"script", "link", "iframe", "img", "object", "embed", "base", "a"}
    for _, attributes in found.elements:
        assert not attributes.keys() & set(FETCHING)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"url\(|@import|https?:|//\w", text)
    policy = next(a["content"] for _, a in found.elements if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    return found


@pytest.fixture
def filled(tmp_path):
    """A function that makes a run directory of these files: text, or values to be JSON."""

    def fill(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", ".")
            if isinstance(content, list):
                content = "".join(json.dumps(line) + "\n" for line in content)
            elif not isinstance(content, str):
                content = json.dumps(content)
            path.write_text(content, "utf-8")
        return checked(page(read_pieces(tmp_path)))

    return fill


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
    "groups": {"annotator": {"ann": {"reward_accuracy": 0.25, "examples": 8}}},
    "findings": [
        {"tone": "good", "text": "it prefers the chosen answer in 95.0%"},
        {"tone": "warning", "text": "annotator ann: they look turned round"},
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
SEARCH = {"pairs": 3180, "crowds": ["team b: 9 of its 20 pairs are suspect"]}
SUSPECT = {"source": "raw.csv:99", "reward_margin": -3.5, "prompt": "S?"}


def test_the_page_holds_every_part_of_a_run(filled):
    found = filled(
        run__json=RUN,
        metrics__jsonl=LINES,
        eval__json=FOUND,
        samples__jsonl=[{"prompt": "Q: why?", "reference": "no idea", "policy": "because"}],
        config__resolved__yaml="beta: 0.1\n",
    )
    said = found.said()
    for text in (
        *(
            "learned: the margin rose to 1.75",
            "0.6931 → 0.3000",
            "0.950",
            "[0.900, 0.980]",
            "1,200",
        ),
        *("Q: why?", "no idea", "because", "beta: 0.1", "1.16.0", "data/one", "data/two"),
        *("5, 6, 7, 9", "rewards", "reward margin", "held-out accuracy"),
        *("It prefers the chosen answer in 95.0%", "Annotator ann: they look turned round"),
        *("always longer", "61.0%", "at like lengths", "72.0%", "1–1.1 x longer (33)", "81.0%"),
        *("74% sure (12)", "66.0%", "25.0%", "98.5%", "+0.400"),
        *("raw.csv:17, margin -2.25", "called better", "0.625", "checkpoints/other", "+0.050"),
    ):
        assert text in said
    titles = [data for place, data in found.texts if place == "h2"]
    assert titles == [
        *("Does it prefer as people did?", "Labels to look at", "How far did it move?"),
        *("Judged by others", "Samples", "Training", "Data", "More"),
    ]
    # What matters most comes first: the verdict, what the figures mean, then the figures.
    order = ("It prefers the chosen", "learned: the margin", "they look turned round")
    order += ("held-out accuracy", "61.0%", "Q: why?")
    places = [said.index(text) for text in order]
    assert places == sorted(places)


@pytest.mark.parametrize(("tone", "style"), [("good", "good"), ("warning", "bad"), ("odd", "")])
def test_the_headline_has_the_colour_of_what_it_says(filled, tmp_path, tone, style):
    filled(run__json=RUN, eval__json=FOUND | {"findings": [{"tone": tone, "text": "so"}]})
    assert f'class="{f"verdict {style}".strip()}"' in page(read_pieces(tmp_path))


def test_distributions_count_as_they_are_drawn(filled, tmp_path):
    filled(run__json=RUN, eval__json=FOUND)
    text = page(read_pieces(tmp_path))
    drawn = re.search(r'aria-label="how much likelier chosen.*?</svg>', text, re.DOTALL)[0]
    before, after = (
        [float(point.split(",")[1]) for point in points.split()]
        for points in re.findall(r'<polyline points="([^"]*)"', drawn)
    )
    floor, top = before[0], min(after)
    assert after == [
        floor,
        *[pytest.approx(floor - (floor - top) / 7, abs=0.1)] * 2,
        top,
        top,
        floor,
    ]
    assert len(set(before[1:-1])) == 1


def test_suspects_out_of_fold_take_the_place_of_those_of_the_evaluation(filled):
    many = [SUSPECT | {"prompt": f"S{number}?"} for number in range(50)]
    said = filled(
        run__json=RUN, eval__json=FOUND, suspects__jsonl=many, suspects__json=SEARCH
    ).said()
    assert "raw.csv:99, margin -3.50" in said and "raw.csv:17" not in said
    assert (
        "50 of 3,180 pairs where a policy that was not trained" in said and "team b: 9 of" in said
    )
    assert "S29?" in said and "S30?" not in said and "20 more in suspects.jsonl" in said


def test_the_curves_have_a_point_for_each_logged_line(filled, tmp_path):
    held_out = [{"step": 2, "eval_loss": 0.5, "eval_rewards/accuracies": 1.0}]
    filled(run__json=RUN, metrics__jsonl=LINES + held_out)
    text = page(read_pieces(tmp_path))
    lines = re.findall(r'<polyline points="([^"]*)" class="(?:one|two)"', text)
    # Loss, accuracy and margin of training, chosen and rejected rewards.
    assert [len(line.split()) for line in lines] == [3] * 5
    assert text.count("<circle") == 2


@pytest.mark.parametrize(
    "where",
    [
        *("verdict", "config", "prompt", "policy", "path", "metric", "note", "group", "suspect"),
        *("finding", "source", "run"),
    ],
)
def test_markup_from_data_model_or_config_stays_text(filled, tmp_path, where):
    given = {name: EVIL if name == where else "plain" for name in ("prompt", "policy")}
    found = filled(
        run__json=RUN
        | ({"verdict": EVIL} if where == "verdict" else {})
        | ({"notes": [EVIL], "warnings": [{"lines": [EVIL]}]} if where == "note" else {}),
        eval__json=FOUND
        | ({"slices": {EVIL: {"reward_accuracy": 1}}} if where == "path" else {})
        | ({"groups": {"file": {EVIL: {"reward_accuracy": 1}}}} if where == "group" else {})
        | ({"metrics": {EVIL: {"reference": 1, "policy": 1}}} if where == "metric" else {})
        | ({"findings": [{"tone": EVIL, "text": EVIL}]} if where == "finding" else {})
        | ({"against": FOUND["against"] | {"run": EVIL}} if where == "run" else {})
        | ({"against_label": [{"chosen": EVIL}]} if where == "suspect" else {}),
        suspects__jsonl=[SUSPECT | {"source": EVIL}] if where == "source" else "",
        samples__jsonl=[given | {"reference": "plain"}],
        config__resolved__yaml=EVIL if where == "config" else "beta: 0.1",
    )
    assert EVIL in found.said()
    assert EVIL not in page(read_pieces(tmp_path))


def test_text_that_no_page_can_hold_does_not_stop_it(filled, tmp_path):
    sample = {"prompt": "\x00\ud800\u202eabc", "policy": "\u2028"}
    filled(run__json=RUN, eval__json=FOUND, samples__jsonl=[sample])
    write_page(tmp_path)
    assert "\ufffd\ufffd\u202eabc" in (tmp_path / "report.html").read_text("utf-8")
    assert [path.name for path in tmp_path.glob("report*")] == ["report.html"]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, None, "text", True, [1], {}, 10**400, -1e308, -3, [[[1]]]]
)
def test_figures_that_are_no_numbers_are_shown_as_such_or_left_out(filled, value):
    names = ("loss", "first_loss", "reward_margin", "reward_accuracy", "chosen_log_ratio")
    deep = {name: {"accuracy": value, "bins": [value, {"from": value}]} for name in FOUND}
    filled(run__json=RUN, eval__json=deep | {"groups": {"file": {"a": {"reward_accuracy": value}}}})
    filled(
        run__json=RUN, eval__json={"likelihood_margins": {"edges": [value] * 3, "policy": value}}
    )
    run = RUN | {"figures": dict.fromkeys(names, value), "seconds": value, "steps": 3}
    lines = [dict.fromkeys(LINES[0], value) | {"step": 1}, *LINES, {"step": value, "loss": value}]
    figures = set(FOUND) - {"split", "steps"}
    found = filled(
        run__json=run,
        metrics__jsonl=lines,
        eval__json=FOUND | dict.fromkeys(figures, value),
        samples__jsonl=[{"prompt": value}],
    )
    assert "learned: the margin rose to 1.75" in found.said()


def test_one_logged_line_is_a_dot_in_every_chart(filled, tmp_path):
    found = filled(run__json=RUN, metrics__jsonl=LINES[:1])
    assert sum(tag == "svg" for tag, _ in found.elements) == 4
    assert page(read_pieces(tmp_path)).count("<circle") == 5


def test_what_is_missing_or_broken_is_left_out(filled):
    assert "no finished run stands here" in filled().said()
    found = filled(
        run__json="{",
        eval__json="[1]",
        metrics__jsonl='{"step": 1, "loss": 0.6}\n{"ste',
        samples__jsonl="\n7\n",
    )
    titles = [data for place, data in found.texts if place == "h2"]
    assert titles == ["Training", "More"]


def test_warnings_of_the_run_stand_above_the_curves(filled):
    flat = {"step": 20, "what": "flat", "lines": ["the margin is flat", "raise learning_rate"]}
    run = RUN | {"warnings": [flat], "step_0": {"fault": "step 0 has a margin of 0.2"}}
    said = filled(run__json=run, metrics__jsonl=LINES).said()
    assert said.index("step 0 has a margin of 0.2") < said.index("the margin is flat\nraise")
    assert said.index("the margin is flat") < said.index("Training")


def test_figures_of_trained_rows_are_not_called_held_out(filled):
    said = filled(run__json=RUN, eval__json=FOUND | {"split": "train"}).said()
    assert "held-out" not in said and "eval accuracy" in said


def test_figures_of_weights_that_were_trained_further_are_not_shown(filled):
    sample = {"prompt": "Q: why?", "reference": "no idea", "policy": "because"}
    found = filled(run__json=RUN | {"steps": 9}, eval__json=FOUND, samples__jsonl=[sample])
    assert "eval.json is of these weights after step 3; evaluate again" in found.said()
    assert "Q: why?" not in found.said() and "0.950" not in found.said()


def test_the_conversion_is_shown_of_a_converted_directory_and_of_a_raw_file(filled, tmp_path):
    report = {"format": "preference", "pairs": {"made": 9, "kept": 7}, "reasons": {"tie": 2}}
    for name in ("made", "dataset-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(json.dumps(report | {"evidence": name}))
    paths = [str(tmp_path / "made"), "raw.csv", "someone/hub"]
    said = filled(run__json=RUN | {"config": {"dataset_path": paths}}).said()
    assert f"converted: {paths[0]}" in said and "converted: raw.csv" in said
    assert "someone/hub" not in said
    assert said.count("reasons tie") == 2 and "dataset-2" in said


def test_train_writes_the_page_and_eval_refreshes_it(tiny_model_dir, tmp_path):
    status, out = runner(tiny_model_dir, tmp_path)()
    assert status == 0
    before = checked((out / "report.html").read_text("utf-8"))
    said = before.said()
    first, _, rest = json.loads((out / "run.json").read_text())["verdict"].partition(". ")
    assert first in said and rest in said
    assert "learning_rate: 0.01" in said and "24 of 24 pairs kept" in said
    assert not [data for place, data in before.texts if data == "Samples"]
    loss = re.search(r'<polyline points="([^"]*)" class="one"', (out / "report.html").read_text())
    assert len(loss[1].split()) == len(metrics(out)) == 3
    config = str(out / "config.resolved.yaml")
    words = ("--split", "train", "--samples", "2", "--max-new-tokens", "4")
    assert eval_command.main([config, *words]) == 0
    after = checked((out / "report.html").read_text("utf-8")).said()
    for line in (out / "samples.jsonl").read_text("utf-8").splitlines():
        assert json.loads(line)["prompt"] in after
    assert "prompts" in after and "Does it prefer as people did?" in after


def test_a_path_that_is_none_and_texts_without_end_do_not_stop_the_page(filled):
    deep = json.loads("[" * 500 + "]" * 500)
    long = {"prompt": "p" * 100_000, "policy": "x", "reference": "y"}
    run = RUN | {"config": {"dataset_path": ["d" * 5000]}, "versions": {"a": deep}}
    said = filled(run__json=run, eval__json=FOUND | {"odd": deep}, samples__jsonl=[long]).said()
    assert "(100,000 characters)" in said and len(said) < 50_000

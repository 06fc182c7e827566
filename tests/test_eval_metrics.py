"""Metric modules on sampled answers: figures of both models, and modules that cannot be used."""

import json

import pytest
from evaluating import SHORT, evaluated, refused, run_of

METRIC = """
import datasets
import evaluate


class Letters(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", features=features)

    def _compute(self, predictions):
        counts = [float(len(text)) for text in predictions]
        return {"letters": sum(counts) / len(counts), "letters_per_example": counts, "word": "no"}
"""


def test_metric_modules_score_both_models_on_the_same_prompts(trained, tmp_path, capsys):
    module = tmp_path / "letters.py"
    module.write_text(METRIC, encoding="utf-8")
    found = evaluated(trained, "--samples", "5", "--set", f"metrics=[{module}]")
    run = run_of(trained)
    samples = [
        json.loads(line)
        for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(samples) == found["samples"] == 5
    letters = found["metrics"]["letters"]
    for who in ("reference", "policy"):
        lengths = [len(sample["prompt"] + sample[who]) for sample in samples]
        assert letters[who] == pytest.approx(sum(lengths) / len(lengths))
    assert letters["change"] == pytest.approx(letters["policy"] - letters["reference"])
    low, high = letters["change_interval"]
    assert low <= letters["change"] <= high
    assert "word" not in found["metrics"]
    assert "letters" in capsys.readouterr().out


def test_a_metric_module_that_is_missing_or_fails_is_named(trained, tmp_path, capsys):
    error = refused(capsys, str(trained), "--set", "metrics=[nowhere.py]")
    assert "--set metrics" in error and "'nowhere.py' does not exist" in error
    broken = tmp_path / "broken.py"
    broken.write_text(METRIC.replace("float(len(text))", "1 / 0"), encoding="utf-8")
    words = (str(trained), "--samples", "2", "--max-new-tokens", "2")
    error = refused(capsys, *words, "--set", f"metrics=[{broken}]")
    assert "failed on the samples: division by zero" in error


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return None", "failed on the samples"),
        ("return {'x': float('nan')}", "x is nan and nan, or of some prompt no figure"),
        ("return {'x': 1.0, 'x_per_example': [1.0] * self.n()}", "failed on the samples"),
        ("return {'x': 1.0, 'x_per_example': [1.0]}", "1 and 1 figures for 2 predictions"),
        ("return {'x': 1.0, 'x_per_example': [1.0, float('inf')]}", "of some prompt no figure"),
    ],
)
def test_a_metric_that_gives_no_figures_is_refused(trained, tmp_path, capsys, body, said):
    module = tmp_path / "odd.py"
    module.write_text(
        "import datasets\nimport evaluate\n\n\nclass Odd(evaluate.Metric):\n"
        "    count = 0\n\n    def n(self):\n        Odd.count += 1\n        return Odd.count\n\n"
        "    def _info(self):\n        features = datasets.Features("
        "{'predictions': datasets.Value('string')})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n\n"
        f"    def _compute(self, predictions):\n        {body}\n"
    )
    error = refused(capsys, str(trained), "--set", f"metrics={module}", *SHORT)
    assert said in error and "metrics" in error


def test_two_modules_with_a_figure_of_one_name_are_refused(trained, tmp_path, capsys):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(METRIC, encoding="utf-8")
    modules = f"metrics=[{tmp_path}/one.py, {tmp_path}/two.py]"
    error = refused(capsys, str(trained), "--set", modules, *SHORT)
    assert "another module of metrics has a figure 'letters' too" in error


def test_rouge_is_taken_of_the_answers_against_the_chosen_ones(trained):
    found = evaluated(trained, *SHORT, "--set", "metrics=[dpo_wrap/metrics/rouge.py]")
    assert {"rouge1", "rouge2", "rougeL"} == found["metrics"].keys()
    assert 0 <= found["metrics"]["rougeL"]["policy"] <= 1

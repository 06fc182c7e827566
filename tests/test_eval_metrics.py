"""Metric modules: figures of both models' samples, modules that fail, and ROUGE."""

from pathlib import Path

import evaluate
import pytest
from evaluating import SHORT, evaluated, lines_of, refused, run_of

ROUGE = Path(__file__).parent.parent / "dpo_wrap/metrics/rouge.py"
LETTERS = """counts = [float(len(text)) for text in predictions]
        return {"letters": sum(counts) / len(counts), "letters_per_example": counts, "word": "no"}
"""


def write_metric(path, body=LETTERS):
    path.write_text(
        "import datasets\nimport evaluate\n\n\nclass Custom(evaluate.Metric):\n"
        "    calls = 0\n\n    def call(self):\n        Custom.calls += 1\n"
        "        return Custom.calls\n\n    def _info(self):\n"
        "        features = datasets.Features({'predictions': datasets.Value('string')})\n"
        "        return evaluate.MetricInfo(description='', citation='', features=features)\n\n"
        f"    def _compute(self, predictions):\n        {body}\n",
        encoding="utf-8",
    )
    return path


def test_metric_modules_score_both_models_on_the_same_prompts(trained, tmp_path, capsys):
    module = write_metric(tmp_path / "letters.py")
    found = evaluated(trained, "--samples", "5", "--set", f"metrics=[{module}]")
    samples = lines_of(run_of(trained) / "samples.jsonl")
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


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return {'x': 1 / 0}", "failed on the samples: division by zero"),
        ("return None", "failed on the samples"),
        ("return {'x': float('nan')}", "x has a value that is NaN or inf (nan, nan)"),
        ("return {'x': 1.0, 'x_per_example': [1.0] * self.call()}", "failed on the samples"),
        ("return {'x': 1.0, 'x_per_example': [1.0]}", "1 and 1 values for 2 predictions"),
        ("return {'x': 1.0, 'x_per_example': [1.0, float('inf')]}", "x has a value that is NaN"),
    ],
)
def test_a_metric_that_fails_or_returns_no_figures_is_refused(
    trained, tmp_path, capsys, body, message
):
    module = write_metric(tmp_path / "custom.py", body)
    error = refused(capsys, str(trained), "--set", f"metrics={module}", *SHORT)
    assert message in error and "--set metrics" in error


def test_a_missing_module_and_two_modules_with_one_figure_are_refused(trained, tmp_path, capsys):
    error = refused(capsys, str(trained), "--set", "metrics=[nowhere.py]")
    assert "--set metrics" in error and "'nowhere.py' does not exist" in error
    one, two = (write_metric(tmp_path / name) for name in ("one.py", "two.py"))
    error = refused(capsys, str(trained), "--set", f"metrics=[{one}, {two}]", *SHORT)
    assert "another module of metrics returns 'letters' too" in error


def test_rouge_compares_the_answers_with_the_chosen_ones(trained):
    found = evaluated(trained, *SHORT, "--set", "metrics=[dpo_wrap/metrics/rouge.py]")
    assert {"rouge1", "rouge2", "rougeL"} == found["metrics"].keys()
    assert 0 <= found["metrics"]["rougeL"]["policy"] <= 1


def test_rouge_of_hand_worked_overlaps():
    metric = evaluate.load(str(ROUGE), experiment_id="rouge-by-hand")
    found = metric.compute(
        predictions=["the cat sat down", "nothing alike", "walking dogs"],
        references=["the cat lay down", "other words here", "walked dog"],
    )
    # Words: 3 of 4 both ways. Word pairs: 1 of 3. Longest common subsequence: the cat down.
    # Inflections of a word count as one.
    assert found["rouge1_per_example"] == pytest.approx([0.75, 0.0, 1.0])
    assert found["rouge2_per_example"] == pytest.approx([1 / 3, 0.0, 1.0])
    assert found["rougeL_per_example"] == pytest.approx([0.75, 0.0, 1.0])
    assert found["rouge1"] == pytest.approx(1.75 / 3)

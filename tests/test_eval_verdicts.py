"""eval --verdicts: what judges said becomes a win rate, or is refused."""

import json
import shutil

import pytest
from evaluating import evaluated, figures_of, refused, run_of

from dpo_wrap import eval as eval_command


@pytest.fixture
def sampled(trained):
    """The run with samples of now, and its questions to judges."""
    evaluated(trained, "--samples", "5", "--seed", "3")
    text = (run_of(trained) / "to_judge.jsonl").read_text(encoding="utf-8")
    return trained, [json.loads(line) for line in text.splitlines()]


def test_verdicts_become_a_win_rate_and_nothing_else_is_touched(sampled, tmp_path, capsys):
    config, records = sampled
    before = figures_of(config)
    for record in records:
        record["preference"] = 1 if record["generator_1"] == "policy" else 2
    file = tmp_path / "verdicts.json"
    file.write_text(json.dumps(records))  # an array, as alpaca_eval writes it
    assert eval_command.main([str(config), "--verdicts", str(file)]) == 0
    said = capsys.readouterr().out
    found = figures_of(config)
    assert found.pop("win_rate")["wins"] == len(records) / 2
    assert len(found.pop("findings")) == len(before.pop("findings")) + 1
    assert found == before
    assert "win rate" in said and f"page {run_of(config)}/report.html" in said
    assert "win rate" in (run_of(config) / "report.html").read_text(encoding="utf-8")


def test_verdicts_that_are_none_or_of_other_answers_are_refused(sampled, tmp_path, capsys):
    config, records = sampled
    blank = run_of(config) / "to_judge.jsonl"
    assert "every preference is null" in refused(capsys, str(config), "--verdicts", str(blank))
    others = tmp_path / "others.jsonl"
    record = records[0] | {"output_1": "what nobody wrote", "preference": 1}
    others.write_text(json.dumps(record))
    refused(capsys, str(config), "--verdicts", str(others))
    assert refused(capsys, str(config), "--verdicts", "")  # an unset variable scores nothing anew
    assert "no such file" in refused(capsys, str(config), "--verdicts", str(tmp_path / "none"))
    assert "--verdicts" not in figures_of(config) and "win_rate" not in figures_of(config)


def test_verdicts_without_samples_are_refused(trained, tmp_path, capsys):
    shutil.copytree(run_of(trained), tmp_path / "run")
    where = ("--set", f"output_dir={tmp_path}/run")
    verdicts = tmp_path / "verdicts.jsonl"
    for text in ("", '{"prompt": "an older evaluation"}\n', '{"instruction": 1, "policy": 2}\n'):
        (tmp_path / "run/samples.jsonl").write_text(text)
        error = refused(capsys, str(trained), *where, "--verdicts", str(verdicts))
        assert "no sampled answers to judge" in error


def test_verdicts_on_a_policy_that_was_trained_further_are_refused(sampled, tmp_path, capsys):
    config, records = sampled
    shutil.copytree(run_of(config), tmp_path / "run")
    verdicts = tmp_path / "verdicts.jsonl"
    verdicts.write_text(json.dumps(records[0] | {"preference": 1}))
    for name, change, said in (
        ("run.json", {"steps": 999}, "was resumed after the answers were sampled"),
        ("eval.json", {"steps": 999, "groups": float("nan")}, "resumed after"),
    ):
        path = tmp_path / "run" / name
        before = path.read_text(encoding="utf-8")
        path.write_text(json.dumps(json.loads(before) | change))
        where = ("--set", f"output_dir={tmp_path}/run")
        assert said in refused(capsys, str(config), *where, "--verdicts", str(verdicts))
        path.write_text(before)


def test_verdicts_beside_what_would_be_ignored_are_refused(sampled, capsys):
    config, _ = sampled
    words = ("--verdicts", "v.jsonl", "--split", "train", "--max-new-tokens", "3")
    error = refused(capsys, str(config), *words)
    assert "--split, --max-new-tokens would be ignored" in error

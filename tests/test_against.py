"""eval --against: two runs on the same rows, pair by pair."""

import shutil
from pathlib import Path

import pandas
import pytest
import yaml
from evaluating import SHORT, evaluated, refused, run_of, write_config

from dpo_wrap import train


@pytest.fixture(scope="module")
def less(trained, tmp_path_factory):
    """A second run over the same pairs that moved less, and where it stands."""
    folder = tmp_path_factory.mktemp("less")
    keys = yaml.safe_load(trained.read_text(encoding="utf-8"))
    config = write_config(
        folder, Path(keys["model_path"]), Path(keys["dataset_path"]), max_steps=1, beta=0.2
    )
    assert train.main([str(config)]) == 0
    return config


def test_two_runs_are_compared_pair_by_pair(trained, less, capsys):
    evaluated(less, *SHORT)
    there = pandas.read_parquet(run_of(less) / "examples.parquet")
    before = (run_of(less) / "eval.json").read_bytes()
    found = evaluated(trained, *SHORT, "--against", str(run_of(less)))
    said = capsys.readouterr().out
    here = pandas.read_parquet(run_of(trained) / "examples.parquet")
    margin = found["against"]["differences"]["reward_margin"]
    apart = here["reward_margin"] - there["reward_margin"]
    assert margin["examples"] == len(here) == len(there)
    assert margin["difference"] == pytest.approx(apart.mean(), abs=1e-5)
    error = 1.959964 * apart.std() / len(apart) ** 0.5
    assert margin["difference_interval"] == pytest.approx(
        [apart.mean() - error, apart.mean() + error], abs=1e-4
    )
    wins = found["against"]["differences"]["reward_accuracy"]
    assert wins["here"] == found["reward_accuracy"]
    assert wins["difference"] == pytest.approx(here["win"].mean() - there["win"].mean())
    assert f"against {run_of(less)}, on the same rows" in said and "difference +" in said
    assert (run_of(less) / "eval.json").read_bytes() == before  # nothing is written there


def test_a_run_against_its_own_copy_cannot_be_told_from_it(trained, tmp_path, capsys):
    shutil.copytree(run_of(trained), tmp_path / "copy")
    found = evaluated(trained, *SHORT, "--against", str(tmp_path / "copy"))
    wins = found["against"]["differences"]["reward_accuracy"]
    assert wins["difference"] == 0
    low, high = wins["difference_interval"]
    assert low < -0.05 and high > 0.05  # no pair parted them, and these are few
    assert found["against"]["differences"]["kl_per_sequence"]["difference"] == 0
    assert "cannot be told from none" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("against", "said"),
    [("/no/where", "holds no finished run"), (None, "is this run itself")],
)
def test_only_another_finished_run_can_be_held_against(trained, against, said, capsys):
    assert said in refused(capsys, str(trained), "--against", against or str(run_of(trained)))


def test_a_difference_of_wins_stays_within_what_shares_can_be(trained):
    from dpo_wrap.evaluation.evaluate import Evaluation
    from dpo_wrap.evaluation.paired import paired

    def of(win):
        table = pandas.DataFrame({"row": range(6), "prompt_id": range(6), "win": win})
        return Evaluation({"metrics": {}}, [], table.assign(reward_margin=1.0))

    wins = paired(of(True), of(False))["reward_accuracy"]
    assert wins["difference"] == 1.0 and wins["difference_interval"] == [1.0, 1.0]

"""configs/recipes: each does what its first lines say, on the tiny model and in a few steps."""

import json
from pathlib import Path

import pytest

from dpo_wrap.train import main
from tests.training import ROWS, adapter_weights, metrics, same

RECIPES = Path(__file__).parent.parent / "configs/recipes"


@pytest.fixture
def follow(tiny_model_dir, tmp_path):
    """Run a recipe in a folder of its own: the run's output directory."""
    (tmp_path / "pairs.json").write_text(json.dumps(ROWS))

    def start(name, out, **keys):
        keys = {
            "model_path": tiny_model_dir,
            "dataset_path": tmp_path / "pairs.json",
            "output_dir": tmp_path / out,
            "max_seq_length": 64,
            "logging_steps": 1,
        } | keys
        sets = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
        assert main([str(RECIPES / name), *sets]) == 0
        return tmp_path / out

    return start


@pytest.mark.slow
def test_sft_then_dpo_goes_on_from_the_sft_adapter_against_its_frozen_copy(follow, capsys):
    sft = follow("sft-then-dpo/1-sft.yaml", "sft", learning_rate=1e-2, max_steps=12)
    losses = [line["loss"] for line in metrics(sft)]
    assert losses[-1] < losses[0] - 0.5
    run = json.loads((sft / "run.json").read_text())
    assert "margin" not in run["verdict"] and "loss" in run["verdict"]

    capsys.readouterr()
    dpo = follow("sft-then-dpo/2-dpo.yaml", "dpo", adapter_path=sft, max_steps=4)
    said = capsys.readouterr().out
    assert "with a frozen copy of that adapter" in said and "step 0: loss 0.6931 = ln 2" in said
    assert json.loads((dpo / "run.json").read_text())["step_0"]["margin"] == pytest.approx(0)
    assert not same(adapter_weights(sft), adapter_weights(dpo))


@pytest.mark.slow
def test_the_best_checkpoint_is_kept_and_training_stops_where_nothing_improves(follow):
    out = follow(
        "best-checkpoint.yaml",
        "best",
        eval_steps=1,
        save_steps=1,
        num_epochs=10,
        learning_rate=1e-9,
    )
    lines = metrics(out)
    # At such a rate no evaluation is better than the first: three more, and it ends.
    assert [line["step"] for line in lines if "eval_rewards/accuracies" in line] == [1, 2, 3, 4]
    run = json.loads((out / "run.json").read_text())
    assert run["steps"] == 4
    kept = sorted(path.name for path in out.glob("checkpoint-*"))
    assert kept == ["checkpoint-1", "checkpoint-4"]
    assert same(adapter_weights(out), adapter_weights(out / "checkpoint-1"))

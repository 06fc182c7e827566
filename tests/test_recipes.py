"""configs/recipes: each does what its first lines say, on the tiny model and in a few steps."""

import json
import signal
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


def test_sft_then_dpo_goes_on_from_the_sft_adapter_against_its_frozen_copy(follow, capsys):
    sft = follow("sft-then-dpo/1-sft.yaml", "sft", learning_rate=1e-2, max_steps=12)
    losses = [line["loss"] for line in metrics(sft)]
    assert losses[-1] < losses[0] - 0.05
    run = json.loads((sft / "run.json").read_text())
    assert "no margin is to be expected" in run["verdict"]

    capsys.readouterr()
    dpo = follow("sft-then-dpo/2-dpo.yaml", "dpo", adapter_path=sft, max_steps=4)
    said = capsys.readouterr().out
    assert "with a frozen copy of that adapter" in said and "step 0: loss 0.6931 = ln 2" in said
    assert json.loads((dpo / "run.json").read_text())["step_0"]["margin"] == pytest.approx(0)
    assert not same(adapter_weights(sft), adapter_weights(dpo))


def test_the_best_checkpoint_is_kept_and_training_stops_where_nothing_improves(follow):
    out = follow(
        "best-checkpoint.yaml",
        "best",
        eval_steps=1,
        save_steps=1,
        num_epochs=10,
        learning_rate=1e-9,
    )
    held_out = [line["eval_rewards/accuracies"] for line in metrics(out)]
    best = held_out.index(max(held_out)) + 1
    assert len(held_out) == json.loads((out / "run.json").read_text())["steps"] == best + 3
    assert {p.name for p in out.glob("checkpoint-*")} == {
        f"checkpoint-{n}" for n in (best, best + 3)
    }
    assert same(adapter_weights(out), adapter_weights(out / f"checkpoint-{best}"))


def test_early_stopping_counts_on_where_a_checkpoint_stood(follow, tmp_path, monkeypatch):
    """Stopped by a signal after its second step, it takes as many steps as if it had not been."""
    from dpo_wrap.running import session

    names = {"eval_steps": 1, "save_steps": 1, "learning_rate": 1e-2}
    whole = follow("best-checkpoint.yaml", "whole", **names)
    steps = json.loads((whole / "run.json").read_text())["steps"]

    class Interrupt(session.Progress):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == steps - 1:
                signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(session, "Progress", Interrupt)
        with pytest.raises(AssertionError):
            follow("best-checkpoint.yaml", "cut", **names)
    again = follow("best-checkpoint.yaml", "cut", **names)
    assert json.loads((again / "run.json").read_text())["steps"] == steps
    assert same(adapter_weights(whole), adapter_weights(again))

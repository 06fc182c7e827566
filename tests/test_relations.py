"""relations held against the installed libraries: every field is read, or is named."""

import ast
import importlib.util
from pathlib import Path

import pytest

from dpo_wrap.config import own_fields
from dpo_wrap.config_contradictions import refused
from dpo_wrap.config_readers import divergence_losses, readers, schedule_arguments
from dpo_wrap.config_relations import (
    MORE_IS_BETTER,
    NEEDS,
    READ_WITH,
    REFUSED_VALUES,
    SAME,
    WITHOUT_EFFECT,
)
from dpo_wrap.config_values import Reads, matches
from dpo_wrap.library_fields import logged_figures, lora_fields, trl_fields

LORA = {f"lora.{name}": field for name, field in lora_fields().items()}
FIELDS = {**trl_fields(), **LORA, **own_fields()[0]}

# Where the sources read what WITHOUT_EFFECT says is not read in a run, and why that is not reached.
NOT_REACHED = {
    # transformers' own evaluation loop, with compute_metrics, which DPOTrainer is not given here.
    "include_for_metrics": {"evaluation_loop"},
    "batch_eval_metrics": {"evaluation_loop", "_validate_args"},
    "prediction_loss_only": {"evaluation_loop", "trainer_seq2seq.prediction_step"},
    # How losses are kept until their mean is taken.
    "eval_do_concat_batches": {"evaluation_loop"},
    # Only outside of training; and where the weights stand until then.
    "bf16_full_eval": {"evaluation_loop", "train", "__init__", "deepspeed.trainer_config_process"},
    "fp16_full_eval": {"evaluation_loop", "train", "__init__", "deepspeed.trainer_config_process"},
    # PreparedTrainer raises at such a loss.
    "logging_nan_inf_filter": {"evaluation_loop", "_run_epoch"},
    # The sampling strategies that are refused.
    "length_column_name": {"_get_eval_sampler", "_get_train_sampler"},
    # DPOTrainer's batches hold no labels, and its compute_loss is its own.
    "average_tokens_across_devices": {"compute_loss", "_get_num_items_in_batch"},
    "label_smoothing_factor": {"__init__", "modelcard.extract_hyperparameters_from_trainer"},
    "label_names": {"__init__"},
    # Its collator takes the columns that it knows.
    "remove_unused_columns": {"_remove_unused_columns", "_get_collator_with_removed_columns"},
    # It would bring an older wish to stop back; EarlyStopping restores itself.
    "restore_callback_states_from_checkpoint": {"_load_callback_state"},
    "padding_free": {"dpo_trainer.__init__"},
    "do_eval": {"integration_utils.run_hp_search_ray"},
    # SwanLab's own resuming.
    "resume_from_checkpoint": {"integration_utils.setup"},
    "do_train": set(),
    "do_predict": set(),
    "local_rank": set(),
}


def root(package):
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])


@pytest.fixture(scope="module")
def readings():
    """Each attribute of something called args, and the functions that read it."""
    transformers, trl = root("transformers"), root("trl") / "trainer"
    files = [*transformers.glob("trainer*.py"), *(transformers / "integrations").glob("*.py")]
    files += [transformers / "modelcard.py"]
    files += [trl / name for name in ("dpo_trainer.py", "base_trainer.py", "callbacks.py")]
    found = {}
    for file in files:
        prefix = "" if file.stem == "trainer" else f"{file.stem}."
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                for name in loaded(function, "args"):
                    found.setdefault(name, set()).add(prefix + function.name)
    return found


def loaded(tree, owner):
    """The attributes that are read of a name, or of an attribute of that name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            base = node.value
            if (base.attr if isinstance(base, ast.Attribute) else getattr(base, "id", "")) == owner:
                yield node.attr


def test_what_is_without_effect_is_read_nowhere_that_a_run_reaches(readings):
    trl = {name for name in WITHOUT_EFFECT if name in trl_fields()}
    assert trl == set(NOT_REACHED)
    assert {name: readings.get(name, set()) for name in trl} == NOT_REACHED


def test_every_field_that_nothing_reads_is_said_to_be_without_effect(readings):
    configs = (root("transformers") / "training_args.py", root("trl") / "trainer/dpo_config.py")
    itself = {name for file in configs for name in loaded(ast.parse(file.read_text()), "self")}
    unread = set(trl_fields()) - readings.keys() - itself
    assert unread == {"do_train", "do_predict", "local_rank"}
    assert unread <= WITHOUT_EFFECT.keys()


def needs():
    """Every (key that is told of, key that must hold, values wanted) of the tables."""
    for name, every in READ_WITH.items():
        for need in every:
            yield from ((name, other, wanted) for other, wanted in need.items())
    for name, _, need, _ in NEEDS:
        yield from ((name, other, wanted) for other, wanted in need.items())


def test_every_key_of_the_tables_is_a_field_and_every_word_is_one_of_its_words():
    named = {*WITHOUT_EFFECT, *READ_WITH, *SAME, *SAME.values()}
    assert named | {key for key, _ in REFUSED_VALUES} <= FIELDS.keys()
    assert {name for name, _, _ in needs()} <= FIELDS.keys()
    pairs = [(key, (wanted,)) for key, wanted in REFUSED_VALUES]
    pairs += [(other, wanted) for _, other, wanted in needs()]
    pairs += [(name, (value,)) for name, value, _, _ in NEEDS]
    for key, wanted in pairs:
        if key == "lora":
            continue
        choices = FIELDS[key].kind.choices
        if key == "report_to":
            choices = (*readers("report_to"), "all", "none")
        if isinstance(wanted, Reads):
            assert any(not read.isdisjoint(wanted.names) for read in readers(key).values()), key
            continue
        for word in wanted:
            if isinstance(word, str) and choices:
                assert any(matches(choice, word) for choice in choices), (key, word)
            if isinstance(word, bool):
                assert "bool" in FIELDS[key].kind.names, (key, word)


def test_the_readers_are_found_in_the_installed_sources():
    assert len(readers("loss_type")) == 15
    for key in ("optim", "lr_scheduler_type"):
        assert set(readers(key)) == set(trl_fields()[key].kind.choices)
    assert {"tensorboard", "wandb", "trackio"} <= set(readers("report_to"))
    assert not readers("optim")["sgd"] & {"adam_kwargs", "adam_beta1"}
    assert "adam_kwargs" in readers("optim")["adamw_torch_fused"]
    assert "optim_args" in readers("optim")["galore_adamw"]
    reading = {
        w for w, names in readers("lr_scheduler_type").items() if "num_warmup_steps" in names
    }
    assert reading == set(readers("lr_scheduler_type")) - {
        "constant",
        "reduce_lr_on_plateau",
        "greedy",
    }
    assert schedule_arguments("polynomial") == ({"lr_end", "power", "last_epoch"}, set())
    assert schedule_arguments("warmup_stable_decay")[1] == {"num_decay_steps"}
    assert schedule_arguments("greedy") is None


def test_the_losses_of_f_divergences_are_those_of_the_trainer():
    assert divergence_losses() == {
        *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft")
    }


def test_the_figures_with_a_direction_are_logged():
    assert set(MORE_IS_BETTER) <= set(logged_figures())


def test_the_refused_starts_of_an_adapter_are_those_that_move_the_base():
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 32}
    shape |= {"num_attention_heads": 2, "num_key_value_heads": 2}
    ids = torch.arange(8)[None]

    def moves(start):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
        with torch.no_grad():
            before = model(ids).logits
            lora = LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=start)
            adapted = get_peft_model(model, lora)
            with adapted.disable_adapter():
                return not torch.allclose(adapted(ids).logits, before, atol=1e-6)

    for start in ("pissa", "pissa_niter_2", "olora"):
        assert moves(start)
        assert any(
            key == "lora.init_lora_weights" and matches(start, w) for key, w in REFUSED_VALUES
        )
    for start in (True, "gaussian", "orthogonal", "mica"):
        assert not moves(start)
        assert refused("lora.init_lora_weights", start) is None

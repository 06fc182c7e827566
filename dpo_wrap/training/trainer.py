"""Build the trainer of a prepared run: model, reference, adapter, dropout and callbacks."""

import functools
from collections.abc import Sequence

from accelerate.utils import patch_environment
from peft import PeftModel
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from dpo_wrap.arguments import construct
from dpo_wrap.config import Settings
from dpo_wrap.data.answer_masks import make_collator
from dpo_wrap.data.splits import caching_disabled
from dpo_wrap.diagnostics.checks import describe_bad_gradient, describe_bad_loss
from dpo_wrap.errors import one_line
from dpo_wrap.model.load import load_base, load_policy
from dpo_wrap.prefix_sharing import share_prefixes
from dpo_wrap.training.prepare import Prepared, distributed
from dpo_wrap.training.reference_logps import ReferenceStore
from dpo_wrap.trl_hooks import PreparedTrainer


def build_trainer(
    prepared: Prepared,
    callbacks: Sequence[TrainerCallback],
    notes: list[str],
    reference_store: ReferenceStore | None = None,
) -> PreparedTrainer:
    """Load the weights and build the trainer. Raises ModelError, or ConfigError where TRL does."""
    settings, arguments = prepared.settings, prepared.arguments
    policy = load_policy(settings, prepared.adapter, distributed())
    reference = None
    if settings.lora is None:
        _make_savable(policy, settings, notes)
        if not arguments.dpo.precompute_ref_log_probs:
            # With an adapter the reference is the same model with the adapter off.
            reference = load_base(settings, distributed())
    build = functools.partial(
        PreparedTrainer,
        callbacks=list(callbacks),
        base_dropout=not settings.trl.get("disable_dropout", True),
        make_collator=make_collator,
        share_prefixes=functools.partial(
            share_prefixes, settings=settings, unsupported_reason=prepared.unsupported_reason
        ),
        reference_store=reference_store,
        loss_fault=describe_bad_loss,
        gradient_fault=describe_bad_gradient,
    )
    build.__name__ = "DPOTrainer"  # for error messages
    kwargs = {
        "model": policy,
        "ref_model": reference,
        "args": arguments.dpo,
        "train_dataset": prepared.train,
        "eval_dataset": prepared.test if arguments.dpo.eval_strategy != "no" else None,
        "processing_class": prepared.tokenizer,
        "peft_config": arguments.lora,
    }
    # TensorBoard's callback reads the environment when it is constructed.
    folder = settings.logging_dir
    variables = {} if folder is None else {"TENSORBOARD_LOGGING_DIR": folder}
    with caching_disabled(), patch_environment(**variables):
        trainer = construct(build, kwargs, settings, notes)
    # Both print every log as a dict; callbacks.py prints its main figures.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def describe(trainer: PreparedTrainer, prepared: Prepared) -> list[str]:
    """Lines that say what is trained, against which reference, and on how much data."""
    settings, model = prepared.settings, trainer.model
    precomputed = prepared.arguments.dpo.precompute_ref_log_probs
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for name, p in model.named_parameters() if ".ref." not in name)
    if isinstance(model, PeftModel):
        adapted = model.targeted_module_names
        kinds = ", ".join(sorted({name.rpartition(".")[2] for name in adapted}))
        rank = model.peft_config["default"].r
        what = f"LoRA of rank {rank} on {len(adapted)} modules ({kinds})"
        if weights := model.targeted_parameter_names:
            kinds = ", ".join(sorted({".".join(name.split(".")[-2:]) for name in weights}))
            what += f" and {len(weights)} parameters ({kinds})"
        reference = f"{settings.model_path} with the adapter off"
        if settings.adapter_path:
            what += f", continued from {settings.adapter_path}"
            reference = f"{settings.model_path} with a frozen copy of that adapter"
    else:
        what = "full weights"
        # Precomputed, it needs no copy of the weights.
        reference = f"{'' if precomputed else 'a frozen copy of '}{settings.model_path}"
    if precomputed:
        reference += ", its log-probabilities computed before the first step"
    test = len(prepared.test) if prepared.test is not None else 0
    return [
        f"model: {settings.model_path}, {what}; {trained:,} of {total:,} parameters trained",
        f"reference: {reference}",
        f"data: {len(prepared.train):,} pairs to train on, {test:,} held out",
        trainer.shared.line(),
    ]


def _make_savable(model: nn.Module, settings: Settings, notes: list[str]) -> None:
    """Fix a generation config that transformers would refuse to save when the training is done."""
    config = model.generation_config
    try:
        config.validate(strict=True)
    except ValueError as error:
        config.do_sample = True
        notes.append(
            f"{settings.where('model_path')}: its generation_config.json cannot be saved "
            f"({one_line(error)}), so it is saved with do_sample: true"
        )

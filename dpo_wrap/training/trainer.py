"""DPOTrainer over a prepared run: the same training, with dropout where the config wants it."""

import contextlib
import functools
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback
from transformers.trainer_utils import rotate_checkpoints
from trl import DPOTrainer

from dpo_wrap.arguments import construct
from dpo_wrap.config import Settings
from dpo_wrap.data.splits import caching_disabled
from dpo_wrap.diagnostics.checks import describe_bad_gradient, describe_bad_loss
from dpo_wrap.errors import RunError, one_line
from dpo_wrap.model.load import load_base, load_policy
from dpo_wrap.prefix_sharing import PrefixSharing, share_prefixes
from dpo_wrap.training.checkpoints import write_mark
from dpo_wrap.training.prepare import Prepared, distributed
from dpo_wrap.training.reference_logps import NAMES, KeptReference, reference_key


class PreparedTrainer(DPOTrainer):
    """DPOTrainer that takes rows as tokens.py makes them, and stops at what is no number."""

    batch: dict[str, Any] | None = None
    """The newest batch, for those who have to name its rows."""

    identity: dict[str, Any]
    """Of the run, for the marks of its checkpoints; known once step 0 has been measured."""

    def __init__(
        self,
        *args,
        switch_on: Callable[[DPOTrainer], PrefixSharing],
        kept: KeptReference | None,
        needed: Sequence[int] | None,
        **kwargs,
    ):
        """`kept` and `needed` as for build_trainer."""
        self.step_batches: list[dict[str, Any]] = []
        self.shared: PrefixSharing | None = None
        self.switch_on, self.kept, self.needed = switch_on, kept, needed
        super().__init__(*args, **kwargs)
        self._share()

    def _set_signature_columns_if_needed(self):
        super()._set_signature_columns_if_needed()
        # What a sampler groups rows by must reach it; the collator takes no notice of it.
        self._signature_columns = list(
            dict.fromkeys([*self._signature_columns, self.args.length_column_name])
        )

    def _share(self) -> None:
        if self.shared is None:
            self.shared = self.switch_on(self)

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        if "prompt_ids" in dataset.column_names:
            return dataset
        return super()._prepare_dataset(dataset, processing_class, args, dataset_name)

    def _precompute_ref_logps(self, dataset, name, batch_size):
        # TRL's constructor calls this, when all that sharing needs is there.
        self._share()
        if self.needed is not None:
            return self._rehearsed(dataset, name, batch_size)
        if self.kept is None:
            return self._computed(dataset, name, batch_size)
        key = reference_key(self, dataset)
        # Whether it is taken up one process decides, since the others must follow.
        found = [self.kept.take(name, key) if self.is_world_process_zero() else None]
        broadcast_object_list(found)
        if found[0] is not None:
            return _with_columns(dataset, found[0])
        computed = self._computed(dataset, name, batch_size)
        if self.is_world_process_zero():
            columns = {n: np.asarray(computed[n], dtype=np.float32) for n in NAMES}
            self.kept.keep(name, key, columns)
        return computed

    def _computed(self, dataset, name, batch_size):
        # The main process writes a file and all read it, but where `datasets` keeps nothing each
        # has a name and a folder of its own for it.
        place = [dataset._get_cache_file_path("")]
        broadcast_object_list(place)

        def once(fingerprint):
            # TRL asks first; whoever asks next has something else to write.
            del dataset._get_cache_file_path
            return place[0]

        dataset._get_cache_file_path = once
        # A frozen copy of an adapter is made ready to train, dropout and all.
        training = self.model.training
        self.model.eval()
        try:
            # Whether the pass is made or taken up must not shift what the run draws after it.
            with torch.random.fork_rng(devices=[]):
                return super()._precompute_ref_logps(dataset, name, batch_size)
        finally:
            self.model.train(training)

    def _rehearsed(self, dataset, name, batch_size):
        """As computed, for the rows alone that a dry run trains on."""
        columns = {n: np.full(len(dataset), np.nan, dtype=np.float32) for n in NAMES}
        if name == "train":
            computed = self._computed(dataset.select(self.needed), name, batch_size)
            for column, values in columns.items():
                values[self.needed] = computed[column]
        return _with_columns(dataset, columns)

    def _run_epoch(self, **kwargs):
        # transformers takes one step more where the checkpoint that it goes on from is the last,
        # be it of all steps or of a run that stopped early.
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def _save_checkpoint(self, model, trial):
        # transformers rotates older checkpoints away before a callback could declare this one
        # complete; whoever ended the process in between would leave none.
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            shutil.rmtree(folder, ignore_errors=True)  # begun by a run that was ended here
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        # Each process adds its own random state.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            # A pickle of the arguments, tokens among them, that no resume reads.
            (folder / "training_args.bin").unlink(missing_ok=True)
            resumable = not self.args.save_only_model
            write_mark(folder, self.identity, resumable, self._total_train_tokens)
            rotate_checkpoints(
                self.args.output_dir, limit, self.state.best_model_checkpoint, use_mtime=True
            )

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        self.batch = inputs
        if self.model.training:
            self.step_batches.append(inputs)
        result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = result[0] if return_outputs else result
        # transformers would log the mean of earlier losses in its place (logging_nan_inf_filter).
        if not torch.isfinite(loss):
            raise RunError(describe_bad_loss(self, inputs, loss.item()))
        return result

    def _get_grad_norm(self, model, grad_norm=None):
        # Before the optimizer's step: clipping by a norm that is no number spoils every gradient.
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        batches, self.step_batches = self.step_batches, []
        # With fp16 this is usual: the scaler skips the step and scales less.
        if norm is not None and not self.args.fp16:
            value = norm.item() if isinstance(norm, torch.Tensor) else norm
            if not math.isfinite(value):
                raise RunError(describe_bad_gradient(self, batches, value))
        return norm


def _with_columns(rows: Dataset, columns: dict[str, np.ndarray]) -> Dataset:
    for name, values in columns.items():
        rows = rows.add_column(name, values)
    return rows


def build_trainer(
    prepared: Prepared,
    callbacks: Sequence[TrainerCallback],
    notes: list[str],
    kept: KeptReference | None = None,
    needed: Sequence[int] | None = None,
) -> PreparedTrainer:
    """Load the weights and build the trainer. Raises ModelError, or ConfigError where TRL does.

    `kept` is where log-probabilities of the reference stand that are computed beforehand; `needed`
    are the training rows that they are needed of, where not of all.
    """
    settings, arguments = prepared.settings, prepared.arguments
    policy = load_policy(settings, prepared.adapter, distributed())
    reference = None
    if settings.lora is None and not arguments.dpo.precompute_ref_log_probs:
        # With an adapter the reference is the same model with the adapter off.
        reference = load_base(settings, distributed())
    if settings.lora is None:
        _make_savable(policy, settings, notes)
    build = functools.partial(
        PreparedTrainer,
        callbacks=list(callbacks),
        switch_on=functools.partial(
            share_prefixes, settings=settings, unsupported_reason=prepared.unsupported_reason
        ),
        kept=kept,
        needed=needed,
    )
    functools.update_wrapper(build, DPOTrainer, updated=())
    kwargs = {
        "model": policy,
        "ref_model": reference,
        "args": arguments.dpo,
        "train_dataset": prepared.train,
        "eval_dataset": prepared.test if arguments.dpo.eval_strategy != "no" else None,
        "processing_class": prepared.tokenizer,
        "peft_config": arguments.lora,
    }
    with caching_disabled(), _tensorboard_folder(settings.logging_dir):
        trainer = construct(build, kwargs, settings, notes)
    complete_reference(trainer.model)
    if arguments.lora_dropout and "disable_dropout" not in settings.trl:
        switch_off_dropout(trainer.model)
    # Both print every log as a dict; callbacks.py shows what matters of it.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    return trainer


def complete_reference(model: nn.Module) -> None:
    """Copy what TRL's frozen copy ("ref") of an adapter to go on from leaves out.

    It copies what has `.default.` in its name; an adapter's tensors on embeddings end in it.
    """
    tensors = dict(model.named_parameters())
    for name, tensor in tensors.items():
        copied = tensors.get(f"{name.removesuffix('.default')}.ref")
        if name.endswith(".default") and copied is not None:
            copied.data.copy_(tensor.data)


def _make_savable(model: nn.Module, settings: Settings, notes: list[str]) -> None:
    """transformers refuses to save a temperature without sampling, after all the training."""
    config = model.generation_config
    try:
        config.validate(strict=True)
    except ValueError as error:
        config.do_sample = True
        notes.append(
            f"{settings.where('model_path')}: its generation_config.json would not be saved "
            f"({one_line(error)}), so the new one says do_sample: true"
        )


def switch_off_dropout(model: nn.Module) -> None:
    """Zero every dropout but that of the adapter in training, as TRL zeroes all of them.

    The frozen copy that TRL makes of an adapter to go on from ("ref") must drop nothing either.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Dropout) and not name.endswith("lora_dropout.default"):
            module.p = 0


def described(trainer: PreparedTrainer, prepared: Prepared) -> list[str]:
    """What is trained, against which reference, on how much, in lines."""
    settings, model = prepared.settings, trainer.model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for name, p in model.named_parameters() if ".ref." not in name)
    if isinstance(model, PeftModel):
        lora = model.peft_config["default"]
        adapted = model.targeted_module_names
        where = ", ".join(sorted({name.rpartition(".")[2] for name in adapted}))
        what = f"LoRA of rank {lora.r} on {len(adapted)} modules ({where})"
        if settings.adapter_path:
            what += f", going on from {settings.adapter_path}"
            reference = f"{settings.model_path} with a frozen copy of that adapter"
        else:
            reference = f"{settings.model_path} with the adapter off"
    else:
        what, reference = "full weights", f"a frozen copy of {settings.model_path}"
        if prepared.arguments.dpo.precompute_ref_log_probs:
            # The weights as they are before the first step; no copy of them is kept.
            reference = settings.model_path
    if prepared.arguments.dpo.precompute_ref_log_probs:
        reference += ", its log-probabilities computed before the first step"
    test = len(prepared.test) if prepared.test is not None else 0
    return [
        f"model: {settings.model_path}, {what}; {trained:,} of {every:,} parameters trained",
        f"reference: {reference}",
        f"data: {len(prepared.train):,} pairs to train on, {test:,} held out",
        trainer.shared.line(),
    ]


def total_steps(trainer: PreparedTrainer) -> int:
    """How many optimizer steps the run has."""
    return trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())[-1]


@contextlib.contextmanager
def _tensorboard_folder(folder: str | None) -> Iterator[None]:
    """transformers takes TensorBoard's folder from the environment, when its callback is built."""
    before: Any = os.environ.get("TENSORBOARD_LOGGING_DIR")
    if folder is not None:
        os.environ["TENSORBOARD_LOGGING_DIR"] = folder
    try:
        yield
    finally:
        if folder is not None:
            del os.environ["TENSORBOARD_LOGGING_DIR"]
            if before is not None:
                os.environ["TENSORBOARD_LOGGING_DIR"] = before

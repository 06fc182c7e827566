"""Every private name of TRL, transformers and datasets that dpo_wrap uses, and its trainer.

An update of these libraries may move a private name without notice. The names are listed here with
their reasons; tests/test_trl_hooks.py checks that they exist and that no other name is used.
"""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate.utils import broadcast_object_list, send_to_device
from datasets import Dataset
from peft import PeftModel
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.trainer_utils import rotate_checkpoints
from trl import DPOConfig, DPOTrainer

from dpo_wrap.checkpoints import write_mark
from dpo_wrap.errors import RunError
from dpo_wrap.files import clear_own, make_own, write_atomically
from dpo_wrap.model.dropout import disable_base_dropout, measuring
from dpo_wrap.model.weights import check_adapter_names, load_full_weights

PRIVATE_NAMES = {
    "trl.DPOTrainer": {
        "_prepare_dataset": "called and overridden, to tokenize as TRL does, once: test_tokenize",
        "_tokenizer": "all that _prepare_dataset reads of the trainer: test_tokenize",
        "_precompute_ref_logps": "overridden, to store its result for a resume: test_reference",
        "_precompute_model_hash": "part of the key of the stored result: test_reference",
        "_metrics": "step 0's margin, which compute_loss does not return: test_train",
        "_total_train_tokens": "logged as num_tokens, but not in TRL's checkpoints: test_kill",
        "_save_checkpoint": "overridden, to delete old ones after the new one: test_checkpoints",
    },
    "transformers.Trainer": {
        "_run_epoch": "overridden, as a resume from the last step takes one more: test_run_dir",
        "_load_from_checkpoint": "overridden, as it ignores weights that do not load: test_weights",
        "_load_best_model": "the same: test_weights",
        "_get_grad_norm": "overridden, to stop at NaN before the optimizer: test_model_checks",
    },
    "transformers.PreTrainedModel": {
        "_is_stateful": "read by prefix_sharing, which refuses such models: test_sharing",
        "_can_set_attn_implementation": "the same: test_sharing",
    },
    "transformers.PretrainedConfig": {
        "_attn_implementation": "read by prefix_sharing, which wraps it: test_sharing",
    },
    "trl.trainer.base_config": {
        "_BaseConfig": "its source has fields and defaults of DPOConfig: test_config_keys",
    },
    "trl.trainer.utils": {
        "_ChunkedLogProbFunction": "replaced on a CPU by prefix_sharing/head.py: test_sharing",
    },
    "datasets.Dataset": {
        "_get_cache_file_path": "replaced, so that all processes read one file: test_distributed",
    },
}
"""How and why each name is used, and the test that notices when it moves, by owner and name."""

REFERENCE = "reference"
"""Folder of a checkpoint for the reference that sync_ref_model updates."""


class PreparedTrainer(DPOTrainer):
    """DPOTrainer for tokenized rows that can be resumed at any moment and stops at NaN or inf."""

    batch: dict[str, Any] | None = None
    """The newest batch; error messages name its rows."""

    card: str = ""
    """README.md, once the training is done."""

    identity: dict[str, Any]
    """The run's identity for the checkpoints' marks; set once step 0 has been measured."""

    def __init__(
        self,
        *args,
        base_dropout: bool,
        make_collator: Callable[[DPOConfig, PreTrainedTokenizerBase], Any],
        share_prefixes: Callable[[DPOTrainer], Any],
        reference_store: Any | None,
        loss_fault: Callable[[DPOTrainer, dict[str, Any], float], str],
        gradient_fault: Callable[[DPOTrainer, list[dict[str, Any]], float], str],
        **kwargs,
    ):
        """`base_dropout` keeps the dropout of the base model.

        `make_collator` makes the collator that replaces TRL's from the arguments and the tokenizer;
        `share_prefixes` starts prefix sharing; its result is kept as `shared`.
        `reference_store` keeps precomputed log-probabilities (training/reference_logps.py).
        `loss_fault` and `gradient_fault` return the message for a loss or norm that is NaN or inf.
        """
        self.step_batches: list[dict[str, Any]] = []
        self.shared: Any = None
        self.base_dropout = base_dropout
        self.config_dropout: list[tuple[PretrainedConfig, str, float]] = []
        self.share_prefixes, self.reference_store = share_prefixes, reference_store
        self.make_collator = make_collator
        self.loss_fault, self.gradient_fault = loss_fault, gradient_fault
        super().__init__(*args, **kwargs)
        self._complete_models()

    def _complete_models(self) -> None:
        if self.shared is not None:
            return
        copy_embeddings_to_reference(self.model)
        if not self.base_dropout:
            self.config_dropout = disable_base_dropout(self.model)
            if self.ref_model is not None:
                disable_base_dropout(self.ref_model)
        # TRL sets the pad token only where it makes the collator itself.
        self.data_collator = self.make_collator(self.args, self.processing_class)
        self.shared = self.share_prefixes(self)

    def resume_token_count(self, num_tokens: int) -> None:
        """Continue TRL's count of trained tokens from a checkpoint's."""
        self._total_train_tokens = num_tokens

    def _prepare_dataset(self, dataset, processing_class, args, dataset_name):
        if "prompt_ids" in dataset.column_names:
            return dataset
        return super()._prepare_dataset(dataset, processing_class, args, dataset_name)

    def _precompute_ref_logps(self, dataset, name, batch_size):
        # Called by TRL's constructor, once the models are set.
        self._complete_models()
        if self.reference_store is None:
            return self._compute_reference(dataset, name, batch_size)
        model = self.ref_model or self.model
        key = self.reference_store.key(model, self._precompute_model_hash, dataset)
        # The main process decides, since all processes must take the same branch.
        stored = [self.reference_store.load(name, key) if self.is_world_process_zero() else None]
        broadcast_object_list(stored)
        if stored[0] is None:
            dataset = self._compute_reference(dataset, name, batch_size)
            if self.is_world_process_zero():
                self.reference_store.save(name, key, dataset)
            return dataset
        for column, values in stored[0].items():
            dataset = dataset.add_column(column, values)
        return dataset

    def _compute_reference(self, dataset, name, batch_size):
        # The main process writes a file that all processes read. With caching disabled `datasets`
        # makes a temporary name for it in each process, so they agree on one.
        path = [dataset._get_cache_file_path("")]
        broadcast_object_list(path)

        def agreed_path(fingerprint):
            del dataset._get_cache_file_path  # for one call: the next file is another one
            return path[0]

        dataset._get_cache_file_path = agreed_path
        # peft leaves the frozen copy of an adapter in training mode, with dropout.
        training = self.model.training
        self.model.eval()
        try:
            # A resumed run does not compute this, and must draw the same random numbers after it.
            with torch.random.fork_rng(devices=[]):
                return super()._precompute_ref_logps(dataset, name, batch_size)
        finally:
            self.model.train(training)

    def _run_epoch(self, **kwargs):
        if self.state.global_step >= self.state.max_steps or self.control.should_training_stop:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(**kwargs)

    def create_model_card(self, *args, **kwargs):
        # TRL calls this at each checkpoint, and before it pushes to the Hub.
        if self.card and self.is_world_process_zero():
            write_atomically(Path(self.args.output_dir, "README.md"), self.card)

    def save_model(self, *args, **kwargs):
        # A config.json has the model's own dropout.
        for config, name, value in self.config_dropout:
            setattr(config, name, value)
        try:
            super().save_model(*args, **kwargs)
        finally:
            for config, name, value in self.config_dropout:
                setattr(config, name, type(value)(0))

    def load_checkpoint(self, folder: str) -> None:
        """Load the weights of a checkpoint. Raises RunError unless all of them load."""
        self._load_from_checkpoint(folder)

    def _load_from_checkpoint(self, folder, model=None):
        if not self._load_full_weights(folder):
            super()._load_from_checkpoint(folder, model)
        elif self.args.sync_ref_model:
            reference = self.accelerator.unwrap_model(self.ref_model)
            load_full_weights(reference, Path(folder, REFERENCE))

    def _load_best_model(self):
        if not self._load_full_weights(self.state.best_model_checkpoint):
            super()._load_best_model()

    def _load_full_weights(self, folder: str) -> bool:
        """Load a checkpoint, or return False for transformers to load an adapter or shards."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            return False
        if isinstance(self.model, PeftModel):
            check_adapter_names(self.model, Path(folder))
            return False
        load_full_weights(self.model, Path(folder))
        return True

    def _save_checkpoint(self, model, trial):
        folder = Path(self.args.output_dir, f"checkpoint-{self.state.global_step}")
        if self.args.should_save:
            clear_own(folder)  # left incomplete by a killed run
            make_own(folder)
        self.accelerator.wait_for_everyone()
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        sharded = self.is_deepspeed_enabled or self.is_fsdp_enabled
        if self.args.should_save and self.args.sync_ref_model and not sharded:
            self.accelerator.unwrap_model(self.ref_model).save_pretrained(folder / REFERENCE)
        # Each process adds its own random state to the folder.
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            # Not read on resume, and it pickles the arguments with their tokens.
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
        # transformers would log the mean of earlier losses instead (logging_nan_inf_filter).
        if not torch.isfinite(loss):
            raise RunError(self.loss_fault(self, inputs, loss.item()))
        return result

    def _get_grad_norm(self, model, grad_norm=None):
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        batches, self.step_batches = self.step_batches, []
        # In fp16 an infinite norm is usual: the scaler skips the step and lowers its scale.
        if norm is not None and not self.args.fp16:
            value = norm.item() if isinstance(norm, torch.Tensor) else norm
            if not math.isfinite(value):
                raise RunError(self.gradient_fault(self, batches, value))
        return norm


def tokenize_rows(
    rows: Dataset, split: str, tokenizer: PreTrainedTokenizerBase, dpo: DPOConfig
) -> Dataset:
    """The rows with prompt_ids, chosen_ids and rejected_ids, tokenized by TRL and not truncated."""
    # With a max_length TRL would drop rows without counting them.
    args = SimpleNamespace(
        max_length=None, truncation_mode="keep_start", dataset_num_proc=dpo.dataset_num_proc
    )
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    return DPOTrainer._prepare_dataset(trainer, rows, tokenizer, args, split)


def loss_and_margin(
    trainer: DPOTrainer, rows: list[dict[str, Any]], training: bool
) -> tuple[float, float]:
    """Loss and mean reward margin of these rows as one batch, measured as in `measuring`.

    Nothing is logged.
    """
    batch = send_to_device(trainer.data_collator(rows), trainer.args.device)
    try:
        with measuring(trainer.model, training), trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(trainer.model, batch).item()
        return loss, trainer._metrics["eval"]["rewards/margins"][-1]
    finally:
        trainer._metrics["eval"].clear()


def copy_embeddings_to_reference(model: nn.Module) -> None:
    """Complete TRL's frozen copy ("ref") of the adapter ("default") that training continues.

    TRL copies parameters with `.default.` in their name. Those of adapted embeddings end in
    `.default` and would keep their initial values.
    """
    tensors = dict(model.named_parameters())
    for name, tensor in tensors.items():
        copy = tensors.get(f"{name.removesuffix('.default')}.ref")
        if name.endswith(".default") and copy is not None:
            copy.data.copy_(tensor.data)

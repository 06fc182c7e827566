"""A finished run's model beside its reference, loaded from the run directory alone."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl.trainer.utils import create_model_from_path, use_adapter

from dpo_wrap.config import Settings
from dpo_wrap.errors import ModelError, one_line
from dpo_wrap.hub import located
from dpo_wrap.model.load import init_kwargs, load_base

REFERENCE = "ref"
"""The name under which the adapter that a run went on from is loaded."""


@dataclass(frozen=True)
class JudgedModel:
    """Policy and reference, in evaluation mode on one device; with LoRA they share weights."""

    tokenizer: PreTrainedTokenizerBase
    policy: nn.Module
    separate_reference: nn.Module | None
    reference_adapter: str | None
    """Under LoRA: the adapter that is the reference, None for the base model alone."""

    @contextlib.contextmanager
    def as_reference(self) -> Iterator[nn.Module]:
        """The reference, for as long as the context lasts."""
        if self.separate_reference is not None:
            yield self.separate_reference
            return
        with use_adapter(self.policy, adapter_name=self.reference_adapter):
            yield self.policy


def load_run_tokenizer(settings: Settings) -> PreTrainedTokenizerBase:
    """The tokenizer that the run saved. Raises ModelError."""
    run = settings.output_dir
    try:
        if not Path(run, "tokenizer_config.json").is_file():
            raise OSError("tokenizer_config.json is missing")
        return AutoTokenizer.from_pretrained(
            run, trust_remote_code=settings.option("trust_remote_code")
        )
    except Exception as error:  # the libraries raise anything on a file that is cut short
        raise ModelError(
            f"{run}: its tokenizer cannot be loaded ({one_line(error)}); train it again"
        ) from None


def load_judged(settings: Settings, device: torch.device) -> JudgedModel:
    """The model in output_dir and what it was trained against. Raises ModelError."""
    run = settings.output_dir
    if not any(Path(run).glob("*.safetensors")):
        raise ModelError(f"{run}: its weights (*.safetensors) are gone; train it again")
    try:
        trusted = {"trust_remote_code": settings.option("trust_remote_code")}
        tokenizer = load_run_tokenizer(settings)
        # Both models stand whole on one device, on a machine with several GPUs too.
        if settings.lora is None:
            whole = {**trusted, **init_kwargs(settings), "device_map": None}
            policy, loading = create_model_from_path(run, output_loading_info=True, **whole)
            if missing := sorted(loading["missing_keys"]):
                raise ValueError(f"it lacks {len(missing)} of its weights, first {missing[0]}")
            reference = load_base(settings, distributed=True).to(device).eval()
            return JudgedModel(tokenizer, policy.to(device).eval(), reference, None)
        with warnings.catch_warnings():
            # peft leaves what the file lacks at its initial value, and only warns.
            warnings.filterwarnings("error", "Found missing adapter keys")
            policy = PeftModel.from_pretrained(load_base(settings, distributed=True), run)
        name = None
        if settings.adapter_path is not None:
            policy.load_adapter(located(settings.adapter_path), adapter_name=REFERENCE)
            policy.set_adapter("default")
            name = REFERENCE
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        raise ModelError(
            f"{run}: the trained model could not be loaded ({one_line(error)}); train it again"
        ) from None
    return JudgedModel(tokenizer, policy.to(device).eval(), None, name)

"""Policy and reference of a finished run, loaded from the run directory alone."""

import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from trl import DPOConfig
from trl.trainer.utils import create_model_from_path

from dpo_wrap.config import Settings
from dpo_wrap.errors import ModelError, one_line
from dpo_wrap.hub import located
from dpo_wrap.logps import REFERENCE_ADAPTER, answer_logps, reference_model
from dpo_wrap.model.load import init_kwargs, load_base


@dataclass(frozen=True)
class EvaluatedModels:
    """Policy and reference in evaluation mode on one device; with LoRA they share weights."""

    tokenizer: PreTrainedTokenizerBase
    policy: nn.Module
    separate_reference: nn.Module | None = None
    """The reference of a run that trained all weights."""

    def as_reference(self) -> AbstractContextManager[nn.Module]:
        """The reference, for as long as the context lasts."""
        return reference_model(self.policy, self.separate_reference)

    def logps(self, batch: dict[str, Tensor], args: DPOConfig) -> tuple[Tensor, Tensor]:
        """log pi(y|x) and log pi_ref(y|x) of each row of a batch for `answer_logps`: (B,) each."""
        policy = answer_logps(self.policy, batch, args)
        with self.as_reference() as reference:
            return policy, answer_logps(reference, batch, args)


def load_run_tokenizer(settings: Settings) -> PreTrainedTokenizerBase:
    """The tokenizer that the run saved. Raises ModelError."""
    run = settings.output_dir
    try:
        if not Path(run, "tokenizer_config.json").is_file():
            raise OSError("tokenizer_config.json is missing")
        return AutoTokenizer.from_pretrained(
            run, trust_remote_code=settings.option("trust_remote_code")
        )
    except Exception as error:  # the libraries raise anything for a truncated file
        raise ModelError(
            f"{run}: its tokenizer cannot be loaded ({one_line(error)}); train again"
        ) from None


def load_models(settings: Settings, device: torch.device) -> EvaluatedModels:
    """The model in output_dir and the reference that it was trained with. Raises ModelError."""
    run = settings.output_dir
    if not any(Path(run).glob("*.safetensors")):
        raise ModelError(f"{run}: its weights (*.safetensors) are missing; train again")
    tokenizer = load_run_tokenizer(settings)
    try:
        if settings.lora is None:
            policy = _full_weights(settings)
            reference = load_base(settings, distributed=True).to(device).eval()
            return EvaluatedModels(tokenizer, policy.to(device).eval(), reference)
        with warnings.catch_warnings():
            # peft leaves weights that the file lacks at their initial values, and only warns.
            warnings.filterwarnings("error", "Found missing adapter keys")
            policy = PeftModel.from_pretrained(load_base(settings, distributed=True), run)
        if settings.adapter_path is not None:
            policy.load_adapter(located(settings.adapter_path), adapter_name=REFERENCE_ADAPTER)
            policy.set_adapter("default")
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError, UserWarning) as error:
        raise ModelError(
            f"{run}: the trained model cannot be loaded ({one_line(error)}); train again"
        ) from None
    return EvaluatedModels(tokenizer, policy.to(device).eval())


def _full_weights(settings: Settings) -> nn.Module:
    # Without a device map the whole model is on one device, on a machine with several GPUs too.
    trusted = {"trust_remote_code": settings.option("trust_remote_code")}
    options = {**trusted, **init_kwargs(settings), "device_map": None}
    policy, loading = create_model_from_path(
        settings.output_dir, output_loading_info=True, **options
    )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, first {missing[0]}")
    return policy

"""The model's files, checked before a weight is read; then the policy and its reference."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.constants import HF_HUB_OFFLINE
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from trl.trainer.utils import create_model_from_path

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, ModelError, one_line
from dpo_wrap.hub import located, unreachable

ADAPTER_FILE = "adapter_config.json"
# Where architectures keep the number of positions that they can tell apart.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "n_ctx")


def load_config(settings: Settings) -> PretrainedConfig:
    """The base model's config.json; its weight files are checked where local. Raises ModelError."""
    path, place = settings.model_path, settings.where("model_path")
    local = Path(path).expanduser()
    if local.is_dir():
        _check_directory(local, place)
    elif local.exists():
        raise ModelError(f"{place} {path!r} is a file; give the model's directory")
    try:
        config = AutoConfig.from_pretrained(
            located(path),
            trust_remote_code=settings.option("trust_remote_code"),
            revision=init_kwargs(settings).get("revision"),
        )
    except OSError as error:
        if not local.exists() and "connect" in str(error):
            what = "a model's directory"
            raise ModelError(unreachable(settings, "model_path", path, what)) from None
        raise ModelError(f"{place} {path!r} could not be loaded: {one_line(error)}") from None
    except (ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(f"{place} {path!r} has a strange config: {one_line(error)}") from None
    if config.is_encoder_decoder:
        raise ModelError(f"{place} {path!r} is an encoder-decoder; only decoders are trained")
    return config


def context_length(config: PretrainedConfig) -> int | None:
    """How many tokens the model can take, or None where its config does not say."""
    text = config.get_text_config()
    found = (getattr(text, name, None) for name in CONTEXT_NAMES)
    return next((value for value in found if isinstance(value, int) and value > 0), None)


def load_adapter_config(settings: Settings) -> LoraConfig | None:
    """The config of the adapter to go on from, or None. Raises ModelError, ConfigError.

    LoRA keys of the config must agree with it, but for lora_dropout, which replaces the adapter's.
    """
    if settings.adapter_path is None:
        return None
    path, place = settings.adapter_path, settings.where("adapter_path")
    local = Path(path).expanduser()
    if local.exists():
        if not (local / ADAPTER_FILE).is_file():
            raise ModelError(f"{place} {path!r} has no {ADAPTER_FILE}, so it is no adapter")
        _check_safetensors(sorted(local.glob("*.safetensors")), place)
    try:
        adapter = PeftConfig.from_pretrained(located(path))
    except (OSError, ValueError, TypeError, KeyError) as error:
        if not local.exists() and HF_HUB_OFFLINE:
            what = "an adapter's directory"
            raise ModelError(unreachable(settings, "adapter_path", path, what)) from None
        raise ModelError(f"{place} {path!r} could not be loaded: {one_line(error)}") from None
    if not isinstance(adapter, LoraConfig):
        raise ModelError(f"{place} {path!r} is no LoRA adapter but {adapter.peft_type}")
    for name, value in settings.lora.items():
        own = getattr(adapter, name)
        if name != "lora_dropout" and value != (sorted(own) if isinstance(own, set) else own):
            raise ConfigError(
                f"{settings.where(f'lora.{name}')} is {value!r}, but the adapter {path!r} was made "
                f"with {own!r}, which stays; remove the key"
            )
    if "lora_dropout" in settings.lora:
        adapter.lora_dropout = settings.lora["lora_dropout"]
    return adapter


def load_policy(
    settings: Settings, adapter: LoraConfig | None, distributed: bool = False
) -> PreTrainedModel | PeftModel:
    """The model to train, with the adapter to go on from. Raises ModelError.

    A new adapter is left to DPOTrainer, which draws its weights from the run's seed.
    """
    model = load_base(settings, distributed)
    if adapter is None:
        return model
    try:
        return PeftModel.from_pretrained(
            model, located(settings.adapter_path), config=adapter, is_trainable=True
        )
    except (RuntimeError, ValueError, TypeError, OSError, SafetensorError) as error:
        raise ModelError(
            f"{settings.where('adapter_path')} {settings.adapter_path!r} does not fit "
            f"{settings.model_path!r}: {one_line(error)}"
        ) from None


def load_base(settings: Settings, distributed: bool = False) -> PreTrainedModel:
    """The base model as TRL would load it (fp32 unless model_init_kwargs says otherwise).

    It is also the reference of a run on full weights. Raises ModelError.
    """
    path, place = settings.model_path, settings.where("model_path")
    kwargs = init_kwargs(settings)
    kwargs.setdefault("trust_remote_code", settings.option("trust_remote_code"))
    if distributed:
        # As DPOTrainer does: each process holds the whole model.
        kwargs["device_map"] = None
    if settings.load_in_4bit:
        place = f"{settings.where('load_in_4bit')}, {place}"
        kwargs["quantization_config"] = _four_bit(settings)
    try:
        model, loading = create_model_from_path(located(path), output_loading_info=True, **kwargs)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, ImportError) as error:
        if "model_init_kwargs" in settings.locations:
            given = settings.where("model_init_kwargs")
            raise ConfigError(f"{given}: {path!r} cannot be loaded so: {one_line(error)}") from None
        raise ModelError(f"{place} {path!r}: its weights failed: {one_line(error)}") from None
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{place} {path!r}: its weights failed: {one_line(error)}") from None
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{place} {path!r} lacks {len(missing)} of its weights (first {missing[0]}), which "
            "would be random; fetch the model again"
        )
    for module in model.modules():
        # On CPUs that have it, bitsandbytes packs a layer for inference at its first pass in
        # evaluation mode, such as step 0's; after that no gradient goes through, without an error.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def init_kwargs(settings: Settings) -> dict[str, Any]:
    """A copy of model_init_kwargs: the keyword arguments that weights are loaded with."""
    return dict(settings.option("model_init_kwargs") or {})


def _four_bit(settings: Settings) -> BitsAndBytesConfig:
    """NF4 with bfloat16 arithmetic: Dettmers et al. 2023 (QLoRA), section 3."""
    place = settings.where("load_in_4bit")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{place} needs the package bitsandbytes; pip install bitsandbytes, or remove the key"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _check_directory(path: Path, place: str) -> None:
    if (path / ADAPTER_FILE).is_file():
        raise ModelError(
            f"{place} '{path}' is an adapter, not a model; give it as adapter_path, and its base "
            f"model{_adapter_base(path)} as model_path"
        )
    if not (path / "config.json").is_file():
        raise ModelError(f"{place} '{path}' has no config.json, so it is no model's directory")
    index = path / "model.safetensors.index.json"
    files = sorted(path.glob("*.safetensors"))
    if index.is_file():
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, AttributeError):
            raise ModelError(f"{place}: {index} is damaged; fetch the model again") from None
        files = [path / name for name in sorted(names)]
    elif not files and not any(path.glob("*.bin")):
        raise ModelError(f"{place} '{path}' has no weights (*.safetensors); fetch the model again")
    _check_safetensors(files, place)


def _check_safetensors(files: list[Path], place: str) -> None:
    """Open each file: its header holds its length, so a cut file is found without reading it."""
    for file in files:
        if not file.is_file():
            raise ModelError(f"{place}: {file} is missing; fetch the model again")
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{place}: {file} is damaged ({one_line(error)}); fetch the model again"
            ) from None


def _adapter_base(path: Path) -> str:
    try:
        name = json.loads((path / ADAPTER_FILE).read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError):
        return ""
    return f" ({name})" if name else ""

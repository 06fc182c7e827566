"""Check a model's and an adapter's files before any weight is read, then load the weights."""

import copy
import importlib.util
import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from trl.trainer.utils import create_model_from_path

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, ModelError, one_line
from dpo_wrap.hub import load_failure, located
from dpo_wrap.run_dir import read_object

ADAPTER_FILE = "adapter_config.json"
# transformers maps its models' names to the first; models with code of their own may not.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
CONFIG_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ImportError)
CONFIG_ERRORS += (NotImplementedError,)
"""What transformers and peft raise for a config that they cannot use."""
WEIGHT_ERRORS = (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError)


def load_config(settings: Settings) -> PretrainedConfig:
    """The base model's config; local weight files are opened but not read. Raises ModelError."""
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
        raise ModelError(load_failure(settings, "model_path", path, error)) from None
    except CONFIG_ERRORS as error:
        raise ModelError(f"{place} {path!r} has an unusable config: {one_line(error)}") from None
    if config.is_encoder_decoder:
        raise ModelError(f"{place} {path!r} is an encoder-decoder; only decoders are trained")
    text = config.get_text_config()
    pad, size = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if None not in (pad, size) and pad >= size:
        raise ModelError(
            f"{place} {path!r}: its config.json has pad_token_id {pad}, but its embeddings end at "
            f"{size - 1}; set pad_token_id there to null"
        )
    return config


def context_length(config: PretrainedConfig) -> int | None:
    """The model's context in tokens, or None if its config does not give it."""
    text = config.get_text_config()
    lengths = (getattr(text, name, None) for name in CONTEXT_NAMES)
    return next((n for n in lengths if isinstance(n, int) and n > 0), None)


def load_adapter_config(settings: Settings) -> LoraConfig | None:
    """The config of the adapter in adapter_path, or None without one.

    lora_dropout replaces the adapter's; other LoRA keys must agree with it. Raises ModelError and
    ConfigError.
    """
    if settings.adapter_path is None:
        return None
    path, place = settings.adapter_path, settings.where("adapter_path")
    local = Path(path).expanduser()
    if local.exists():
        if not (local / ADAPTER_FILE).is_file():
            raise ModelError(f"{place} {path!r} is not an adapter: it has no {ADAPTER_FILE}")
        _check_safetensors(sorted(local.glob("*.safetensors")), place)
    try:
        adapter = PeftConfig.from_pretrained(located(path))
    except (OSError, *CONFIG_ERRORS) as error:
        raise ModelError(load_failure(settings, "adapter_path", path, error)) from None
    if not isinstance(adapter, LoraConfig):
        raise ModelError(f"{place} {path!r} is not a LoRA adapter but {adapter.peft_type}")
    given = dict(settings.lora or {})
    adapter.lora_dropout = given.pop("lora_dropout", adapter.lora_dropout)
    for name, value in given.items():
        saved = getattr(adapter, name)
        if value != (sorted(saved) if isinstance(saved, set) else saved):
            raise ConfigError(
                f"{settings.where(f'lora.{name}')} is {value!r}, but the adapter {path!r} was made "
                f"with {saved!r}, which cannot change; remove the key"
            )
    return adapter


def check_targets(
    settings: Settings, config: PretrainedConfig, lora: LoraConfig | None, notes: list[str]
) -> None:
    """Raise ConfigError for an adapter that matches nothing in the model or cannot be trained.

    Builds the model on torch's meta device, where tensors have shapes and no data. A model that
    cannot be built without its weights is a note; its targets are checked once they are loaded.
    """
    if lora is None:
        return
    # Initializations that read the weights find none here; the matching is the same without them.
    plain = copy.copy(lora)
    plain.init_lora_weights, plain.inference_mode = False, False
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _without_weights(settings, config)
        except Exception as error:  # a model's own code may raise anything
            notes.append(
                f"{settings.where('model_path')}: the model cannot be built without its weights "
                f"({one_line(error)}), so LoRA's targets are checked after loading them"
            )
            return
        modules = [name for name, _ in model.named_modules()]
        try:
            adapted = get_peft_model(model, plain)
        except CONFIG_ERRORS as error:
            text = " ".join(str(error).split())
            words = text.lower().replace("_", " ")
            named = [name for name in settings.lora or () if name.replace("_", " ") in words]
            raise ConfigError(
                f"{settings.where(f'lora.{named[0]}' if named else 'adapter_path')}: peft refuses "
                f"it: {text}"
            ) from None
    _check_names(settings, lora, adapted.targeted_module_names, modules)
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        raise ConfigError(
            f"{settings.where('lora.target_modules')}: the output layer cannot be adapted, because "
            "TRL reads its weight without the adapter, which would never be trained; remove it"
        )


def load_policy(
    settings: Settings, adapter: LoraConfig | None, distributed: bool = False
) -> PreTrainedModel | PeftModel:
    """The model to train, with the adapter of adapter_path. Raises ModelError.

    DPOTrainer adds a new adapter itself, with weights drawn from the run's seed.
    """
    model = load_base(settings, distributed)
    if adapter is None:
        return model
    try:
        return PeftModel.from_pretrained(
            model, located(settings.adapter_path), config=adapter, is_trainable=True
        )
    except (*WEIGHT_ERRORS, *CONFIG_ERRORS) as error:
        raise ModelError(
            f"{settings.where('adapter_path')} {settings.adapter_path!r} does not fit "
            f"{settings.model_path!r}: {one_line(error)}"
        ) from None


def load_base(settings: Settings, distributed: bool = False) -> PreTrainedModel:
    """The base model as TRL would load it, in float32 unless model_init_kwargs has a dtype.

    It is also the reference of a run on full weights. Raises ModelError and ConfigError.
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
    except (*WEIGHT_ERRORS, *CONFIG_ERRORS) as error:
        given = settings.locations.get("model_init_kwargs")
        how = f" with {given}" if given else ""
        raise ModelError(
            f"{place} {path!r}: its weights could not be loaded{how}: {one_line(error)}"
        ) from None
    if missing := sorted(loading["missing_keys"]):
        raise ModelError(
            f"{place} {path!r} lacks {len(missing)} of its weights (first {missing[0]}), which "
            "would be initialized at random; download the model again"
        )
    for module in model.modules():
        # On CPUs with AVX512-BF16, bitsandbytes packs a layer for inference at its first forward
        # pass in evaluation mode, such as step 0's; after that no gradient passes through it.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


def init_kwargs(settings: Settings) -> dict[str, Any]:
    """A copy of model_init_kwargs: the keyword arguments that weights are loaded with."""
    return dict(settings.option("model_init_kwargs") or {})


def _four_bit(settings: Settings) -> BitsAndBytesConfig:
    """NF4 with bfloat16 arithmetic: Dettmers et al. 2023 (QLoRA), section 3."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{settings.where('load_in_4bit')} needs the package bitsandbytes; pip install "
            "bitsandbytes, or remove the key"
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _check_directory(path: Path, place: str) -> None:
    if (path / ADAPTER_FILE).is_file():
        base = read_object(path / ADAPTER_FILE).get("base_model_name_or_path")
        raise ModelError(
            f"{place} '{path}' is an adapter, not a model; set adapter_path to it, and model_path "
            f"to the base model that its {ADAPTER_FILE} names{f' ({base})' if base else ''}"
        )
    if not (path / "config.json").is_file():
        raise ModelError(f"{place} '{path}' has no config.json, so it is not a model's directory")
    index = path / "model.safetensors.index.json"
    files = sorted(path.glob("*.safetensors"))
    if index.is_file():
        try:
            names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ModelError(f"{place}: {index} is damaged; download the model again") from None
        files = [path / name for name in sorted(names)]
    elif not files and not any(path.glob("*.bin")):
        raise ModelError(
            f"{place} '{path}' has no weights (*.safetensors); download the model again"
        )
    _check_safetensors(files, place)


def _check_safetensors(files: list[Path], place: str) -> None:
    """Open each file: its header has its length, so a truncated file is found without reading."""
    for file in files:
        try:
            with safe_open(file, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            problem = f"damaged ({one_line(error)})" if file.is_file() else "missing"
            raise ModelError(f"{place}: {file} is {problem}; download the model again") from None


def _without_weights(settings: Settings, config: PretrainedConfig) -> PreTrainedModel:
    """The model of the class that TRL loads: the config's own architecture, else a causal LM."""
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is not None:
        return architecture(config)
    trust = settings.option("trust_remote_code")
    return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust)


def _check_names(
    settings: Settings, lora: LoraConfig, adapted: list[str], modules: list[str]
) -> None:
    """Raise ConfigError for names without a match, which peft ignores if another name has one."""
    for key, within in (("modules_to_save", modules), ("target_modules", adapted)):
        names = getattr(lora, key)
        names = names if isinstance(names, set | list | tuple) else ()
        if unmatched := [n for n in names if not any(f".{m}".endswith(f".{n}") for m in within)]:
            last = ", ".join(sorted({name.rpartition(".")[2] for name in adapted}))
            raise ConfigError(
                f"{settings.where(f'lora.{key}')}: {', '.join(sorted(unmatched))} match no module "
                f"of this model; remove them (adapted are {last})"
            )
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(lora, key) or {}:
            if not any(get_pattern_key([pattern], name) == pattern for name in adapted):
                raise ConfigError(
                    f"{settings.where(f'lora.{key}')}: {pattern!r} matches no adapted module; "
                    "remove it"
                )

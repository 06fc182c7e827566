"""Check a model's and an adapter's files before any weight is read, then load the weights."""

import dataclasses
import functools
import importlib.util
import inspect
import json
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from peft import LoraConfig, PeftConfig, PeftModel
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import cached_file
from trl.trainer.utils import create_model_from_path

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, ModelError, one_line
from dpo_wrap.hub import load_failure, located
from dpo_wrap.model.tokenizer import load_tokenizer
from dpo_wrap.run_dir import read_object

ADAPTER_FILE, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# transformers maps its models' names to the first; models with code of their own may not.
CONTEXT_NAMES = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
CONFIG_ERRORS = (ValueError, LookupError, TypeError, AttributeError, ImportError)
CONFIG_ERRORS += (NotImplementedError, StrictDataclassError, re.error)
"""What transformers and peft raise for a config that they cannot use."""
WEIGHT_ERRORS = (OSError, RuntimeError, SafetensorError, pickle.UnpicklingError, AssertionError)


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
            trust_remote_code=trusts_code(settings),
            revision=init_kwargs(settings).get("revision"),
        )
    except OSError as error:
        raise ModelError(load_failure(settings, "model_path", path, error)) from None
    except CONFIG_ERRORS as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{place} {path!r} has code of its own, which is run only if you trust it: set "
                "trust_remote_code: true in your config or with --set trust_remote_code=true "
                "(merge: --trust-remote-code)"
            ) from None
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
    _check_architecture(config, f"{place} {path!r}")
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
        with warnings.catch_warnings():
            # peft only warns about weights missing in the file, and leaves their initial values.
            warnings.filterwarnings("error", "Found missing adapter keys")
            policy = PeftModel.from_pretrained(
                model, located(settings.adapter_path), config=adapter, is_trainable=True
            )
    except UserWarning:
        raise ModelError(
            f"{settings.where('adapter_path')} {settings.adapter_path!r}: the adapter lacks some "
            "of its weights, or belongs to another model; train it again"
        ) from None
    except (*WEIGHT_ERRORS, *CONFIG_ERRORS) as error:
        raise ModelError(
            f"{settings.where('adapter_path')} {settings.adapter_path!r} does not fit "
            f"{settings.model_path!r}: {one_line(error)}"
        ) from None
    name = module_name(model, model.get_input_embeddings())
    always = name.endswith(tuple(adapter.modules_to_save or ()))
    if not always and _saved_rows(adapter_shapes(settings), name) is not None:
        # peft would save embeddings only if it finds their number changed, and not offline.
        policy.save_pretrained = functools.partial(
            policy.save_pretrained, save_embedding_layers=True
        )
    return policy


def load_base(settings: Settings, distributed: bool = False) -> PreTrainedModel:
    """The base model as TRL would load it, in float32 unless model_init_kwargs has a dtype.

    It is also the reference of a run on full weights. Raises ModelError and ConfigError.
    """
    path, place = settings.model_path, settings.where("model_path")
    kwargs = init_kwargs(settings)
    kwargs["trust_remote_code"] = trusts_code(settings)
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
    make_scorable(model)
    fit_embeddings(settings, model)
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


def trusts_code(settings: Settings) -> bool:
    """Whether the user lets a model's own code run."""
    given = init_kwargs(settings).get("trust_remote_code")
    return bool(settings.option("trust_remote_code") if given is None else given)


def init_kwargs(settings: Settings) -> dict[str, Any]:
    """A copy of model_init_kwargs: the keyword arguments that weights are loaded with."""
    return dict(settings.option("model_init_kwargs") or {})


def module_name(model: nn.Module, module: nn.Module) -> str:
    """The name of a module within a model; empty for the model itself and for another's module."""
    return next((name for name, other in model.named_modules() if other is module), "")


def make_scorable(model: PreTrainedModel) -> None:
    """Complete what TRL's fused output layer reads of a model."""
    if model.base_model is model and isinstance(getattr(model, "model", None), nn.Module):
        # Llama 4's names the prefix of another class.
        model.base_model_prefix = "model"
    text = model.config.get_text_config()
    if not hasattr(text, "num_experts") and hasattr(text, "num_local_experts"):
        text.num_experts = text.num_local_experts


def adapter_shapes(settings: Settings) -> dict[str, list[int]]:
    """The shapes of the tensors in the file of adapter_path, by name; empty without one."""
    if settings.adapter_path is None:
        return {}
    try:
        file = cached_file(located(settings.adapter_path), ADAPTER_WEIGHTS)
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_slice(name).get_shape() for name in tensors.offset_keys()}
    except (OSError, SafetensorError):
        return {}  # loading the weights reports it


def fit_embeddings(settings: Settings, model: PreTrainedModel) -> None:
    """Resize the embeddings to those that the adapter in adapter_path was saved with.

    Raises ModelError for an adapter that needs more rows than the model has and lacks their values.
    """
    shapes = adapter_shapes(settings)
    if not shapes or model.get_output_embeddings() is None:
        return
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    rows, problem = layers[0].weight.shape[0], None
    names = [module_name(model, layer) for layer in layers]
    saved, output = (_saved_rows(shapes, name) for name in names)
    tied = layers[0].weight is layers[1].weight
    if saved is None and Path(located(settings.adapter_path), "tokenizer_config.json").is_file():
        tokens = len(load_tokenizer(dataclasses.replace(settings, chat_template=None)))
        if tokens > rows:
            problem = (
                f"its tokenizer has {tokens} tokens, but it has no embeddings for them; save it "
                "again with save_embedding_layers=True"
            )
    elif saved is not None and saved > rows and output is None and not tied:
        problem = (
            f"it has {saved} embeddings, but no output layer of that size; train it again with "
            f"modules_to_save: [{names[1]}]"
        )
    if problem:
        raise ModelError(
            f"{settings.where('adapter_path')} {settings.adapter_path!r} does not fit "
            f"{settings.model_path!r}, which has {rows} embeddings: {problem}"
        )
    if saved not in (None, rows):
        model.resize_token_embeddings(saved, mean_resizing=False)


def _saved_rows(shapes: dict[str, list[int]], name: str) -> int | None:
    """The rows of the embeddings or output layer of this name in an adapter's file."""
    start = f"base_model.model.{name}."
    for tensor, shape in shapes.items():
        if tensor.startswith(start) and tensor.endswith("weight") and "lora_" not in tensor:
            return shape[0]
    return None


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


def _check_architecture(config: PretrainedConfig, place: str) -> None:
    """Raise ModelError for a class that does not generate text, or that transformers lacks."""
    # The classes by which TRL loads a model with code of its own.
    classes = ("AutoModelForCausalLM", "AutoModelForImageTextToText")
    own_code = any(name in (getattr(config, "auto_map", None) or {}) for name in classes)
    causal = getattr(MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None), "__name__", "")
    if not config.architectures:
        raise ModelError(
            f"{place}: its config.json has no architectures; add the name of its class, "
            f'"architectures": ["{causal or "...ForCausalLM"}"]'
        )
    name = config.architectures[0]
    architecture = getattr(transformers, name, None)
    if architecture is None and not own_code and not causal:
        version = transformers.__version__
        raise ModelError(f"{place} is a {name}, which transformers {version} does not have")
    if architecture is not None and not architecture.can_generate():
        such = f", such as a {causal}" if causal.endswith("ForCausalLM") else ""
        raise ModelError(
            f"{place} is a {name}, which does not generate text; set model_path to a causal "
            f"language model{such}"
        )
    # The classes of encoders (BERT ...) check this, and see the whole text without it.
    encoder = architecture is not None and "is_decoder" in inspect.getsource(architecture.__init__)
    if encoder and not getattr(config, "is_decoder", True):
        raise ModelError(
            f"{place} is a {name} that sees the whole text, also what follows a token; set "
            "is_decoder to true in its config.json if it was trained as a decoder"
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

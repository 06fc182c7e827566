"""Merge an adapter, save the model, load it again and compare its log-probabilities."""

import contextlib
import dataclasses
import os
import random
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import cached_file

from dpo_wrap.config import Settings
from dpo_wrap.errors import ModelError, RunError, one_line
from dpo_wrap.files import OWN, clear_own, make_own
from dpo_wrap.hub import located
from dpo_wrap.logps import next_token_logps
from dpo_wrap.model import load
from dpo_wrap.model.tokenizer import load_tokenizer, stop_ids
from dpo_wrap.report.card import README, model_card
from dpo_wrap.run_dir import read_run
from dpo_wrap.terminal import show

# Keys of model_init_kwargs that concern the training machine or its precision.
TRAINING_ONLY = {
    *("dtype", "torch_dtype", "device_map", "max_memory", "offload_folder", "tp_plan"),
    *("quantization_config", "attn_implementation", "use_kernels"),
}
# What a model with vision is served with, next to its tokenizer.
PROCESSOR_FILES = tuple(
    f"{name}_config.json" for name in ("preprocessor", "processor", "video_preprocessor")
)
# The largest difference of a log-probability, in nats, that rounding to a dtype may cause.
TOLERANCES = {"float32": 1e-3, "float16": 5e-2, "bfloat16": 2e-1}
PROBE_TEXTS = (
    "The quick brown fox jumps over the lazy dog, and then it sleeps in the sun.",
    "Question: What is 17 + 25? Answer: 42. def add(a, b):\n    return a + b\n",
)
PROBE_MESSAGES = [{"role": "user", "content": "Which season is it when the leaves fall, and why?"}]
RANDOM_PROBES, PROBE_LENGTH = 5, 32
"""Sequences of random tokens, and tokens of each probe."""


def merge_adapter(settings: Settings, dtype: str | None, tolerance: float | None) -> None:
    """Merge the adapter in adapter_path into model_path and save one model in output_dir.

    The models are merged and compared in float32 on the CPU; `dtype` of the saved weights defaults
    to the one that the base model was loaded in for training, `tolerance` in nats to
    default_tolerance. Raises ModelError, and RunError past the tolerance; nothing is left then.
    """
    if settings.load_in_4bit:
        _log(
            "load_in_4bit: the adapter is merged into the unquantized base model, so answers may "
            "differ slightly from those in training"
        )
    trained_in = load.init_kwargs(settings).get("dtype", "float32")
    settings = _in_float32(settings)
    config = load.load_config(settings)
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{settings.where('model_path')} {settings.model_path!r} is stored quantized, so a "
            "merge would round it again; set it to the path of the unquantized original"
        )
    adapter = load.load_adapter_config(settings)
    tokenizer = load_tokenizer(settings)
    dtype = dtype or _dtype_name(trained_in, config)
    _log(f"loading {settings.model_path} with the adapter {settings.adapter_path}")
    with warnings.catch_warnings():
        # peft and transformers warn about tied weights and dtypes; the comparison decides.
        warnings.simplefilter("ignore")
        model = load.load_policy(settings, adapter).eval()
        _check_biases(settings, model)
        probes = _probe_ids(tokenizer, model, config)
        adapted = _logps(model, probes)
        if adapted.isnan().any():
            raise ModelError(
                f"{settings.adapter_path}: the model with this adapter returns NaN; train it "
                "again with a lower learning_rate"
            )
        with model.disable_adapter():
            trained = largest_difference(adapted, _logps(model, probes))
        _log(f"merging, and saving in {dtype}")
        with _temporary_output(Path(settings.output_dir)) as folder:
            _save_merged(model, tokenizer, dtype, folder, settings)
            run = read_run(Path(settings.adapter_path)) or {}
            known = {"base": settings.model_path, "dtype": dtype}
            card = model_card(Path(settings.output_dir).name, run, known)
            (folder / README).write_text(card, "utf-8")
            del model  # only one model at a time is in memory
            _log("comparing the saved model with the adapter")
            # Without model_init_kwargs, which may name a subfolder or revision of the base model.
            trl = {**settings.trl, "model_init_kwargs": {"device_map": None}}
            saved = dataclasses.replace(settings, model_path=str(folder), trl=trl)
            merged = load.load_base(saved).eval()
            nats = largest_difference(_logps(merged, probes), adapted)
            _log(
                f"log-probabilities differ by at most {nats:.2g} nats; training changed them by "
                f"up to {trained:.2g}"
            )
            tolerance = default_tolerance(trained, dtype) if tolerance is None else tolerance
            if not nats <= tolerance:  # also true for NaN
                fix = f"{dtype} rounds too much: use --dtype float32, or a larger --tolerance"
                if dtype == "float32":
                    fix = (
                        "this adapter cannot be merged into this model, for example because it is "
                        f"on embeddings tied to the output layer; {_unmerged(settings)}"
                    )
                raise RunError(
                    f"the merged model differs from the adapter by {nats:.2g} nats, more than the "
                    f"tolerance of {tolerance:.2g}; nothing was written; {fix}"
                )
    _log(f"merged: {settings.output_dir}, weights in {dtype}, with tokenizer")
    if tokenizer.chat_template is None:
        _log("it has no chat template: query it through /v1/completions")


def _log(text: str) -> None:
    show(text)


def largest_difference(ones: Tensor, others: Tensor) -> float:
    """The largest absolute difference of two tensors of log-probabilities; NaN if one has NaN."""
    # Masked tokens are -inf in both models, and the difference of two infinities is NaN.
    return (ones - others).masked_fill(ones == others, 0).abs().max().item()


def default_tolerance(trained: float, dtype: str) -> float:
    """The tolerance of the dtype in nats, at most half of the change by training."""
    return min(TOLERANCES[dtype], max(trained / 2, TOLERANCES["float32"]))


def _in_float32(settings: Settings) -> Settings:
    """Settings that load the weights in float32 on the CPU, unquantized."""
    kwargs = {n: v for n, v in load.init_kwargs(settings).items() if n not in TRAINING_ONLY}
    return dataclasses.replace(
        settings,
        trl={**settings.trl, "model_init_kwargs": kwargs | {"device_map": None}},
        lora={},
        load_in_4bit=False,
        chat_template=None,  # the run's tokenizer already has it
    )


def _dtype_name(trained_in: str | None, config: PretrainedConfig) -> str:
    """The dtype of the base model in training; `auto` and None mean the dtype of its files."""
    name = str(config.dtype if trained_in in (None, "auto") else trained_in).removeprefix("torch.")
    return name if name in TOLERANCES else "float32"


def _check_biases(settings: Settings, model: PeftModel) -> None:
    """Raise ModelError for an adapter with biases on layers that have none."""
    for name, layer in model.get_base_model().named_modules():
        biased = isinstance(layer, LoraLayer) and any(layer.lora_bias.values())
        if biased and getattr(layer.get_base_layer(), "bias", None) is None:
            raise ModelError(
                f"{settings.adapter_path}: the adapter has a bias (lora_bias: true) on {name}, "
                "which has none to merge it into; train it again without lora_bias"
            )


def _probe_ids(
    tokenizer: PreTrainedTokenizerBase, model: PeftModel, config: PretrainedConfig
) -> list[list[int]]:
    """Token ids of the probe prompts: texts, a chat message, and random tokens."""
    length = min(PROBE_LENGTH, load.context_length(config) or PROBE_LENGTH)
    probes = [tokenizer(text)["input_ids"] for text in PROBE_TEXTS]
    if tokenizer.chat_template is not None:
        # Some templates raise on a user turn without a system turn.
        with contextlib.suppress(Exception):
            probes.append(tokenizer.apply_chat_template(PROBE_MESSAGES)["input_ids"])
    rows = model.get_input_embeddings().weight.shape[0]
    # Added tokens may be placeholders for images, which the probes do not have.
    plain = sorted(set(range(min(rows, len(tokenizer)))) - set(tokenizer.added_tokens_decoder))
    draw = random.Random(0)
    probes += [draw.choices(plain, k=length) for _ in range(RANDOM_PROBES)]
    return [ids[:length] for ids in probes if ids and max(ids) < rows]


def _logps(model: nn.Module, probes: list[list[int]]) -> Tensor:
    """Log-probabilities of every next token after every probe token: (positions, vocabulary)."""
    return torch.cat([next_token_logps(model, ids) for ids in probes])


def _save_merged(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    dtype: str,
    folder: Path,
    settings: Settings,
) -> None:
    try:
        merged = model.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
    except (ValueError, NotImplementedError, AttributeError, TypeError) as error:
        raise ModelError(
            f"peft cannot merge this adapter: {one_line(error)}; {_unmerged(settings)}"
        ) from None
    generation = merged.generation_config
    if tokenizer.chat_template is not None and generation is not None:
        # A base model's config lacks the template's end of turn.
        ends = generation.eos_token_id
        ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
        if missing := [token for token in stop_ids(tokenizer) if token not in ends]:
            generation.eos_token_id = [*ends, *missing]
    merged.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in PROCESSOR_FILES:
        with contextlib.suppress(OSError):
            shutil.copyfile(cached_file(located(settings.model_path), name), folder / name)


def _unmerged(settings: Settings) -> str:
    return (
        f"serve the adapter unmerged: vllm serve {settings.model_path} --enable-lora "
        f"--lora-modules tuned={settings.adapter_path}"
    )


@contextlib.contextmanager
def _temporary_output(out: Path) -> Iterator[Path]:
    """OUT.part, which is renamed to OUT on success and removed otherwise."""
    folder = out.with_name(f"{out.name}.part")
    clear_own(folder)
    new = [parent for parent in folder.parents if not parent.exists()]
    try:
        make_own(folder)
        yield folder
        (folder / OWN).unlink()
        os.rename(folder, out)
    finally:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)
            for parent in new:
                parent.rmdir()

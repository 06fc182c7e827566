"""An adapter merged into its base model, saved, loaded again and held to what the adapter gave."""

import contextlib
import dataclasses
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from peft import LoraConfig, PeftModel
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from trl.trainer.utils import create_model_from_path

from dpo_wrap.config import Settings
from dpo_wrap.errors import ModelError, RunError, one_line
from dpo_wrap.files import OWN, clear_own, make_own
from dpo_wrap.model.load import init_kwargs, load_adapter_config, load_config, load_policy
from dpo_wrap.model.tokenizer import load_tokenizer, stop_ids
from dpo_wrap.probes import TOLERANCES, Agreement, compare, log_probs, probe_ids, tolerated

# What of model_init_kwargs concerns the machine or the precision that a run was trained with.
TRAINING_ONLY = {
    *("dtype", "torch_dtype", "device_map", "max_memory", "offload_folder", "tp_plan"),
    *("quantization_config", "attn_implementation", "use_kernels"),
}


@dataclass(frozen=True)
class Merged:
    """What was written."""

    dtype: str
    chats: bool
    """Whether it has a chat template."""


def merge_adapter(
    settings: Settings,
    dtype: str | None,
    tolerance: float | None,
    say: Callable[[str], None],
) -> Merged:
    """Merge the adapter in adapter_path into model_path and write both as one to output_dir.

    It is merged and compared in float32 on the CPU and saved as `dtype`, by default the one that
    the base was loaded in for training; `tolerance` is in nats, by default tolerated()'s. Raises
    ModelError, and RunError past the tolerance; nothing is left then.
    """
    out, place = Path(settings.output_dir), settings.where("model_path")
    trained_in, quantised = init_kwargs(settings).get("dtype", "float32"), settings.load_in_4bit
    settings = _in_single_precision(settings)
    config = load_config(settings)
    if getattr(config, "quantization_config", None):
        raise ModelError(
            f"{place} {settings.model_path!r} is stored quantised, and a merge would round it "
            "again; put the path of its unquantised original there"
        )
    adapter = load_adapter_config(settings)
    tokenizer = load_tokenizer(settings)
    dtype = dtype or _dtype_name(trained_in, config)
    apart = (
        "serve the two as they are: vllm serve "
        f"{settings.model_path} --enable-lora --lora-modules tuned={settings.adapter_path}"
    )
    if quantised:
        say(
            "load_in_4bit: the adapter is merged into the base as it is unquantised, so answers "
            "may differ a little from those in training"
        )
    say(f"loading {settings.model_path} with the adapter of {settings.adapter_path}")
    with warnings.catch_warnings():
        # peft's and transformers' on tied weights and dtypes: the comparison is what counts.
        warnings.simplefilter("ignore")
        model = _adapted(settings, adapter)
        probes = probe_ids(tokenizer, model, config)
        adapted = log_probs(model, probes)
        if adapted.isnan().any():
            raise ModelError(
                f"{settings.adapter_path}: with this adapter the model's probabilities are no "
                "numbers (NaN); train it again, with a lower learning_rate"
            )
        with model.disable_adapter():
            base = log_probs(model, probes)
        say(f"merging, and saving it as {dtype}")
        with _written_aside(out) as part:
            _save(model, tokenizer, getattr(torch, dtype), part, apart)
            del model  # one model at a time is in memory
            say("comparing what was saved with the adapter")
            agreement = compare(log_probs(_reloaded(settings, part), probes), adapted, base)
            tolerance = tolerated(agreement, dtype) if tolerance is None else tolerance
            say(_spoken(agreement))
            if not agreement.difference <= tolerance:  # NaN is no agreement either
                raise RunError(_past(agreement, tolerance, dtype, apart))
    return Merged(dtype, tokenizer.chat_template is not None)


def _adapted(settings: Settings, adapter: LoraConfig) -> PeftModel:
    try:
        with warnings.catch_warnings():
            # peft leaves what the file lacks at its initial value, and only warns.
            warnings.filterwarnings("error", "Found missing adapter keys")
            return load_policy(settings, adapter).eval()
    except UserWarning:
        raise ModelError(
            f"{settings.adapter_path}: the adapter lacks some of its weights, or is of another "
            "model; train it again"
        ) from None


def _in_single_precision(settings: Settings) -> Settings:
    """The run's settings with its weights as they are on disk, in float32, and no key to judge."""
    kwargs = {n: v for n, v in init_kwargs(settings).items() if n not in TRAINING_ONLY}
    trl = {**settings.trl, "model_init_kwargs": kwargs | {"device_map": None}}
    return dataclasses.replace(
        settings,
        trl=MappingProxyType(trl),
        lora=MappingProxyType({}),
        load_in_4bit=False,
        chat_template=None,  # the run's tokenizer has it already
    )


def _dtype_name(trained_in: str | None, config: PretrainedConfig) -> str:
    """`auto` and None stand for the dtype of the files."""
    if trained_in in (None, "auto"):
        trained_in = config.dtype or torch.float32
    name = str(trained_in).removeprefix("torch.")
    return name if name in TOLERANCES else "float32"


def _save(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    part: Path,
    apart: str,
) -> None:
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except (ValueError, NotImplementedError, AttributeError, TypeError) as error:
        raise ModelError(f"peft cannot merge this adapter: {one_line(error)}; {apart}") from None
    merged.to(dtype).save_pretrained(part)
    tokenizer.save_pretrained(part)
    _end_with_the_turn(part / "generation_config.json", tokenizer)


def _end_with_the_turn(file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Stop at the template's end of turn too, which a base model's generation config lacks."""
    if tokenizer.chat_template is None or not file.is_file():
        return
    config = json.loads(file.read_text("utf-8"))
    known = config.get("eos_token_id")
    known = known if isinstance(known, list) else [known] if known is not None else []
    if missing := [number for number in stop_ids(tokenizer) if number not in known]:
        config["eos_token_id"] = [*known, *missing]
        file.write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def _reloaded(settings: Settings, part: Path) -> PreTrainedModel:
    trusted = settings.option("trust_remote_code")
    try:
        model = create_model_from_path(str(part), device_map=None, trust_remote_code=trusted)
    except (ValueError, RuntimeError, KeyError, ImportError) as error:
        raise RunError(
            f"the merged model cannot be loaded again ({one_line(error)}); nothing was written"
        ) from None
    return model.eval()


@contextlib.contextmanager
def _written_aside(out: Path) -> Iterator[Path]:
    """OUT.part, which becomes OUT when all went well, and else is removed."""
    part = out.with_name(f"{out.name}.part")
    clear_own(part)
    new = [folder for folder in part.parents if not folder.exists()]
    try:
        make_own(part)
        yield part
        (part / OWN).unlink()
        os.rename(part, out)
    finally:
        if part.exists():
            shutil.rmtree(part, ignore_errors=True)
            for folder in new:
                folder.rmdir()


def _spoken(agreement: Agreement) -> str:
    return (
        f"log-probabilities differ by at most {agreement.difference:.2g} nats, where training "
        f"changed them by up to {agreement.effect:.2g}; the likeliest token is the same at "
        f"{agreement.alike} of {agreement.positions} positions"
    )


def _past(agreement: Agreement, tolerance: float, dtype: str, apart: str) -> str:
    if dtype != "float32":
        mend = f"{dtype} rounds too much away: --dtype float32, or a larger --tolerance"
    else:
        mend = (
            "this adapter cannot be merged into this model (one on embeddings that the output "
            f"layer shares cannot); {apart}"
        )
    return (
        f"the merged model is not the adapter's: {agreement.difference:.2g} nats apart, and "
        f"{tolerance:.2g} is tolerated; nothing was written; {mend}"
    )

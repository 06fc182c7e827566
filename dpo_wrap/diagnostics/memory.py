"""Out of memory: the peak, the longest pairs, and what to change, the cheapest change first."""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers.utils import is_bitsandbytes_available, is_torch_bf16_gpu_available
from trl import DPOTrainer

from dpo_wrap.diagnostics.checks import current_step
from dpo_wrap.diagnostics.pairs import batch_rows, listed
from dpo_wrap.errors import RunError
from dpo_wrap.model.load import init_kwargs
from dpo_wrap.training.prepare import Prepared


@contextlib.contextmanager
def explain_out_of_memory(prepared: Prepared, trainer: DPOTrainer | None = None) -> Iterator[None]:
    """Raise RunError with the cause and the remedies instead of an out-of-memory error.

    `trainer` is None while the weights are loaded.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError("\n".join(_lines(prepared, trainer))) from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: by the type of the error on a GPU, by its message on the CPU."""
    kinds = torch.OutOfMemoryError | MemoryError
    return isinstance(error, kinds) or "DefaultCPUAllocator" in str(error)


def resident_bytes(name: str = "VmHWM:") -> int:
    """Bytes of this process in memory: the peak so far (VmHWM) or now (VmRSS)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    # macOS counts in bytes, other systems in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def format_bytes(count: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _lines(prepared: Prepared, trainer: DPOTrainer | None) -> Iterator[str]:
    device = prepared.arguments.dpo.device
    batch = trainer.batch if trainer is not None else None
    when = "while loading the weights" if trainer is None else "before step 0"
    peak = f"{format_bytes(resident_bytes())} in this process"
    if device.type == "cuda":
        total = format_bytes(torch.cuda.get_device_properties(device).total_memory)
        peak = f"{format_bytes(torch.cuda.max_memory_allocated(device))} of the GPU's {total}"
    yield f"{when if batch is None else current_step(trainer)}: out of memory at a peak of {peak}"
    if batch is not None:
        rows = sorted(batch_rows(trainer, batch), key=lambda row: -row[1])
        names = listed([f"{name}: {tokens:,} tokens" for name, tokens in rows])
        yield f"  pairs of the batch, the longest first: {names}"
    median, most, _, longest = prepared.fits["train"].lengths["pair"]
    yield f"  tokens of training pairs: median {median:,}, 95 % {most:,}, longest {longest:,}"
    yield "  what helps, in this order:"
    for number, remedy in enumerate(_remedies(prepared, trainer, most, longest), start=1):
        yield f"  {number}. {remedy}"


def _remedies(
    prepared: Prepared, trainer: DPOTrainer | None, most: int, longest: int
) -> Iterator[str]:
    """Changes that this config still allows: first those that change no result."""
    settings, dpo = prepared.settings, prepared.arguments.dpo
    size, steps = dpo.per_device_train_batch_size, dpo.gradient_accumulation_steps
    if trainer is not None and not trainer.model.training and trainer.state.global_step:
        held_out = trainer.batch["input_ids"].shape[0] // 2
        if held_out > 1:
            yield f"per_device_eval_batch_size: {held_out // 2} (now {held_out})"
    elif trainer is not None:
        if not dpo.activation_checkpointing:
            yield "activation_checkpointing: true, a third slower, the same result"
        if size > 1:
            part = size // 2 if size % 2 == 0 else 1
            more = f"gradient_accumulation_steps: {size // part * steps}"
            now = f"now {size} and {steps}"
            yield f"batch_size: {part} with {more} ({now}), as many pairs per step"
    if settings.prefix_sharing == "off":
        yield "prefix_sharing: auto, which computes a prompt once and no padding, the same result"
    limit = dpo.max_length or longest
    if trainer is not None and most < min(limit, longest):
        yield f"max_length: {most} (now {limit}), which cuts at most 5 % of the pairs"
    full, gpu = settings.lora is None, dpo.device.type == "cuda"
    if full and not dpo.precompute_ref_log_probs:
        yield "precompute_ref_log_probs: true, which keeps no second copy of the model"
    if gpu and not (dpo.bf16 or dpo.fp16) and is_torch_bf16_gpu_available():
        yield "bf16: true, which halves the activations"
    if full:
        yield "LoRA instead of lora: false, which keeps optimizer state for few weights"
    elif not settings.load_in_4bit:
        if "dtype" not in init_kwargs(settings):
            yield "model_init_kwargs: {dtype: bfloat16}, half the size of the base model's weights"
        if gpu and is_bitsandbytes_available():
            yield "load_in_4bit: true, a quarter of the size of the base model's weights, or less"
    yield "a smaller model, or a device with more memory"

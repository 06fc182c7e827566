"""Out of memory: the peak, the longest rows, and what to change, the cheapest change first."""

import contextlib
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers.utils import is_bitsandbytes_available, is_torch_bf16_gpu_available
from trl import DPOTrainer

from dpo_wrap.diagnostics.batch_rows import listed, rows_in
from dpo_wrap.errors import RunError
from dpo_wrap.model.load import init_kwargs
from dpo_wrap.training.prepare import Prepared

NEARLY = 95
"""The percentile of lengths that max_length may be lowered to."""


@contextlib.contextmanager
def explained(prepared: Prepared, trainer: DPOTrainer | None = None) -> Iterator[None]:
    """Raise RunError with all that is known in place of an error of memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError("\n".join(_lines(prepared, trainer))) from None


def is_out_of_memory(error: Exception) -> bool:
    """Whether it says so: on a GPU by its type, on the CPU by its words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in str(error)
    )


def resident(name: str = "VmHWM:") -> int:
    """Bytes of this process in memory: at most so far (VmHWM) or now (VmRSS)."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    # In KiB, but for macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def readable(count: int) -> str:
    """Bytes in GiB or MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def _lines(prepared: Prepared, trainer: DPOTrainer | None) -> list[str]:
    device = prepared.arguments.dpo.device
    batch = trainer.batch if trainer else None
    lines = [f"{_moment(trainer)}: out of memory, at peak {_peak(device)}"]
    if batch is not None:
        rows = sorted(rows_in(trainer, batch), key=lambda row: -row.tokens)
        names = listed([f"{row.name}: {row.tokens:,} tokens" for row in rows])
        lines.append(f"  the batch, the longest pairs first: {names}")
    shares = prepared.fits["train"].lengths["pair"]
    lines.append(
        f"  of the training pairs, half have at most {shares[0]:,} tokens, {NEARLY} % at most "
        f"{shares[1]:,}, the longest {shares[-1]:,}"
    )
    remedies = list(_remedies(prepared, trainer, shares[1], shares[-1]))
    lines.append("  what helps, in this order:")
    return [*lines, *(f"  {place}. {text}" for place, text in enumerate(remedies, start=1))]


def _moment(trainer: DPOTrainer | None) -> str:
    if trainer is None:
        return "while the weights were loaded"
    if trainer.batch is None:
        return "before step 0"
    step = trainer.state.global_step
    if trainer.model.training:
        return f"step {step + 1}"
    return f"evaluation after step {step}" if step else "step 0"


def _peak(device: torch.device) -> str:
    if device.type != "cuda":
        return f"{readable(resident())} in this process"
    whole = torch.cuda.get_device_properties(device).total_memory
    return f"{readable(torch.cuda.max_memory_allocated(device))} of the GPU's {readable(whole)}"


def _remedies(
    prepared: Prepared, trainer: DPOTrainer | None, nearly: int, longest: int
) -> Iterator[str]:
    """What this config leaves to try: first what changes no result, then what costs something."""
    settings, dpo = prepared.settings, prepared.arguments.dpo
    batch = trainer.batch if trainer else None
    size, steps = dpo.per_device_train_batch_size, dpo.gradient_accumulation_steps
    if batch is not None and not trainer.model.training and trainer.state.global_step:
        held_out = batch["input_ids"].shape[0] // 2
        if held_out > 1:
            yield f"per_device_eval_batch_size: {held_out // 2} (now {held_out})"
    elif trainer is not None:
        if not dpo.activation_checkpointing:
            yield "activation_checkpointing: true, slower by about a third, the same result"
        if size > 1:
            part = 1 if size % 2 else size // 2
            yield (
                f"batch_size: {part} with gradient_accumulation_steps: {size // part * steps} (now "
                f"{size} and {steps}), as many pairs a step"
            )
    if settings.prefix_sharing == "off":
        yield "prefix_sharing: auto, which computes a prompt once and no padding, the same result"
    limit = dpo.max_length or longest
    if trainer is not None and nearly < min(limit, longest):
        share = 100 - NEARLY
        yield f"max_length: {nearly} (now {limit}), which cuts at most {share} % of the pairs"
    full, gpu = settings.lora is None, dpo.device.type == "cuda"
    if full and not dpo.precompute_ref_log_probs:
        yield "precompute_ref_log_probs: true, which keeps no second copy of the model"
    if gpu and not (dpo.bf16 or dpo.fp16) and is_torch_bf16_gpu_available():
        yield "bf16: true, which halves the activations"
    if full:
        yield "LoRA in place of lora: false, which spares the optimizer's state of all weights"
    elif not settings.load_in_4bit:
        if "dtype" not in init_kwargs(settings):
            yield "model_init_kwargs: {dtype: bfloat16}, half of the base model's weights"
        if gpu and is_bitsandbytes_available():
            yield "load_in_4bit: true, a quarter or less of the base model's weights"
    yield "a smaller model, or a device with more memory"

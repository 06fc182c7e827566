"""diagnostics.memory: out of memory names the peak, the longest pairs and the remedies."""

import json
from types import SimpleNamespace

import pytest
import torch
from training import ROWS, runner
from trl import DPOTrainer

from dpo_wrap.diagnostics import memory
from dpo_wrap.diagnostics.memory import (
    explain_out_of_memory,
    format_bytes,
    is_out_of_memory,
    resident_bytes,
)
from dpo_wrap.errors import RunError
from dpo_wrap.training import session

ON_CPU = "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory"


@pytest.fixture
def failure(tiny_model_dir, tmp_path, capsys):
    """A function that runs a training that fails; returns what it prints on stderr."""
    start = runner(tiny_model_dir, tmp_path)
    long = ROWS[5] | {"chosen": f" {'so ' * 20}kind."}

    def run(*options, copies=1, **keys):
        rows = [*ROWS[:5], long, *ROWS[6:]]
        more = [row | {"prompt": f"{row['prompt']} {n}"} for n in range(1, copies) for row in ROWS]
        (tmp_path / "pairs.json").write_text(json.dumps(rows + more))
        status, _ = start(*options, **keys)
        assert status == 1
        return capsys.readouterr().err

    return run


def run_out(monkeypatch, step, training=True, error=None):
    """Run out of memory in the batch after this step."""
    compute_loss = DPOTrainer.compute_loss

    def fail(self, *args, **kwargs):
        if self.state.global_step == step and self.model.training == training:
            raise error or torch.OutOfMemoryError("CUDA out of memory")
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(DPOTrainer, "compute_loss", fail)


def test_the_message_has_the_step_the_peak_the_longest_pairs_and_remedies_in_order(
    failure, monkeypatch
):
    run_out(monkeypatch, step=3)
    lines = failure(batch_size=6, activation_checkpointing=False).splitlines()
    start = next(n for n, line in enumerate(lines) if "out of memory" in line)
    where, batch, lengths, helps, *remedies = lines[start:]
    assert where.startswith("step 4: out of memory at a peak of ")
    assert where.endswith(" in this process")
    # The fourth batch is the last of the first epoch: 23 pairs, less three times six.
    assert batch.count("pairs.json#") == 5
    tokens = [int(part.split(": ")[-1].split()[0]) for part in batch.split(", ")[1:]]
    assert tokens == sorted(tokens, reverse=True)
    assert lengths.endswith("tokens of training pairs: median 22, 95 % 23, longest 80")
    assert helps == "  what helps, in this order:"
    assert [line.split(". ", 1)[1] for line in remedies] == [
        "activation_checkpointing: true, a third slower, the same result",
        "batch_size: 3 with gradient_accumulation_steps: 2 (now 6 and 1), as many pairs per step",
        "max_length: 23 (now 128), which cuts at most 5 % of the pairs",
        "model_init_kwargs: {dtype: bfloat16}, half the size of the base model's weights",
        "a smaller model, or a device with more memory",
    ]


def test_with_full_weights_the_remedies_avoid_copies_of_them(failure, monkeypatch):
    run_out(monkeypatch, step=0)
    error = failure(lora=False, batch_size=1, max_length=23)
    assert "  1. precompute_ref_log_probs: true, which keeps no second copy of the model" in error
    assert "  2. LoRA instead of lora: false" in error
    assert "batch_size" not in error and "checkpointing" not in error and "max_length" not in error


def test_in_an_evaluation_its_own_batch_size_comes_first(failure, monkeypatch):
    run_out(monkeypatch, step=2, training=False, error=RuntimeError(ON_CPU))
    error = failure(copies=4, eval_strategy="steps", eval_steps=2)
    assert "evaluation after step 2: out of memory" in error
    assert "  1. per_device_eval_batch_size: " in error


def test_while_loading_the_weights_no_batch_is_named(failure, monkeypatch):
    def build(*args, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(session, "build_trainer", build)
    error = failure()
    assert error.startswith("while loading the weights: out of memory")
    assert "  1. model_init_kwargs: {dtype: bfloat16}, half the size of the base" in error
    assert "batch" not in error


def test_a_dry_run_explains_out_of_memory_too(failure, monkeypatch):
    run_out(monkeypatch, step=0)
    error = failure("--dry-run")
    assert "step 1: out of memory" in error
    assert "pairs.json#6: 80 tokens" in error


def test_other_errors_are_not_changed():
    with pytest.raises(RuntimeError, match="shapes"), explain_out_of_memory(SimpleNamespace()):
        raise RuntimeError("shapes do not fit")
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(RuntimeError(ON_CPU))


def test_bytes_are_formatted_in_gib_or_mib():
    assert (format_bytes(3 * 2**29), format_bytes(300 * 2**20)) == ("1.5 GiB", "300.0 MiB")
    assert 2**26 < resident_bytes() < 2**36


def test_on_a_gpu_the_peak_is_that_of_the_gpu_and_load_in_4bit_is_a_remedy(monkeypatch):
    device = torch.device("cuda")
    monkeypatch.setattr(memory, "is_bitsandbytes_available", lambda: True)
    monkeypatch.setattr(memory, "is_torch_bf16_gpu_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 23 * 2**30)
    whole = SimpleNamespace(total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: whole)
    dpo = SimpleNamespace(
        device=device,
        bf16=False,
        fp16=False,
        max_length=512,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        precompute_ref_log_probs=False,
    )
    prepared = SimpleNamespace(
        settings=SimpleNamespace(
            lora={}, load_in_4bit=False, option=lambda name: None, prefix_sharing="off"
        ),
        arguments=SimpleNamespace(dpo=dpo),
        fits={"train": SimpleNamespace(lengths={"pair": (10, 20, 30, 40)})},
    )
    with pytest.raises(RunError) as raised, explain_out_of_memory(prepared):
        raise torch.OutOfMemoryError("CUDA out of memory")
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("out of memory at a peak of 23.0 GiB of the GPU's 24.0 GiB")
    assert [line.split(". ", 1)[1] for line in lines[3:]] == [
        "prefix_sharing: auto, which computes a prompt once and no padding, the same result",
        "bf16: true, which halves the activations",
        "model_init_kwargs: {dtype: bfloat16}, half the size of the base model's weights",
        "load_in_4bit: true, a quarter of the size of the base model's weights, or less",
        "a smaller model, or a device with more memory",
    ]

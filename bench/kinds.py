"""The variants that bench.train_throughput compares: one pass over the same pairs each."""

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.meter import Meter, gpu

CONTEXT, RATE, BETA, EPOCHS = 1024, 2e-4, 0.1, 3
STOCK, SORTED, SHARED, AHEAD, BARE = (
    "stock TRL",
    "TRL, sorted",
    "shared prompts",
    f"shared, {EPOCHS} epochs",
    "bare loop",
)
BARE_TOO = "bare, reference too"


@dataclass(frozen=True)
class Measured:
    """The figures of one variant's pass over the pairs."""

    seconds: float
    memory: int
    """Peak memory in bytes, less that in use before."""
    losses: list[float]
    tokens: int
    """Tokens that the policy computed, padding included."""


@dataclass(frozen=True)
class Task:
    """The task of every variant: one pass over these pairs, `batch` per step."""

    model: Path
    data: Path
    by_length: Path
    """The same pairs, longest first."""
    out: Path
    batch: int
    checkpointing: bool

    def options(self) -> dict[str, Any]:
        """The TRL options of all trainers."""
        return {
            "output_dir": str(self.out),
            "beta": BETA,
            "learning_rate": RATE,
            "per_device_train_batch_size": self.batch,
            "num_train_epochs": 1,
            "lr_scheduler_type": "constant",
            "max_length": CONTEXT,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "bf16": gpu(),
            "gradient_checkpointing": self.checkpointing,
            "disable_tqdm": True,
        }


def stock(task: Task) -> Measured:
    """The script of a TRL user."""
    from datasets import load_from_disk
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(task.model),
        args=DPOConfig(**task.options()),
        train_dataset=load_from_disk(str(task.data))["train"],
        processing_class=AutoTokenizer.from_pretrained(task.model),
        peft_config=LoraConfig(task_type="CAUSAL_LM"),
    )
    padded = _counted(trainer)
    meter = Meter()
    trainer.train()
    seconds, memory = meter.read()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Measured(seconds, memory, logged, sum(padded))


def _counted(trainer: Any) -> list[int]:
    """Return a list that receives the tokens, padding included, of each batch that is collated."""
    collate, sizes = trainer.data_collator, []

    def counted(rows: list[Any]) -> Any:
        batch = collate(rows)
        sizes.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counted
    return sizes


def wrapped(epochs: int = 1, by_length: bool = False, **keys: Any) -> Callable[[Task], Measured]:
    """A run of dpo_wrap.train with these keys; the figures are those of one epoch."""

    def run(task: Task) -> Measured:
        import yaml

        from dpo_wrap.train import main
        from dpo_wrap.training import session

        config = task.options() | keys | {"num_train_epochs": epochs}
        data = task.by_length if by_length else task.data
        config |= {"model_path": str(task.model), "dataset_path": str(data)}
        del config["disable_tqdm"]
        path = task.out.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(config), "utf-8")
        kind, read, ahead = session.PreparedTrainer, [], []
        train, ask = kind.train, kind._precompute_ref_logps

        def timed_train(self: Any, *given: Any, **named: Any) -> None:
            padded, before = _counted(self), self.shared.figures()["tokens"]
            meter = Meter()
            train(self, *given, **named)
            # With an adapter, the policy's model also computes the reference's passes.
            passes = 1 if self.precompute_ref_logps else 2
            shared = (self.shared.figures()["tokens"] - before) // passes
            read.append((*meter.read(), (shared or sum(padded)) // epochs))

        def timed_ask(self: Any, *given: Any) -> Any:
            meter = Meter()
            rows = ask(self, *given)
            ahead.append(meter.read()[0])
            return rows

        kind.train, kind._precompute_ref_logps = timed_train, timed_ask
        try:
            if status := main([str(path)]):
                raise SystemExit(status)
        finally:
            kind.train, kind._precompute_ref_logps = train, ask
        ((seconds, memory, tokens),) = read
        lines = (task.out / "metrics.jsonl").read_text("utf-8").splitlines()
        losses = [json.loads(line)["loss"] for line in lines]
        # The pass that precomputes the reference is divided among the epochs.
        seconds = (seconds + sum(ahead)) / epochs
        return Measured(seconds, memory, losses[: len(losses) // epochs], tokens)

    return run


def bare(task: Task, reference: bool = False) -> Measured:
    """Forward and backward pass over as many distinct tokens, without a trainer.

    With `reference`, each step also has the reference's forward pass.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda" if gpu() else "cpu")
    base = AutoModelForCausalLM.from_pretrained(task.model)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM")).to(device).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0
    if task.checkpointing:
        model.enable_input_require_grads()
        base.gradient_checkpointing_enable()
    steps = list(_bare_steps(task))
    tokens, losses = 0, []
    meter = Meter()

    def loss_of(rows: Any, answers: int) -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=gpu()):
            hidden = base.base_model(input_ids=rows, use_cache=False).last_hidden_state
            logits = base.get_output_embeddings()(hidden.flatten(0, 1)[:answers])
        return torch.nn.functional.cross_entropy(logits.float(), rows.flatten()[:answers])

    for rows, answers in steps:
        rows = rows.to(device)
        if reference:
            with torch.no_grad(), model.disable_adapter():
                loss_of(rows, answers)
        loss = loss_of(rows, answers)
        loss.backward()
        losses.append(loss.item())
        model.zero_grad(set_to_none=True)
        tokens += rows.numel()
    return Measured(*meter.read(), losses, tokens)


def _bare_steps(task: Task) -> Iterator[tuple[Any, int]]:
    """Yield the distinct tokens of each step and the number of its answer tokens.

    The tokens have one row per pair, of equal length; repeated tokens fill the last row.
    """
    import torch

    for step in in_steps(task):
        stream = [token for row in step for name in row for token in row[name]]
        width = -(-len(stream) // len(step))
        stream += stream[: width * len(step) - len(stream)]
        answers = sum(len(row[name]) for row in step for name in ("chosen", "rejected"))
        yield torch.tensor(stream).view(len(step), width), answers


def in_steps(task: Task) -> list[list[dict[str, list[int]]]]:
    """The pairs' token ids, truncated as in training, in batches in the order of the file."""
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(task.model)
    pairs = []
    for row in load_from_disk(str(task.data))["train"]:
        ids = {name: tokenizer(row[name])["input_ids"] for name in ("prompt", "chosen", "rejected")}
        room = CONTEXT - len(ids["prompt"])
        end = [tokenizer.eos_token_id]
        sides = {name: (ids[name] + end)[:room] for name in ("chosen", "rejected")}
        pairs.append({"prompt": ids["prompt"], **sides})
    return [pairs[n : n + task.batch] for n in range(0, len(pairs), task.batch)]


KINDS: dict[str, Callable[[Task], Measured]] = {
    STOCK: stock,
    # group_by_length sorts within groups of 50 batches; these few pairs would be a single group.
    SORTED: wrapped(by_length=True, prefix_sharing="off", train_sampling_strategy="sequential"),
    SHARED: wrapped(prefix_sharing="on", precompute_ref_log_probs=False),
    AHEAD: wrapped(EPOCHS, prefix_sharing="on", precompute_ref_log_probs=True),
    BARE: bare,
    BARE_TOO: functools.partial(bare, reference=True),
}

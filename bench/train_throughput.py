"""Pairs per second: stock TRL, TRL by length, shared prompts, a bare loop.

    python -m bench.train_throughput                                  # gpt2-14m, 4, 8 and 16 pairs
    python -m bench.train_throughput --model qwen2-0.5b --batches 16  # where there is a GPU

One process, all kinds in turns, each over the same pairs: dialogues of Anthropic's HH, or of their
lengths where the file is not there. Models have random weights. Printed are medians of pairs and of
distinct tokens a second, the memory that training adds, the tokens that a model runs over for each
distinct one, ratios within each turn, and how far the losses are apart.

The bare loop is forward and backward of the policy, LoRA and all, over as many distinct tokens in
rows without padding, its head over as many answers: no reference, no optimizer, no trainer. Once it
is also run with the reference's forward pass, which a trainer needs in every step of a first epoch.
"""

import argparse
import ctypes
import functools
import gc
import gzip
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.overhead import silence

HH = Path(__file__).parents[1].parent / "shared/data/hh-harmless-base-test.jsonl.gz"
TURN = "\n\nAssistant:"
# Words and marks of HH's (harmless-base, test) prompts and answers, at these shares of them.
SHARES = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
PROMPTS = (5, 9, 12, 18, 36, 58, 81, 104, 130, 167, 247, 308, 488, 789)
ANSWERS = (1, 6, 9, 13, 18, 23, 29, 38, 50, 65, 93, 120, 208, 533)

VOCABULARY, CONTEXT, RATE, BETA, EPOCHS = 8192, 1024, 2e-4, 0.1, 3
GPT2_14M = {"vocab_size": VOCABULARY, "n_embd": 384, "n_layer": 6, "n_head": 6}
GPT2_124M = {"vocab_size": 50257, "n_embd": 768, "n_layer": 12, "n_head": 12}
QWEN2_05B = {
    "vocab_size": 151936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "tie_word_embeddings": True,
}
SHAPES = {
    "gpt2-14m": ("gpt2", GPT2_14M),
    "gpt2-124m": ("gpt2", GPT2_124M),
    "qwen2-0.5b": ("qwen2", QWEN2_05B),
}
STOCK, GROUPED, SHARED, AHEAD, BARE = (
    "stock TRL",
    "TRL by length",
    "shared prompts",
    f"shared, {EPOCHS} epochs",
    "bare loop",
)
BARE_TOO = "bare, reference too"


@dataclass(frozen=True)
class Measured:
    """One kind's pass over the pairs."""

    seconds: float
    memory: int
    """Bytes that it added at its peak."""
    losses: list[float]
    tokens: int
    """Tokens, padding included, that the policy ran over."""


@dataclass(frozen=True)
class Task:
    """What every kind does: one pass over these pairs, `batch` of them a step."""

    model: Path
    data: Path
    out: Path
    batch: int
    checkpointing: bool

    def options(self) -> dict[str, Any]:
        """The options of TRL that all trainers get."""
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
            "bf16": _gpu(),
            "gradient_checkpointing": self.checkpointing,
            "disable_tqdm": True,
        }


class Meter:
    """Wall time and added memory from its making to `read`."""

    def __init__(self):
        import torch

        gc.collect()
        if _gpu():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            # Memory that the last kind freed would hide what this one needs.
            ctypes.CDLL("libc.so.6").malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS:")
        self.started = time.perf_counter()

    def read(self) -> tuple[float, int]:
        import torch

        if _gpu():
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self.started
        peak = torch.cuda.max_memory_allocated() if _gpu() else _status("VmHWM:")
        return seconds, peak - self.before


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
    """The tokens, padding included, of each batch that the trainer will collate."""
    collate, sizes = trainer.data_collator, []

    def counted(rows: list[Any]) -> Any:
        batch = collate(rows)
        sizes.append(batch["input_ids"].numel())
        return batch

    trainer.data_collator = counted
    return sizes


def wrapped(epochs: int = 1, **keys: Any) -> Callable[[Task], Measured]:
    """A run of this project's command with these keys; what is measured is one of its epochs."""

    def run(task: Task) -> Measured:
        import yaml

        from dpo_wrap.running import session
        from dpo_wrap.train import main

        config = task.options() | keys | {"num_train_epochs": epochs}
        config |= {"model_path": str(task.model), "dataset_path": str(task.data)}
        del config["disable_tqdm"]
        path = task.out.with_suffix(".yaml")
        path.write_text(yaml.safe_dump(config), "utf-8")
        kind, read, ahead = session.PreparedTrainer, [], []
        train, ask = kind.train, kind._precompute_ref_logps

        def timed_train(self: Any, *given: Any, **named: Any) -> None:
            padded, before = _counted(self), self.shared.figures()["tokens"]
            meter = Meter()
            train(self, *given, **named)
            # With an adapter the reference's passes run over the policy's model too.
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
        # Of the reference's pass beforehand each epoch bears its share.
        seconds = (seconds + sum(ahead)) / epochs
        return Measured(seconds, memory, losses[: len(losses) // epochs], tokens)

    return run


def bare(task: Task, reference: bool = False) -> Measured:
    """Forward and backward over as many distinct tokens, and nothing else but the reference."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda" if _gpu() else "cpu")
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
        with torch.autocast(device.type, torch.bfloat16, enabled=_gpu()):
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
    """For each step its distinct tokens in as many rows as it has pairs, and its answers' count."""
    import torch

    for step in _in_steps(task):
        stream = [token for row in step for name in row for token in row[name]]
        width = -(-len(stream) // len(step))
        stream += stream[: width * len(step) - len(stream)]
        answers = sum(len(row[name]) for row in step for name in ("chosen", "rejected"))
        yield torch.tensor(stream).view(len(step), width), answers


def _in_steps(task: Task) -> list[list[dict[str, list[int]]]]:
    """The pairs' token ids, cut as in training, without any order of a trainer's."""
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
    GROUPED: wrapped(prefix_sharing="off", train_sampling_strategy="group_by_length"),
    SHARED: wrapped(prefix_sharing="on", precompute_ref_log_probs=False),
    AHEAD: wrapped(EPOCHS, prefix_sharing="on", precompute_ref_log_probs=True),
    BARE: bare,
    BARE_TOO: functools.partial(bare, reference=True),
}


def texts_of(data: Path | None, count: int) -> list[dict[str, str]]:
    """`count` pairs as text, in an order that hangs on nothing."""
    dice = random.Random(0)
    if data is None:
        return [_invented(dice) for _ in range(count)]
    pairs = []
    with gzip.open(data, "rt", encoding="utf-8") as file:
        for line in file:
            sides = [json.loads(line)[name] for name in ("chosen", "rejected")]
            (prompt, other), answers = zip(*map(_split, sides), strict=True)
            if prompt == other and all(text.strip() for text in answers):
                pairs.append({"prompt": prompt, "chosen": answers[0], "rejected": answers[1]})
    dice.shuffle(pairs)
    return pairs[:count]


def _split(dialogue: str) -> tuple[str, str]:
    """Everything up to the last answer, and the answer."""
    prompt, turn, answer = dialogue.rpartition(TURN)
    return prompt + turn, answer


def _invented(dice: random.Random) -> dict[str, str]:
    def words(lengths: Sequence[int]) -> str:
        place = dice.uniform(0, 100)
        upper = next(n for n, share in enumerate(SHARES) if share >= place)
        below, above = SHARES[upper - 1], SHARES[upper]
        part = (place - below) / (above - below) if upper else 0
        count = lengths[max(0, upper - 1)] * (1 - part) + lengths[upper] * part
        return "".join(f" w{dice.randrange(4000)}" for _ in range(max(1, int(count))))

    return {
        "prompt": f"\n\nHuman:{words(PROMPTS)}{TURN}",
        "chosen": words(ANSWERS),
        "rejected": words(ANSWERS),
    }


def build(folder: Path, shape: str, texts: list[dict[str, str]]) -> Path:
    """A model of random weights, and a tokenizer of these texts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from quickstart.build_model import train_tokenizer

    tokenizer = train_tokenizer([text for pair in texts for text in pair.values()], VOCABULARY)
    kind, size = SHAPES[shape]
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **size, **ends))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def write_pairs(folder: Path, pairs: list[dict[str, str]]) -> Path:
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(pairs)}).save_to_disk(str(folder))
    return folder


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.train_throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=SHAPES, default="gpt2-14m", help="the shape (default gpt2-14m)")
    add("--batches", type=int, nargs="+", default=[4, 8, 16], metavar="N", help="pairs a step")
    add("--steps", type=int, default=10, metavar="N", help="of each run (default 10)")
    add("--runs", type=int, default=3, metavar="N", help="of each kind, in turns (default 3)")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which (default all)")
    add("--data", type=Path, metavar="FILE", help="HH's .jsonl.gz (default: where it lies, if so)")
    add("--checkpointing", action="store_true", help="gradient checkpointing, TRL's own default")
    add("--threads", type=int, metavar="N", help="of a CPU (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 where the losses with shared prompts are stock TRL's, 1 where they are not."""
    given = parser().parse_args(argv)
    import torch

    if given.threads:
        torch.set_num_threads(given.threads)
    data = given.data or (HH if HH.is_file() else None)
    where = torch.cuda.get_device_name() if _gpu() else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{given.model}, LoRA, {'bf16' if _gpu() else 'fp32'}, {where}, "
        f"{data.name if data else 'invented dialogues'}, {given.steps} steps a run, "
        f"checkpointing {'on' if given.checkpointing else 'off'}"
    )
    texts = texts_of(data, 10_000)
    agree = True
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(spare)
        model = build(folder, given.model, texts)
        for batch in given.batches:
            pairs = write_pairs(folder / f"data-{batch}", texts[: batch * given.steps])
            measured = {kind: [] for kind in given.kinds}
            for turn in range(given.runs + 1):
                order = given.kinds if turn % 2 else given.kinds[::-1]
                for number, kind in enumerate(order):
                    out = folder / f"run-{batch}-{turn}-{number}"
                    task = Task(model, pairs, out, batch, given.checkpointing)
                    with silence():
                        found = KINDS[kind](task)
                    # The first turn warms caches up and does not count.
                    if turn:
                        measured[kind].append(found)
            distinct = sum(
                len(ids) for step in _in_steps(task) for row in step for ids in row.values()
            )
            agree &= report(batch, batch * given.steps, distinct, measured)
    return 0 if agree else 1


def report(batch: int, pairs: int, distinct: int, measured: dict[str, list[Measured]]) -> bool:
    """Print a table; returns whether the losses agree."""
    print(f"\nbatch {batch}: {pairs} pairs, {distinct / pairs:.0f} distinct tokens a pair")
    heads = ("pairs/s", "tokens/s", "over TRL", "of bare", "tokens", "memory")
    print(f"{'':<20}{''.join(f'{head:>10}' for head in heads)}")
    for kind, runs in measured.items():
        seconds = statistics.median(run.seconds for run in runs)
        over = _ratio(measured.get(STOCK), runs)
        of_bare = _ratio(measured.get(BARE), runs)
        memory = statistics.median(run.memory for run in runs) / 2**20
        print(
            f"{kind:<20}{pairs / seconds:>10.2f}{distinct / seconds:>10.0f}{over:>10}{of_bare:>10}"
            f"{runs[0].tokens / distinct:>10.2f}{memory:>6.0f} MiB",
            flush=True,
        )
    apart = [
        abs(ours - theirs)
        for kind in (SHARED, AHEAD)
        for run, other in zip(measured.get(kind, []), measured.get(STOCK, []), strict=False)
        for ours, theirs in zip(run.losses, other.losses, strict=True)
    ]
    if not apart:
        return True
    print(f"losses of stock TRL and of shared prompts: at most {max(apart):.1g} apart")
    return max(apart) < (5e-2 if _gpu() else 1e-4)


def _ratio(base: list[Measured] | None, runs: list[Measured]) -> str:
    """How many times as fast as `base`, the median over the turns."""
    if not base:
        return "-"
    return (
        f"{statistics.median(b.seconds / r.seconds for b, r in zip(base, runs, strict=True)):.2f}"
    )


def _gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _status(name: str) -> int:
    """Bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    sys.exit(main())

"""Compare pairs per second: stock TRL, TRL on sorted pairs, shared prompts, a bare loop.

    python -m bench.train_throughput                                  # gpt2-14m, 4, 8 and 16 pairs
    python -m bench.train_throughput --model qwen2-0.5b --batches 16  # where there is a GPU

All variants run alternately in one process on the same pairs: dialogues of Anthropic's HH, or
invented dialogues of the same lengths if the file is missing. Models have random weights. The table
has the medians of pairs and distinct tokens per second, the memory that training adds, the tokens
computed per distinct token, the speedup within each round, and the largest difference between the
losses. Sorting by length is the upper bound of what grouping by length can save.

The bare loop is the forward and backward pass of the policy with LoRA over as many distinct tokens,
in rows without padding, with the head over as many answer tokens: no reference, optimizer or
trainer. A second variant adds the reference's forward pass, which a trainer needs in every step of
the first epoch.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from bench.dialogues import HH, texts_of
from bench.kinds import AHEAD, BARE, KINDS, SHARED, STOCK, Measured, Task, in_steps
from bench.meter import gpu, silence

VOCABULARY = 8192
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


def build(folder: Path, shape: str, texts: list[dict[str, str]]) -> Path:
    """Write a model with random weights and a tokenizer trained on these texts."""
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


def _length(pair: dict[str, str]) -> int:
    """Sort key, longest first: the characters of the prompt and the longer answer, negated."""
    return -len(pair["prompt"]) - max(len(pair["chosen"]), len(pair["rejected"]))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.train_throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--model", choices=SHAPES, default="gpt2-14m", help="model shape (default gpt2-14m)")
    add("--batches", type=int, nargs="+", default=[4, 8, 16], metavar="N", help="pairs per step")
    add("--steps", type=int, default=6, metavar="N", help="steps per run (default 6)")
    add("--runs", type=int, default=3, metavar="N", help="rounds of all variants (default 3)")
    add("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="variants (default all)")
    add(
        "--data",
        type=Path,
        metavar="FILE",
        help="HH's .jsonl.gz (default: shared/data, if there)",
    )
    add("--checkpointing", action="store_true", help="gradient checkpointing, TRL's own default")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 if shared prompts give stock TRL's losses, else 1."""
    given = parser().parse_args(argv)
    import torch

    if given.threads:
        torch.set_num_threads(given.threads)
    data = given.data or (HH if HH.is_file() else None)
    where = torch.cuda.get_device_name() if gpu() else f"{torch.get_num_threads()} CPU threads"
    print(
        f"{given.model}, LoRA, {'bf16' if gpu() else 'fp32'}, {where}, "
        f"{data.name if data else 'invented dialogues'}, {given.steps} steps per run, "
        f"checkpointing {'on' if given.checkpointing else 'off'}"
    )
    texts = texts_of(data, 10_000)
    agree = True
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(spare)
        model = build(folder, given.model, texts)
        for batch in given.batches:
            few = texts[: batch * given.steps]
            pairs = write_pairs(folder / f"data-{batch}", few)
            by_length = write_pairs(folder / f"sorted-{batch}", sorted(few, key=_length))
            measured = {kind: [] for kind in given.kinds}
            for turn in range(given.runs + 1):
                order = given.kinds if turn % 2 else given.kinds[::-1]
                for number, kind in enumerate(order):
                    out = folder / f"run-{batch}-{turn}-{number}"
                    task = Task(model, pairs, by_length, out, batch, given.checkpointing)
                    with silence():
                        found = KINDS[kind](task)
                    # The first round warms up caches and is not measured.
                    if turn:
                        measured[kind].append(found)
            distinct = sum(
                len(ids) for step in in_steps(task) for row in step for ids in row.values()
            )
            agree &= report(batch, batch * given.steps, distinct, measured)
    return 0 if agree else 1


def report(batch: int, pairs: int, distinct: int, measured: dict[str, list[Measured]]) -> bool:
    """Print a table; return whether the losses agree."""
    print(f"\nbatch {batch}: {pairs} pairs, {distinct / pairs:.0f} distinct tokens per pair")
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
    return max(apart) < (5e-2 if gpu() else 1e-4)


def _ratio(base: list[Measured] | None, runs: list[Measured]) -> str:
    """Speedup over `base`: the median of the ratios of each round."""
    if not base:
        return "-"
    return (
        f"{statistics.median(b.seconds / r.seconds for b, r in zip(base, runs, strict=True)):.2f}"
    )


if __name__ == "__main__":
    sys.exit(main())

"""Measure the overhead of the wrapper over a plain TRL script: python -m bench.overhead

A script that a TRL user would write and dpo_wrap.train run the same 50 steps alternately, in one
process so that imports are not measured. The output has the medians of the wall and processor time
of the steps and of the wall time of the whole run, their ratios, and whether each logged loss is
the same to the last digit. The model is a GPT-2 with random weights, the data are data/raw.csv.
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# With several threads, waiting makes processor time depend on the other load of the machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.meter import silence

BETA, RATE, BATCH, RANK, LENGTH = 0.1, 2e-4, 8, 8, 128
AIM = 1.02
"""Target ratio of the wrapper's wall time (without start-up) to plain TRL's."""


@dataclass(frozen=True)
class Measured:
    """One run, timed from the call of `train`, where start-up ends."""

    steps: float
    """Seconds until the last step was done."""
    processor: float
    """Seconds of processor time until then, which other processes do not increase."""
    whole: float
    """Seconds until the model was saved and the command ended."""
    losses: list[float]


class Clock:
    """Wall time and processor time since construction."""

    def __init__(self):
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def passed(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.processor


def prepare(folder: Path, width: int, layers: int) -> tuple[Path, Path]:
    """Write a model with random weights and a converted dataset; return their paths."""
    import torch

    from data_tools.convert import main as convert
    from quickstart.build_model import Settings, new_model, train_tokenizer
    from quickstart.grammar import sample_text

    dice = random.Random(0)
    texts = [sample_text(dice) for _ in range(2000)]
    tokenizer = train_tokenizer(texts, 1152)
    torch.manual_seed(0)
    model = new_model(tokenizer, Settings(width=width, layers=layers, heads=max(1, width // 64)))
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    convert(["data/raw.csv", "-o", str(folder / "data")])
    return folder / "model", folder / "data"


def plain(model: Path, data: Path, out: Path, steps: int) -> Measured:
    """The script of a TRL user."""
    from datasets import load_from_disk
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    arguments = DPOConfig(
        output_dir=str(out),
        beta=BETA,
        learning_rate=RATE,
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        max_length=LENGTH,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        bf16=False,
        disable_tqdm=True,
    )
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model),
        args=arguments,
        train_dataset=load_from_disk(str(data))["train"],
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=RANK),
    )
    started = Clock()
    trainer.train()
    steps = started.passed()
    trainer.save_model()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return Measured(*steps, started.passed()[0], losses)


def wrapped(model: Path, data: Path, out: Path, steps: int) -> Measured:
    """The same run by dpo_wrap.train."""
    import yaml

    from dpo_wrap.train import main
    from dpo_wrap.training import session

    config = {
        "model_path": str(model),
        "dataset_path": str(data),
        "output_dir": str(out),
        "beta": BETA,
        "learning_rate": RATE,
        "batch_size": BATCH,
        "max_steps": steps,
        "max_seq_length": LENGTH,
        "logging_steps": 1,
        "save_strategy": "no",
        "prefix_sharing": "off",
        "lora_r": RANK,
    }
    path = out.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config), "utf-8")
    clocks, train = [], session.PreparedTrainer.train

    def timed(self, *arguments, **keywords):
        clocks.append(Clock())
        train(self, *arguments, **keywords)
        clocks.append(clocks[0].passed())

    session.PreparedTrainer.train = timed
    try:
        if status := main([str(path)]):
            raise SystemExit(status)
    finally:
        session.PreparedTrainer.train = train
    started, steps = clocks
    lines = (out / "metrics.jsonl").read_text("utf-8").splitlines()
    return Measured(*steps, started.passed()[0], [json.loads(line)["loss"] for line in lines])


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.overhead",
        description=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=int, default=50, metavar="N", help="steps per run (default 50)")
    add(
        "--runs",
        type=int,
        default=5,
        metavar="N",
        help="rounds of one run each (default 5)",
    )
    add("--width", type=int, default=384, metavar="N", help="width of the GPT-2 (default 384)")
    add("--layers", type=int, default=6, metavar="N", help="layers of the GPT-2 (default 6)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 if the losses are the same, else 1."""
    given = parser().parse_args(argv)
    runs: dict[str, list[Measured]] = {"plain TRL": [], "dpo_wrap": []}
    with tempfile.TemporaryDirectory() as spare:
        folder = Path(spare)
        with silence():
            model, data = prepare(folder, given.width, given.layers)
        for turn in range(given.runs + 1):
            # The order alternates, so that a machine that slows down favors neither.
            order = [("plain TRL", plain), ("dpo_wrap", wrapped)]
            for name, run in order if turn % 2 else reversed(order):
                out = folder / f"{name.split()[-1]}-{turn}"
                with silence():
                    measured = run(model, data, out, given.steps)
                # The first round warms up caches and is not measured.
                if turn:
                    runs[name].append(measured)
                    print(
                        f"{name:<9}  steps {measured.steps:6.2f} s ({measured.processor:6.2f} s of "
                        f"processor), to the end {measured.whole:6.2f} s",
                        flush=True,
                    )
    return report(runs)


def report(runs: dict[str, list[Measured]]) -> int:
    """Print medians, ratios and whether the losses agree; return the exit status."""
    trl, ours = runs["plain TRL"], runs["dpo_wrap"]
    kinds = {"steps": "steps", "processor": "steps, processor time", "whole": "to the end"}
    for what, name in kinds.items():
        pairs = [(getattr(a, what), getattr(b, what)) for a, b in zip(trl, ours, strict=True)]
        medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
        ratios = [b / a for a, b in pairs]
        print(
            f"{name}: plain TRL {medians[0]:.2f} s, dpo_wrap {medians[1]:.2f} s; median of the "
            f"ratios {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
            + f", aim {AIM}"
            * (what == "steps")
        )
    same = all(run.losses == trl[0].losses for run in [*trl, *ours])
    steps = len(trl[0].losses)
    print(f"losses of {steps} steps: {'the same to the last digit' if same else 'DIFFERENT'}")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())

"""Measure how many flipped labels dpo_wrap.suspects finds: python -m bench.suspects

The data are the quickstart's, with 5 % and with 20 % of the labels flipped. All training pairs are
ranked by their margin, lowest first: by policies that were not trained on them (dpo_wrap.suspects),
and by the policy that was. The output is the precision at k, k being the number of flipped labels,
and the true reward of a policy trained on the flipped data, on the flipped data without the
suspects, and on the unflipped data.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.meter import must

CONFIG, TOKENS = "configs/quickstart.yaml", 48


@dataclass(frozen=True)
class Found:
    """The figures for one share of flipped labels and one seed."""

    flipped: int
    """Flipped labels among the training pairs."""
    out_of_fold: float
    """Precision at k of the lowest margins, k being the number of flipped labels."""
    in_sample: float
    suspects: int
    hits: int
    """Flipped labels among the suspects (true positives)."""
    rewards: tuple[float, float, float]
    """True reward after training on the flipped, the cleaned and the unflipped data."""


def measure(work: Path, share: float, seed: int, samples: int, words: Sequence[str]) -> Found:
    """Flip, train, find the flipped labels, remove them and train again."""
    import pandas

    from data_tools.convert import main as convert
    from dpo_wrap.suspects import main as suspects
    from quickstart.make_data import main as make

    folder = work / f"{share:g}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    raw, data = str(folder / "raw.csv"), folder / "data"
    must(make, ["--flip", str(share), "--seed", str(seed), "--out", raw])
    must(convert, [raw, "-o", str(data), "--test-size", "0.1"])
    keys = [*_keys(work, data, folder / "run", seed), *words]
    before = _reward(keys, folder / "run", samples)
    wrong = _wrong(data)
    must(suspects, [CONFIG, *keys])
    apart = pandas.read_parquet(folder / "run/out_of_fold.parquet")
    apart = apart[apart["split"] == "train"]
    seen = _in_sample(keys, folder / "run")
    file = folder / "run/suspects.jsonl"
    listed = {json.loads(line)["source"] for line in file.read_text("utf-8").splitlines()}
    in_train = listed & set(apart["source"])
    cleaned = folder / "cleaned"
    must(convert, [raw, "-o", str(cleaned), "--test-size", "0.1", "--exclude-rows", str(file)])
    after = _reward(
        [*_keys(work, cleaned, folder / "after", seed), *words], folder / "after", samples
    )
    clean = folder / "clean.csv"
    must(make, ["--seed", str(seed), "--out", str(clean)])
    must(convert, [str(clean), "-o", str(folder / "clean"), "--test-size", "0.1"])
    best = [*_keys(work, folder / "clean", folder / "best", seed), *words]
    return Found(
        flipped=len(wrong),
        out_of_fold=_precision(apart, wrong),
        in_sample=_precision(seen, wrong),
        suspects=len(in_train),
        hits=len(in_train & wrong),
        rewards=(before, after, _reward(best, folder / "best", samples)),
    )


def _keys(work: Path, data: Path, run: Path, seed: int) -> list[str]:
    keys = {"model_path": work / "model", "dataset_path": data, "output_dir": run, "seed": seed}
    return [word for name, value in keys.items() for word in ("--set", f"{name}={value}")]


def _reward(keys: list[str], run: Path, samples: int) -> float:
    """Train, and return the mean true reward of the policy's answers to held-out prompts."""
    from dpo_wrap.eval import main as evaluate
    from dpo_wrap.train import main as train

    must(train, [CONFIG, *keys])
    answered = ["--samples", str(samples), "--max-new-tokens", str(TOKENS)]
    must(evaluate, [CONFIG, *keys, *answered])
    found = json.loads((run / "eval.json").read_text("utf-8"))
    return found["metrics"]["sentiment"]["policy"]


def _in_sample(keys: list[str], run: Path):
    import pandas

    from dpo_wrap.eval import main as evaluate

    must(evaluate, [CONFIG, *keys, "--split", "train", "--samples", "0"])
    return pandas.read_parquet(run / "examples.parquet")


def _wrong(data: Path) -> set[str]:
    """The sources of training pairs whose rejected answer has the greater true reward."""
    from datasets import load_from_disk

    from quickstart.grammar import true_reward

    rows = load_from_disk(str(data))["train"]
    return {r["source"] for r in rows if true_reward(r["rejected"]) > true_reward(r["chosen"])}


def _precision(scored, wrong: set[str]) -> float:
    lowest = scored.nsmallest(len(wrong), "reward_margin")["source"]
    return sum(source in wrong for source in lowest) / max(1, len(wrong))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.suspects",
        description="Flip labels and measure how many of them dpo_wrap.suspects finds.",
    )
    add = parser.add_argument
    add("--work", type=Path, default=Path("checkpoints/suspects"), metavar="DIR", help="runs")
    add("--shares", type=float, nargs="+", default=[0.05, 0.2], metavar="F", help="flipped shares")
    add("--seeds", type=int, default=3, metavar="N", help="default 3")
    add("--samples", type=int, default=250, metavar="N", help="prompts to answer (default 250)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="config overrides")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    from quickstart.build_model import main as build

    options = parser().parse_args(argv)
    words = [word for text in options.set for word in ("--set", text)]
    must(build, [str(options.work / "model")])
    print("                          precision              suspects   true reward, trained on")
    print("flipped   pairs   out of fold   in sample         (right)   flipped  cleaned  unflipped")
    for share in options.shares:
        found = [
            measure(options.work, share, seed, options.samples, words)
            for seed in range(1, options.seeds + 1)
        ]

        def over(name, found=found):
            return statistics.mean(getattr(one, name) for one in found)

        rewards = [statistics.mean(each) for each in zip(*(f.rewards for f in found), strict=True)]
        listed = f"{over('suspects'):.0f} ({over('hits'):.0f})"
        print(
            f"{share:>7.0%}{over('flipped'):>8.0f}{over('out_of_fold'):>14.2f}"
            f"{over('in_sample'):>12.2f}{listed:>16}"
            + "".join(f"{reward:>+10.3f}" for reward in rewards),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

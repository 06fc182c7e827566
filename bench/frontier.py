"""Reward against KL, a small version of the paper's section 6.1: python -m bench.frontier

Policies are trained on the quickstart's reviews over losses, betas and seeds. SFT on the chosen
answers is the baseline, which does not use the rejected ones. Each policy answers held-out prompts,
and its true reward (quickstart.grammar) is plotted against the KL from the reference, next to the
optimal policy pi_ref exp(r / beta) / Z (equation 4 of the paper), estimated by reweighting answers
of the reference. The output is a table, its data as CSV and a plot. Finished runs are reused.
"""

import argparse
import csv
import json
import math
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from bench.meter import must, silence

CONFIG = "configs/quickstart.yaml"
BETAS = {
    "sigmoid": (0.2, 0.5, 1.0, 2.0, 5.0),
    "ipo": (0.3, 1.0, 3.0, 10.0),
    "hinge": (0.3, 1.0, 3.0, 10.0),
    "sigmoid+sft": (0.5, 1.0, 2.0, 5.0),
}
STEPS = (195, 585)
"""One and three epochs, for every loss and beta."""
SFT, LENGTHS = "sft", (65, 195, 585, 1755)
"""SFT has no beta: how far it moves depends on the number of steps."""
BEST, DRAWS = "best possible", 64
"""Sampled reference answers per prompt, from which the optimum is estimated."""
OPTIMA = (2.0, 1.0, 0.7, 0.5, 0.4, 0.3, 0.25, 0.2)
TOKENS, FAR = 48, 20.0
"""Maximum new tokens; largest KL (nats) that is plotted."""


@dataclass(frozen=True)
class Point:
    """One policy: its KL from the reference and its reward."""

    loss: str
    beta: float
    steps: int
    seed: int
    kl: float
    """In nats per sequence, estimated from the policy's own answers."""
    reward: float
    """The mean true reward of its answers, in [-1, 1]."""
    well_formed: float
    """The share of its answers that the grammar accepts."""
    kl_formed: float
    """The mean log-ratio of its well-formed answers only; `reward_formed` is their mean reward."""
    reward_formed: float
    accuracy: float
    """The accuracy of the implicit reward on the held-out pairs."""


def prepare(work: Path) -> None:
    """Build the base model, the training pairs, and the pairs whose prompts the policies answer."""
    from data_tools.convert import main as convert
    from quickstart.build_model import main as build
    from quickstart.make_data import main as make

    work.mkdir(parents=True, exist_ok=True)
    fresh = str(work / "held-out.csv")
    for main, words in (
        (build, [str(work / "model")]),
        # The config evaluates during training; a small test split keeps that cheap.
        (convert, ["data/raw.csv", "-o", str(work / "data"), "--test-size", "0.02"]),
        (make, ["--seed", "1", "--out", fresh]),
        (convert, [fresh, "-o", str(work / "held-out"), "--test-size", "0"]),
    ):
        must(main, words)


def point(work: Path, loss: str, beta: float, steps: int, seed: int, samples: int) -> Point:
    """Train one policy for `steps` steps and sample its answers; `beta` is NaN for SFT."""
    import pandas

    from dpo_wrap.eval import main as evaluate
    from dpo_wrap.train import main as train

    run = work / f"{loss}-{beta:g}-{steps}-{seed}"
    keys = {
        "model_path": work / "model",
        "dataset_path": work / "data",
        "output_dir": run,
        "loss_type": f"[{loss.replace('+', ', ')}]" if "+" in loss else loss,
        "max_steps": steps,
        "seed": seed,
    }
    keys |= {} if loss == SFT else {"beta": beta}
    words = [word for name, value in keys.items() for word in ("--set", f"{name}={value}")]
    answered = ["--samples", str(samples), "--max-new-tokens", str(TOKENS)]
    options = ["--dataset", str(work / "held-out"), "--split", "train", *answered]
    if _figures(run).get("samples") != samples:
        must(train, [CONFIG, *words])
        must(evaluate, [str(run / "config.resolved.yaml"), *options])
    found, answers = _figures(run), pandas.read_parquet(run / "examples.parquet")
    formed = answers[answers["well_formed_policy"] == 1]
    return Point(
        loss=loss,
        beta=beta,
        steps=steps,
        seed=seed,
        kl=found["kl_per_sequence"],
        reward=found["metrics"]["sentiment"]["policy"],
        well_formed=found["metrics"]["well_formed"]["policy"],
        kl_formed=float(formed["policy_answer_log_ratio"].mean()),
        reward_formed=float(formed["sentiment_policy"].mean()),
        accuracy=found["reward_accuracy"],
    )


def best_possible(work: Path, prompts: int, draws: int) -> list[Point]:
    """The optimum of reward - beta KL (paper, equation 4), by self-normalized importance weights.

    The n answers y_i to a prompt, sampled from the reference, have weights w_i = exp(r_i / beta) /
    sum_j exp(r_j / beta); the reward is sum w_i r_i and the KL sum w_i log(n w_i). Both are
    underestimated when few answers have most of the weight: the reward is at most max r_i and the
    KL at most log n.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig

    from dpo_wrap.evaluation.models import draw_answers
    from quickstart.grammar import is_well_formed, true_reward

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    model = AutoModelForCausalLM.from_pretrained(work / "model").eval()
    dpo = DPOConfig(output_dir=str(work / "unused"), use_cpu=True, bf16=False, report_to=[])
    torch.manual_seed(0)
    rewards, formed = [], []
    for prompt in _prompts(work)[:prompts]:
        ids = [tokenizer(prompt)["input_ids"]] * draws
        answers = draw_answers(
            model, ids, dpo, [tokenizer.eos_token_id], TOKENS, tokenizer.pad_token_id
        )
        texts = [prompt + tokenizer.decode(a, skip_special_tokens=True) for a in answers]
        rewards.append([true_reward(text) for text in texts])
        formed.append([float(is_well_formed(text)) for text in texts])
    r, f = torch.tensor(rewards), torch.tensor(formed)
    points = []
    for beta in OPTIMA:
        w = (r / beta).softmax(dim=1)
        kl = (w * (w * draws).log()).sum(dim=1).mean().item()
        reward, well = ((w * x).sum(dim=1).mean().item() for x in (r, f))
        points.append(Point(BEST, beta, 0, 0, kl, reward, well, *[math.nan] * 3))
    return points


def _prompts(work: Path) -> list[str]:
    from datasets import load_from_disk

    rows = load_from_disk(str(work / "held-out"))["train"]
    return list(dict.fromkeys(rows["prompt"]))


def _figures(run: Path) -> dict:
    path = run / "eval.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def means(points: Sequence[Point]) -> list[dict]:
    """One row per loss, beta and number of steps: means and standard deviations over seeds."""
    grouped: dict[tuple, list[Point]] = {}
    for one in points:
        beta = None if math.isnan(one.beta) else one.beta
        grouped.setdefault((one.loss, one.steps, beta), []).append(one)
    rows = []
    for (loss, steps, beta), group in grouped.items():
        row = {"loss": loss, "beta": beta, "steps": steps, "seeds": len(group)}
        for name in ("kl", "reward", "well_formed", "kl_formed", "reward_formed", "accuracy"):
            values = [getattr(one, name) for one in group]
            row[name] = statistics.mean(values)
            row[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else math.nan
        rows.append(row)
    return rows


def curves(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each curve: a loss at one number of steps over betas, SFT over its steps."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        alone = row["loss"] in (SFT, BEST)
        name = row["loss"] if alone else f"{row['loss']}, {row['steps']} steps"
        found.setdefault(name, []).append(row)
    return found


def reward_at(rows: Sequence[dict], kl: float) -> float | None:
    """The reward of a frontier at this KL, interpolated linearly; None outside its range."""
    curve = sorted((row["kl"], row["reward"]) for row in rows)
    for (before, low), (after, high) in zip(curve, curve[1:], strict=False):
        if before <= kl <= after:
            return low + (high - low) * (kl - before) / (after - before or 1)
    return None


def table(rows: Sequence[dict]) -> list[str]:
    """The rows as text, and a comparison of each loss with SFT at equal KL."""
    head = f"{'loss':<14}{'beta':>6}{'steps':>7}{'KL, nats':>17}{'true reward':>16}"
    lines = [f"{head}{'well formed':>13}   KL, reward of these"]
    for row in rows:
        beta = "" if row["beta"] is None else f"{row['beta']:g}"
        kl, reward = (_spread(row[name], row[f"{name}_sd"]) for name in ("kl", "reward"))
        lines.append(
            f"{row['loss']:<14}{beta:>6}{row['steps'] or '':>7}{kl:>17}{reward:>16}"
            f"{row['well_formed']:>13.3f}{_formed(row)}"
        )
    for name, frontier in curves(rows).items():
        above = [
            (row, at - row["reward"])
            for row in rows
            if row["loss"] == SFT and (at := reward_at(frontier, row["kl"])) is not None
        ]
        if name != SFT and above:
            text = ", ".join(f"{gain:+.2f} at {row['kl']:.2f} nats" for row, gain in above)
            lines.append(f"{name} over {SFT} at equal KL: {text}")
    return lines


def _formed(row: dict) -> str:
    if math.isnan(row["kl_formed"]):
        return ""
    return f"{row['kl_formed']:>13.2f}{row['reward_formed']:>8.2f}"


def _spread(middle: float, deviation: float) -> str:
    return f"{middle:.2f}" + ("" if math.isnan(deviation) else f" ± {deviation:.2f}")


def plot(points: Sequence[Point], rows: Sequence[dict], path: Path) -> None:
    """Plot reward and well-formedness over KL: a dot per policy, a line through the means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7, 7.5), sharex=True, height_ratios=(2, 1), layout="constrained"
    )
    losses = list(dict.fromkeys(row["loss"] for row in rows))
    for name, mine in curves(rows).items():
        loss, short = mine[0]["loss"], mine[0]["steps"] == STEPS[0] and mine[0]["loss"] != SFT
        color = "0.5" if loss == BEST else f"C{losses.index(loss)}"
        style = {"color": color, "linestyle": "--" if loss == BEST else ":" if short else "-"}
        dots = [one for one in points if one.loss == loss != BEST]
        for axes, figure_name in ((above, "reward"), (below, "well_formed")):
            axes.plot([r["kl"] for r in mine], [r[figure_name] for r in mine], label=name, **style)
            heights = [getattr(one, figure_name) for one in dots]
            axes.scatter([one.kl for one in dots], heights, s=8, color=color)
        named = [row for row in mine if loss in ("sigmoid", SFT) and row["kl"] <= FAR]
        for row in named if not short else ():
            text = f"{row['steps']} steps" if loss == SFT else f"beta {row['beta']:g}"
            above.annotate(text, (row["kl"], row["reward"]), fontsize=7, alpha=0.8)
    above.set(ylabel="true reward")
    # Most points are at low KL; a square-root axis spreads them.
    above.set_xscale("function", functions=(lambda x: abs(x) ** 0.5, lambda x: x**2))
    above.set_xlim(0, FAR)
    below.set(xlabel="KL(policy || reference), nats per sequence", ylabel="share well formed")
    above.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def write(points: Sequence[Point], out: Path) -> None:
    """Write the data of the plot as CSV, and the plot."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "frontier.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(asdict(points[0])), lineterminator="\n")
        writer.writeheader()
        for one in points:
            row = {n: "" if v != v else v for n, v in asdict(one).items()}  # NaN: not available
            writer.writerow({n: f"{v:.6f}" if isinstance(v, float) else v for n, v in row.items()})
    plot(points, means(points), out / "frontier.png")


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.frontier",
        description="True reward against KL, over losses, betas and seeds; SFT as the baseline.",
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("docs"), metavar="DIR", help="default: docs")
    add("--work", type=Path, default=Path("checkpoints/frontier"), metavar="DIR", help="runs")
    add("--seeds", type=int, default=3, metavar="N", help="seeds per setting (default 3)")
    add("--samples", type=int, default=1000, metavar="N", help="prompts to answer (default 1000)")
    add("--losses", nargs="+", choices=(*BETAS, SFT), default=[*BETAS, SFT], help="default: all")
    add("--betas", nargs="+", type=float, metavar="B", help="for all losses (default: per loss)")
    add("--steps", type=int, nargs="+", default=STEPS, metavar="N", help="default: 195 585")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    prepare(options.work)
    with silence():
        points = best_possible(options.work, min(200, options.samples), DRAWS)
    for loss in options.losses:
        lengths = LENGTHS if loss == SFT else options.steps
        betas = (math.nan,) if loss == SFT else options.betas or BETAS[loss]
        for steps, beta, seed in product(lengths, betas, range(1, options.seeds + 1)):
            one = point(options.work, loss, beta, steps, seed, options.samples)
            points.append(one)
            name = f"{loss} beta {beta:g} {steps} steps seed {seed}"
            print(f"{name}: KL {one.kl:.2f}, reward {one.reward:+.3f}", flush=True)
    write(points, options.out)
    print("", *table(means(points)), f"written: {options.out}/frontier.csv, .png", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

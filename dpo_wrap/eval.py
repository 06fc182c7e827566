"""Did it work? Score a trained run against its reference: python -m dpo_wrap.eval CONFIG

Held-out pairs say whether the policy prefers as people did, sampled answers whether it still writes
as it should; `metrics:` adds figures of the user's own to both models' answers.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_wrap.errors import ConfigError, DpoWrapError, ModelError
from dpo_wrap.loading.hub import check_paths, settle_environment
from dpo_wrap.settings.config import Settings, load_settings
from dpo_wrap.signals import Stop, leave
from dpo_wrap.train import add_config_options, config_path

if TYPE_CHECKING:
    from dpo_wrap.judging.evaluation import Evaluation

EXAMPLES = """examples:
  python -m dpo_wrap.eval configs/dpo_config.yaml
  python -m dpo_wrap.eval configs/dpo_config.yaml --samples 200 --max-new-tokens 64
  python -m dpo_wrap.eval configs/dpo_config.yaml --dataset data/other

exit status: 0 evaluated; 1 it failed or was stopped; 2 the config, the data or the model's files
were refused."""

EVAL, SAMPLES, RESOLVED, RUN = "eval.json", "samples.jsonl", "config.resolved.yaml", "run.json"
PAGE = "report.html"
# What the figures do not hang on, so that the config of now decides it.
READ = {
    *("beta", "max_length", "truncation_mode", "bf16", "fp16", "tf32", "use_cpu", "seed"),
    *("per_device_eval_batch_size", "dataset_num_proc", "model_init_kwargs", "trust_remote_code"),
}
NOT_JUDGED = {
    "sync_ref_model": "the reference that moved is not kept, and eval takes the one of the start",
    "ld_alpha": "eval scores whole answers alike",
}
SPEED = ("per_device_eval_batch_size", "dataset_num_proc", "use_cpu")
# What the figures hang on, beside every key under lora:.
FIXED = {
    *("model_path", "adapter_path", "chat_template", "overlength", "load_in_4bit", "lora"),
    *("beta", "max_length", "truncation_mode"),
}
AGAIN, LESS = "run the same command again", "--set per_device_eval_batch_size=1"
SHOWN, CLIPPED = 2, 200
"""Samples on the screen, and characters of each; samples.jsonl holds all."""


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.eval",
        description="Score the run in output_dir against its reference, on pairs that it did not "
        "train on, and let both answer some of their prompts.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_options(parser)
    add = parser.add_argument
    add("--split", choices=("test", "train"), default="test", help="default: test")
    add("--dataset", metavar="PATH", help="evaluate on this instead of the config's dataset_path")
    add(
        "--samples",
        type=_count,
        default=64,
        metavar="N",
        help="prompts that both models answer (default 64; 0 samples none)",
    )
    add(
        "--max-new-tokens",
        type=_at_least_one,
        default=128,
        metavar="N",
        help="tokens at which a sampled answer is cut off (default 128)",
    )
    add("--seed", type=_count, default=0, metavar="N", help="of the sampling (default 0)")
    return parser


def _count(text: str, least: int = 0, most: int = 2**32 - 1) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"an integer expected, found {text!r}") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {least} to {most}")
    return value


def _at_least_one(text: str) -> int:
    return _count(text, least=1)


def trained_settings(settings: Settings, dataset: str | None) -> Settings:
    """What the run was trained with, asked about the data and metrics that the config names now.

    Raises ModelError where no finished run stands, ConfigError where the config says otherwise now.
    """
    run = Path(settings.output_dir).expanduser()
    if not (run / RUN).is_file():
        raise ModelError(
            f"{settings.place('output_dir')}: {settings.output_dir} holds no finished run; "
            f"train it: python -m dpo_wrap.train {settings.source}"
        )
    trained = load_settings(str(run / RESOLVED))
    differing = [
        name for name in _given(settings) if _value(settings, name) != _value(trained, name)
    ]
    if differing:
        said = "; ".join(
            f"{settings.place(name)} {_value(settings, name)!r}, trained with "
            f"{_value(trained, name)!r}"
            for name in differing
        )
        raise ConfigError(f"the config is not the one of the run in {run}: {said}; train it anew")
    if dataset is not None and not dataset.strip():
        raise ConfigError("--dataset: empty; give the path of a dataset")
    # Schedules, savings and the choice of a best checkpoint are done with.
    for name, why in NOT_JUDGED.items():
        if trained.trl.get(name):
            print(f"{name}: {why}, so the trainer's own figures differ", file=sys.stderr)
    kept = {name: value for name, value in trained.trl.items() if name in READ}
    speed = {name: settings.trl[name] for name in SPEED if name in settings.trl}
    paths, places = settings.dataset_path, settings.places
    if dataset:
        paths, places = (dataset,), {**places, "dataset_path": "--dataset"}
    return dataclasses.replace(
        trained,
        output_dir=str(run),
        dataset_path=paths,
        metrics=settings.metrics,
        places=places,
        source=settings.source,
        trl=kept | speed,
        chat_template=None,  # the run's tokenizer has it already
        early_stopping_patience=None,
    )


def _given(settings: Settings) -> list[str]:
    """The keys that the model's figures hang on, of those that the config gives."""
    return [name for name in settings.places if name in FIXED or name.startswith("lora.")]


def _value(settings: Settings, name: str) -> Any:
    if name == "lora":
        return settings.lora is not None
    if name.startswith("lora."):
        return (settings.lora or {}).get(name.removeprefix("lora."))
    return getattr(settings, name) if hasattr(settings, name) else settings.option(name)


def summary(found: dict[str, Any], samples: list[dict[str, Any]], run: str) -> str:
    """The figures as a table, two samples, and where to look next."""
    low, high = found["reward_accuracy_interval"]
    rows = [
        (
            "held-out pairs" if found["split"] == "test" else "pairs",
            f"{found['examples']:,} ({found['split']})",
        ),
        ("reward accuracy", f"{found['reward_accuracy']:.3f}  [{low:.3f}, {high:.3f}]"),
        ("reward margin", f"{found['reward_margin']:.3f}"),
        ("log-ratio chosen", f"{found['chosen_log_ratio']:+.2f} nats"),
        ("log-ratio rejected", f"{found['rejected_log_ratio']:+.2f} nats"),
    ]
    if found["ties"]:
        rows.insert(2, ("ties (no wins)", f"{found['ties']:,}"))
    if samples:
        bounds = found["kl_per_sequence_interval"]
        spread = f"  [{bounds[0]:.2f}, {bounds[1]:.2f}]" if bounds else ""
        rows += [
            ("sampled answers", f"{found['samples']:,} of each model"),
            ("KL a sequence", f"{found['kl_per_sequence']:.2f}{spread} nats"),
            ("KL a token", f"{found['kl_per_token']:.3f} nats"),
            ("length ratio", f"{found['length_ratio']:.2f}"),
        ]
    for name, change in found["metrics"].items():
        bounds = change["change_interval"]
        spread = f"  [{bounds[0]:+.3f}, {bounds[1]:+.3f}]" if bounds else ""
        rows.append(
            (
                name,
                f"{change['reference']:.3f} -> {change['policy']:.3f}, "
                f"change {change['change']:+.3f}{spread}",
            )
        )
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    lines += [f"of {path}: {_slice(figures)}" for path, figures in found["slices"].items()]
    for sample in samples[:SHOWN]:
        lines += ["", f"prompt     {_one_line(sample['prompt'])[-CLIPPED:]}"]
        lines += [
            f"{who:<9}  {_one_line(sample[who])[:CLIPPED]}" for who in ("reference", "policy")
        ]
    lines += ["", "intervals are of 95 %; a log-ratio is policy over reference, without beta"]
    lines += [f"page {run}/{PAGE}, figures {run}/{EVAL}, samples {run}/{SAMPLES}"]
    return "\n".join(lines)


def _slice(found: dict[str, Any]) -> str:
    if not found["examples"]:
        return "no pairs in this split"
    low, high = found["reward_accuracy_interval"]
    return (
        f"{found['examples']:,} pairs, reward accuracy {found['reward_accuracy']:.3f} "
        f"[{low:.3f}, {high:.3f}], margin {found['reward_margin']:.3f}"
    )


def _one_line(text: str) -> str:
    """The text in one printable line: a model may write control characters."""
    return "".join(char if char.isprintable() else " " for char in " ".join(text.split()))


def write(done: "Evaluation", run: Path) -> None:
    """eval.json, samples.jsonl and the page, each whole or not at all. Raises OSError."""
    from dpo_wrap.atomic import write_atomically
    from dpo_wrap.page.pieces import read_object
    from dpo_wrap.page.report import write_page

    lines = (json.dumps(sample, ensure_ascii=False) for sample in done.samples)
    write_atomically(run / SAMPLES, "".join(f"{line}\n" for line in lines))
    # Which weights these are figures of: a run may be gone on with.
    figures = {**done.figures, "steps": read_object(run / RUN).get("steps")}
    write_atomically(run / EVAL, json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    write_page(run)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        with Stop():
            settings = load_settings(config_path(arguments), arguments.overrides)
            settings = trained_settings(settings, arguments.dataset)
            check_paths(settings)
            settle_environment(settings)
            # Imports torch and trl, which takes seconds: not before the config is right.
            from dpo_wrap.faults import faults_named
            from dpo_wrap.judging.evaluation import Request, evaluate_run

            request = Request(
                arguments.split, arguments.samples, arguments.max_new_tokens, arguments.seed
            )
            run = Path(settings.output_dir)
            with faults_named(run, AGAIN, LESS):
                done = evaluate_run(settings, request)
                write(done, run)
    except DpoWrapError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr)
        return 1
    print(summary(done.figures, done.samples, settings.output_dir))
    return 0


if __name__ == "__main__":
    leave(main())

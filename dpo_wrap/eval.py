"""Evaluate a trained run against its reference: python -m dpo_wrap.eval CONFIG

Scores held-out pairs, samples answers of both models to some of their prompts, and computes the
modules of `metrics:` on those answers.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dpo_wrap import cli
from dpo_wrap.config import Settings, load_settings
from dpo_wrap.errors import ConfigError, ModelError, RunError
from dpo_wrap.evaluation.findings import findings, summary, win_rate_summary
from dpo_wrap.evaluation.reasons import null_reasons, reason_lines
from dpo_wrap.evaluation.run_settings import other_run_settings, run_settings
from dpo_wrap.evaluation.win_rate import (
    is_about,
    is_judged,
    read_verdicts,
    to_judge,
    win_rate,
)
from dpo_wrap.files import write_atomically
from dpo_wrap.hub import check_paths, configure_environment
from dpo_wrap.ownership import locked
from dpo_wrap.report.page import write_page
from dpo_wrap.run_dir import (
    CONFIG,
    EVAL,
    EXAMPLES_TABLE,
    REPORT,
    RUN,
    SAMPLES,
    TO_JUDGE,
    read_lines,
    read_object,
)
from dpo_wrap.terminal import show

if TYPE_CHECKING:
    from dpo_wrap.evaluation.evaluate import Evaluation

EXAMPLES = """examples:
  python -m dpo_wrap.eval configs/dpo_config.yaml
  python -m dpo_wrap.eval checkpoints/dpo
  python -m dpo_wrap.eval configs/dpo_config.yaml --samples 200 --max-new-tokens 64
  python -m dpo_wrap.eval configs/dpo_config.yaml --dataset data/other
  python -m dpo_wrap.eval configs/dpo_config.yaml --against checkpoints/another
  python -m dpo_wrap.eval configs/dpo_config.yaml --verdicts verdicts.jsonl

to_judge.jsonl in output_dir has the sampled answers of both models, each pair in both orders, for
people or for dpo_wrap.judge to judge; --verdicts reads the result as a win rate.

exit status: 0 evaluated; 1 it failed or was stopped; 2 the config, the data or the model's files
were refused."""

# What --verdicts needs of the eval.json that it extends.
NEEDED = {"findings", "steps", "ties", "length_matched", "groups", "samples", "kl_per_token"}
AGAIN, LESS_MEMORY = "run the same command again", "--set per_device_eval_batch_size=1"


def parser() -> argparse.ArgumentParser:
    """The command line; --help imports no library."""
    parser = cli.ConfigParser(
        prog="python -m dpo_wrap.eval",
        description="Score the run in output_dir against its reference on pairs that it was not "
        "trained on, and sample answers of both to some of their prompts.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_config_options(parser)
    add = parser.add_argument
    add("--split", choices=("test", "train"), default="test", help="default: test")
    add(
        "--dataset",
        type=cli.path,
        metavar="PATH",
        help="evaluate on this instead of the config's dataset_path",
    )
    for name, default, ge, text in (
        ("--samples", 64, 0, "prompts that both models answer (default 64; 0 samples none)"),
        ("--max-new-tokens", 128, 1, "tokens at which an answer is cut off (default 128)"),
        ("--seed", 0, 0, "of the sampling (default 0)"),
    ):
        add(name, type=partial(_integer, ge), default=default, metavar="N", help=text)
    add(
        "--against",
        type=cli.path,
        metavar="RUN_DIR",
        help="also score another finished run on the same rows and prompts, and report the paired "
        "differences with their intervals",
    )
    add(
        "--verdicts",
        type=cli.path,
        metavar="FILE",
        help="score nothing: read to_judge.jsonl as filled in by people or a model (preference 1, "
        "2 or 1.5), and add the win rate to eval.json and the page",
    )
    return parser


def _integer(ge: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, found {text!r}") from None
    if not ge <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is out of range; it must be {ge} to {2**32 - 1}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)

    def command(stop: cli.Stop) -> int:
        settings = _settings(cli.config_path(arguments), arguments)
        if arguments.verdicts is None:
            out, done = settings.output_dir, _evaluate(settings, arguments)
            lines = [
                *summary(done.figures),
                f"figures {out}/{EVAL}, samples {out}/{SAMPLES}, every pair {out}/{EXAMPLES_TABLE}",
                f"page, to open in a browser: {out}/{REPORT}",
            ]
        else:
            figures = _add_verdicts(settings, arguments)
            reasons = reason_lines(null_reasons({"win_rate": figures["win_rate"]}))
            page = f"page {settings.output_dir}/{REPORT}"
            lines = [*win_rate_summary(figures["win_rate"]), *reasons, page]
        show("\n".join(lines))
        return 0

    return cli.run(command, stopped=f"stopped; {AGAIN}")


def evaluate(
    config: str | os.PathLike,
    overrides: Mapping[str, Any] | None = None,
    *,
    split: str = "test",
    dataset: str | None = None,
    samples: int = 64,
    max_new_tokens: int = 128,
    seed: int = 0,
    against: str | None = None,
    verdicts: str | None = None,
) -> "Evaluation":
    """Evaluate the run of a config, or of its directory, with the options of the command.

    Raises DpoWrapError where the command would exit with 1 or 2.
    """
    options = {n: v for n, v in locals().items() if n not in ("config", "overrides")}
    cli.check_options(parser(), options)
    options |= {n: str(v) for n, v in options.items() if isinstance(v, os.PathLike)}
    arguments = argparse.Namespace(overrides=cli.as_overrides(overrides), **options)
    settings = _settings(os.fspath(config), arguments)
    if verdicts is None:
        return _evaluate(settings, arguments)
    figures, run = _add_verdicts(settings, arguments), Path(settings.output_dir)
    import pandas

    from dpo_wrap.evaluation.evaluate import Evaluation

    return Evaluation(figures, read_lines(run / SAMPLES), pandas.read_parquet(run / EXAMPLES_TABLE))


def _settings(config: str, arguments: argparse.Namespace) -> Settings:
    """The settings of the run of a config or of a run directory."""
    run = Path(config).expanduser()
    if not run.is_dir():
        return run_settings(load_settings(config, arguments.overrides), arguments.dataset)
    if not (run / CONFIG).is_file():
        raise ModelError(f"{config} has no {CONFIG}; give a config, or the output_dir of a run")
    settings = load_settings(str(run / CONFIG), [f"output_dir={config}", *arguments.overrides])
    return run_settings(dataclasses.replace(settings, source=config), arguments.dataset)


def _evaluate(settings: Settings, arguments: argparse.Namespace) -> "Evaluation":
    """Evaluate the run, and the one to compare it with, and write the results."""
    against = arguments.against
    other = None if against is None else other_run_settings(settings, against)
    for given in filter(None, (settings, other)):
        check_paths(given)
    configure_environment(settings)
    # Imports torch and trl, which takes seconds, so the config is checked first.
    from dpo_wrap.evaluation.evaluate import Request, evaluate_run
    from dpo_wrap.evaluation.examples import paired_differences
    from dpo_wrap.system_errors import system_errors_reported

    request = Request(arguments.split, arguments.samples, arguments.max_new_tokens, arguments.seed)
    run = Path(settings.output_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(system_errors_reported(run, AGAIN, LESS_MEMORY))
        stack.enter_context(locked(run, "eval"))
        if other is not None:
            stack.enter_context(locked(Path(other.output_dir), "eval", shared=True))
        done = evaluate_run(settings, request)
        if other is not None:
            there = evaluate_run(other, request).examples
            differences = paired_differences(done.examples, there, done.figures["metrics"])
            done.figures["against"] = {"run": against, "differences": differences}
        done.figures["reasons"] = null_reasons(done.figures)
        _write(done, run)
    return done


def _write(done: "Evaluation", run: Path) -> None:
    """Write the figures, samples, examples, questions to judges and the page. Raises OSError."""
    table = io.BytesIO()
    done.examples.to_parquet(table, index=False)
    write_atomically(run / EXAMPLES_TABLE, table.getvalue())
    questions = to_judge(_for_judges(done.samples), done.figures["seed"])
    judged = is_judged(run / TO_JUDGE)
    if not judged or not is_about(run / TO_JUDGE, questions):
        if judged:
            _rename_judged(run)
        write_atomically(run / TO_JUDGE, _lines(questions))
    else:
        before = read_object(run / EVAL)
        if before.get("win_rate") and before.get("steps") == read_object(run / RUN).get("steps"):
            # The verdicts are on the same answers.
            done.figures["win_rate"] = before["win_rate"]
            done.figures["findings"] = findings(done.figures)
    write_atomically(run / SAMPLES, _lines(done.samples))
    # The steps identify the weights that were evaluated, since a run may be resumed.
    _write_figures({**done.figures, "steps": read_object(run / RUN).get("steps")}, run)


def _rename_judged(run: Path) -> None:
    """Rename the judged questions and the answers that they are about."""
    number = 1
    while any(run.glob(f"*.old-{number}.jsonl")):
        number += 1
    for name in (TO_JUDGE, SAMPLES):
        if (run / name).exists():
            (run / name).rename(run / name.replace(".jsonl", f".old-{number}.jsonl"))
    show(f"{run / TO_JUDGE} has verdicts on other answers; renamed to *.old-{number}.jsonl")


def _write_figures(figures: dict[str, Any], run: Path) -> None:
    """Write eval.json and refresh the page."""
    try:
        text = json.dumps(figures, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:
        raise ModelError(f"{run / EVAL}: a figure is NaN or inf; check the metrics") from None
    write_atomically(run / EVAL, text + "\n")
    write_page(run)


def _lines(records: Iterable[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


def _for_judges(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples with their prompts as people read them, without a template's tokens."""
    return [sample | {"prompt": sample["instruction"]} for sample in samples]


def _add_verdicts(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    """Add the win rate to eval.json and the page; returns the figures."""
    names = ("split", "dataset", "samples", "max_new_tokens", "seed", "against")
    defaults = parser().parse_args([settings.source])
    ignored = [n for n in names if getattr(arguments, n) != getattr(defaults, n)]
    if ignored:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in ignored)
        raise ConfigError(f"--verdicts scores nothing, so {options} would be ignored; remove it")
    run, again = Path(settings.output_dir), f"python -m dpo_wrap.eval {settings.source}"
    figures, samples = read_object(run / EVAL), read_lines(run / SAMPLES)
    if not samples or not figures.keys() >= NEEDED:
        raise ModelError(
            f"{run}: no sampled answers to judge, or {EVAL} is too old; evaluate: {again}"
        )
    if figures.get("steps") != read_object(run / RUN).get("steps"):
        raise ModelError(
            f"{run}: the run was resumed after the answers were sampled, so the verdicts are on "
            f"another policy; evaluate again: {again}"
        )
    if not to_judge(_for_judges(samples), 0):
        raise ModelError(
            f"{run}: policy and reference gave the same answers to all {len(samples)} sampled "
            "prompts, so there is nothing to judge; sample other answers (--samples, --seed, "
            f"--max-new-tokens) or train longer, then evaluate: {again}"
        )
    verdicts = read_verdicts(arguments.verdicts)
    if all(record["preference"] is None for record in verdicts):
        raise ConfigError(f"{arguments.verdicts}: every preference is null; fill in the file")
    figures["win_rate"] = win_rate(_for_judges(samples), verdicts)
    figures["findings"] = findings(figures)
    figures["reasons"] = null_reasons(figures)
    try:
        with locked(run, "eval"):
            _write_figures(figures, run)
    except OSError as error:
        raise RunError(f"{error.filename}: {error.strerror}; fix that, and {AGAIN}") from None
    return figures


def script() -> NoReturn:
    """The command that an installation adds."""
    cli.exit_with(main())


if __name__ == "__main__":
    script()

"""Did it work? Score a trained run against its reference: python -m dpo_wrap.eval CONFIG

Held-out pairs say whether the policy prefers as people did, sampled answers whether it still writes
as it should; `metrics:` adds figures of the user's own to both models' answers.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_wrap.config import Settings, load_settings
from dpo_wrap.errors import ConfigError, DpoWrapError, ModelError, RunError
from dpo_wrap.evaluation.run_settings import other_settings, trained_settings
from dpo_wrap.hub import check_paths, settle_environment
from dpo_wrap.run_dir import EVAL, EXAMPLES_TABLE, REPORT, RUN, SAMPLES, TO_JUDGE
from dpo_wrap.signals import Stop, exit_with
from dpo_wrap.train import add_config_options, config_path

if TYPE_CHECKING:
    from dpo_wrap.evaluation.evaluate import Evaluation

EXAMPLES = """examples:
  python -m dpo_wrap.eval configs/dpo_config.yaml
  python -m dpo_wrap.eval configs/dpo_config.yaml --samples 200 --max-new-tokens 64
  python -m dpo_wrap.eval configs/dpo_config.yaml --dataset data/other
  python -m dpo_wrap.eval configs/dpo_config.yaml --against checkpoints/another
  python -m dpo_wrap.eval configs/dpo_config.yaml --verdicts verdicts.jsonl

to_judge.jsonl in output_dir has the sampled answers of both models, each pair in both orders, for
people or for dpo_wrap.judge; --verdicts makes a win rate of what they say.

exit status: 0 evaluated; 1 it failed or was stopped; 2 the config, the data or the model's files
were refused."""

ASKED = ("instruction", "policy", "reference")
SCORING = ("split", "dataset", "samples", "max_new_tokens", "seed", "against")
# What findings and the page take for granted of an eval.json that is gone on with.
NEEDED = {"findings", "steps", "ties", "length_matched", "groups", "samples", "kl_per_token"}
AGAIN, LESS = "run the same command again", "--set per_device_eval_batch_size=1"


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
    add(
        "--against",
        metavar="RUN_DIR",
        help="score another finished run on the same rows and prompts too, and give the paired "
        "differences with their intervals",
    )
    add(
        "--verdicts",
        metavar="FILE",
        help="score nothing: read to_judge.jsonl as people or a model filled it in (preference 1, "
        "2 or 1.5), and add the win rate to eval.json and the page",
    )
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


def write(done: "Evaluation", run: Path) -> None:
    """The figures, samples, examples, questions to judges and the page. Raises OSError."""
    import io

    from dpo_wrap.evaluation.win_rate import to_judge
    from dpo_wrap.files import write_atomically
    from dpo_wrap.report.page import write_page
    from dpo_wrap.report.run_files import read_object

    table = io.BytesIO()
    done.examples.to_parquet(table, index=False)
    write_atomically(run / EXAMPLES_TABLE, table.getvalue())
    write_atomically(run / SAMPLES, _lines(done.samples))
    questions = to_judge(_as_asked(done.samples), done.figures["seed"])
    write_atomically(run / TO_JUDGE, _lines(questions))
    # Which weights these are figures of: a run may be gone on with.
    figures = {**done.figures, "steps": read_object(run / RUN).get("steps")}
    _write_figures(figures, run)
    write_page(run)


def add_verdicts(settings: Settings, verdicts: str) -> dict[str, Any]:
    """The win rate that the verdicts make of the run's samples, added to eval.json and the page."""
    from dpo_wrap.evaluation.findings import findings
    from dpo_wrap.evaluation.win_rate import read_verdicts, win_rate
    from dpo_wrap.report.page import write_page
    from dpo_wrap.report.run_files import read_lines, read_object

    run = Path(settings.output_dir)
    figures, samples = read_object(run / EVAL), read_lines(run / SAMPLES)
    samples = [sample for sample in samples if all(isinstance(sample.get(n), str) for n in ASKED)]
    if not samples or not figures.keys() >= NEEDED:
        raise ModelError(
            f"{run}: holds no sampled answers to judge, or its {EVAL} is of an older version; "
            f"evaluate: python -m dpo_wrap.eval {settings.source}"
        )
    if figures["steps"] != read_object(run / RUN).get("steps"):
        raise ModelError(
            f"{run}: was trained further since the answers were sampled, so the verdicts are on "
            f"another policy; evaluate again: python -m dpo_wrap.eval {settings.source}"
        )
    given = read_verdicts(verdicts)
    if all(record["preference"] is None for record in given):
        raise ConfigError(f"{verdicts}: every preference is null, so nobody has judged; fill it in")
    figures["win_rate"] = win_rate(_as_asked(samples), given)
    figures["findings"] = findings(figures)
    _write_figures(figures, run)
    write_page(run)
    return figures["win_rate"]


def _as_asked(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples with their prompts as people read them, without a template's marks."""
    return [sample | {"prompt": sample["instruction"]} for sample in samples]


def _write_figures(figures: dict[str, Any], run: Path) -> None:
    from dpo_wrap.files import write_atomically

    try:
        text = json.dumps(figures, ensure_ascii=False, indent=2, allow_nan=False)
    except ValueError:
        raise ModelError(f"{run / EVAL}: holds what is no number; evaluate again") from None
    write_atomically(run / EVAL, text + "\n")


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    try:
        with Stop():
            settings = load_settings(config_path(arguments), arguments.overrides)
            settings = trained_settings(settings, arguments.dataset)
            work = _scored if arguments.verdicts is None else _judged
            lines = work(settings, arguments)
    except DpoWrapError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print("stopped; run the same command again", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


def _judged(settings: Settings, arguments: argparse.Namespace) -> list[str]:
    """Take the verdicts in; nothing is loaded for it. Raises ConfigError for what it cannot do."""
    from dpo_wrap.evaluation import summary

    plain = parser().parse_args([settings.source])
    unread = [n for n in SCORING if getattr(arguments, n) != getattr(plain, n)]
    if unread:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unread)
        raise ConfigError(f"--verdicts scores nothing, so {names} would be ignored; leave it out")
    try:
        found = add_verdicts(settings, arguments.verdicts)
    except OSError as error:
        raise RunError(f"{error.filename}: {error.strerror}; mend that, and {AGAIN}") from None
    return [*summary.win_rate(found), f"page {settings.output_dir}/{REPORT}"]


def _scored(settings: Settings, arguments: argparse.Namespace) -> list[str]:
    """Score the run, and the one that it is held against."""
    other = other_settings(settings, arguments.against) if arguments.against is not None else None
    for given in (settings, other):
        if given is not None:
            check_paths(given)
    settle_environment(settings)
    # Imports torch and trl, which takes seconds: not before the config is right.
    from dpo_wrap.evaluation import summary
    from dpo_wrap.evaluation.evaluate import Request, evaluate_run
    from dpo_wrap.evaluation.paired import paired
    from dpo_wrap.system_errors import system_errors_reported

    request = Request(arguments.split, arguments.samples, arguments.max_new_tokens, arguments.seed)
    run = Path(settings.output_dir)
    with system_errors_reported(run, AGAIN, LESS):
        done = evaluate_run(settings, request)
        if other is not None:
            differences = paired(done, evaluate_run(other, request))
            done.figures["against"] = {"run": arguments.against, "differences": differences}
        write(done, run)
    out = settings.output_dir
    return [
        *summary.summary(done.figures, done.samples),
        f"figures {out}/{EVAL}, samples {out}/{SAMPLES}, every pair {out}/{EXAMPLES_TABLE}",
        f"page, to open in a browser: {out}/{REPORT}",
    ]


if __name__ == "__main__":
    exit_with(main())

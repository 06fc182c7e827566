"""Train a model on preference pairs with DPO: python -m dpo_wrap.train configs/dpo_config.yaml

TRL trains. This command checks the config, the data and the model first, reports what it does, and
writes a run directory from which the run can be repeated, resumed and evaluated.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from dpo_wrap import cli
from dpo_wrap.config import Settings, documented_keys, load_settings
from dpo_wrap.errors import RunError
from dpo_wrap.hub import check_paths, check_push, configure_environment
from dpo_wrap.run_dir import Run, read_run

EXAMPLES = """examples:
  python -m dpo_wrap.train configs/dpo_config.yaml
  python -m dpo_wrap.train configs/dpo_config.yaml --dry-run
  python -m dpo_wrap.train my.yaml --set model_path=models/base --set beta=0.2 --set lora.r=16
  python -m dpo_wrap.train my.yaml --resume never

exit status: 0 trained; 1 the run failed or was stopped (after a signal it can be resumed); 2 the
config, the data or the model's files were refused."""


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = cli.ConfigParser(
        prog="python -m dpo_wrap.train",
        description="Train a model on preference pairs with DPO.",
        epilog=f"{_keys_help()}\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_config_options(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="do everything but update weights: check, load and tokenize, print three examples as "
        "they would be trained on and step 0's loss and margin; write nothing",
    )
    parser.add_argument(
        "--resume",
        default="auto",
        metavar="auto|never|PATH",
        help="auto (default): resume from the newest complete checkpoint in output_dir if config "
        "and data match; never: rename an old run and start at step 0; PATH: resume from that "
        "checkpoint",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)

    def command(stop: cli.Stop) -> int:
        settings = load_settings(cli.config_path(arguments), arguments.overrides)
        return _train(settings, arguments.dry_run, arguments.resume, stop)

    stopped = "stopped; complete checkpoints are kept; run the same command again to resume"
    return cli.run(command, stopped)


def train(
    config: str | os.PathLike,
    overrides: Mapping[str, Any] | None = None,
    *,
    dry_run: bool = False,
    resume: str = "auto",
) -> Run | None:
    """Train what a config file describes, with `overrides` in place of its values.

    The options are those of the command: `train("dpo.yaml", {"beta": 0.2, "lora.r": 4})`. Returns
    None after a dry run. Raises DpoWrapError where the command would exit with 1 or 2.
    """
    settings = load_settings(os.fspath(config), cli.as_overrides(overrides))
    with cli.Stop() as stop:
        if _train(settings, dry_run, resume, stop):
            raise RunError("the dry run failed: policy and reference differ before the first step")
    if dry_run:
        return None
    directory = Path(settings.output_dir).expanduser()
    return Run(directory, read_run(directory))


def _train(settings: Settings, dry: bool, resume: str, stop: cli.Stop) -> int:
    check_paths(settings)
    configure_environment(settings)
    check_push(settings)
    # Imports torch and trl, which takes seconds: not before the config is right.
    from dpo_wrap.training.dry_run import dry_run
    from dpo_wrap.training.session import run_session

    return dry_run(settings, resume) if dry else run_session(settings, resume, stop)


def _keys_help() -> str:
    rows = documented_keys()
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {meaning} ({default})" for name, default, meaning in rows]
    return "\n".join(
        [
            "keys of the config that are this wrapper's own:",
            *lines,
            f"  {'lora':<{width}}  any field of peft.LoraConfig below; false: full weights",
            "and any field of trl.DPOConfig by its own name, at top level.",
        ]
    )


def script() -> NoReturn:
    """The command that an installation adds."""
    cli.exit_with(main())


cli.make_callable(__name__, train)

if __name__ == "__main__":
    script()

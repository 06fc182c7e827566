"""Train a model on preference pairs with DPO: python -m dpo_wrap.train configs/dpo_config.yaml

TRL trains. This command checks the config, the data and the model first, reports what it does, and
writes a run directory from which the run can be repeated, resumed and evaluated.
"""

import argparse
from collections.abc import Sequence

from dpo_wrap import cli
from dpo_wrap.config import documented_keys, load_settings
from dpo_wrap.hub import check_paths, check_push, configure_environment

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
    return cli.run(
        lambda stop: _train(arguments, stop),
        stopped="stopped; complete checkpoints are kept; run the same command again to resume",
    )


def _train(arguments: argparse.Namespace, stop: cli.Stop) -> int:
    settings = load_settings(cli.config_path(arguments), arguments.overrides)
    check_paths(settings)
    configure_environment(settings)
    check_push(settings)
    # Imports torch and trl, which takes seconds: not before the config is right.
    from dpo_wrap.training.dry_run import dry_run
    from dpo_wrap.training.session import train

    if arguments.dry_run:
        return dry_run(settings, arguments.resume)
    return train(settings, arguments.resume, stop)


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


if __name__ == "__main__":
    cli.exit_with(main())

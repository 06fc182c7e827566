"""List the pairs whose label looks wrong: python -m dpo_wrap.suspects CONFIG

Two policies are trained, each on half of the prompts, and each scores the pairs of the other half.
Pairs on which the policy strongly prefers the rejected answer are listed for a person to check.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from dpo_wrap import cli
from dpo_wrap.config import load_settings
from dpo_wrap.errors import ConfigError
from dpo_wrap.hub import check_paths, configure_environment
from dpo_wrap.ownership import locked
from dpo_wrap.run_dir import RUN
from dpo_wrap.terminal import show

EXAMPLES = """examples:
  python -m dpo_wrap.suspects configs/dpo_config.yaml
  python -m dpo_wrap.suspects configs/dpo_config.yaml --set num_epochs=1

suspects.jsonl in output_dir lists the suspects, lowest margin first, each with its `source`, and
out_of_fold.parquet has the margin of every pair. Read the list, delete the lines whose label is
right, and exclude the others from the data:

  python -m data_tools.convert raw.csv -o data/fixed --exclude-rows checkpoints/dpo/suspects.jsonl

Each policy is trained for as many steps as a run on all the data, so this takes twice as long as
training. Pairs made from one record have the same source and are excluded together; if the raw data
repeat a pair, convert names the other record to list. A suspect is not a verdict: a rare but
correct opinion looks like a wrong label.

exit status: 0 scored; 1 it failed or was stopped, and the same command resumes; 2 the config, the
data or the model's files were refused."""


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = cli.ConfigParser(
        prog="python -m dpo_wrap.suspects",
        description="List the pairs whose margin strongly contradicts their label, each scored by "
        "a policy that was not trained on it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    cli.add_config_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    return cli.run(
        lambda stop: _suspects(arguments, stop), stopped="stopped; the same command resumes"
    )


def _suspects(arguments: argparse.Namespace, stop: cli.Stop) -> int:
    settings = load_settings(cli.config_path(arguments), arguments.overrides)
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("suspects runs in one process; start it without a launcher")
    check_paths(settings)
    configure_environment(settings)
    # Imports torch and trl, which takes seconds: not before the config is right.
    from dpo_wrap.report.page import write_page
    from dpo_wrap.suspects.out_of_fold import cross_fit, write_suspects
    from dpo_wrap.system_errors import system_errors_reported

    out = Path(settings.output_dir).expanduser()
    with system_errors_reported(out, "the same command resumes"), locked(out, "suspects"):
        with cross_fit(settings, stop) as (scores, splits):
            lines = write_suspects(scores, splits, out)
        if (out / RUN).is_file():
            write_page(out)
    show("\n".join(lines))
    return 0

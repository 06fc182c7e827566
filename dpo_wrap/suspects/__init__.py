"""Which labels look wrong? Pairs that speak against their label: python -m dpo_wrap.suspects CONFIG

Two runs are trained, each on half of the prompts, and each scores the half that it did not see.
What a policy strongly prefers the other way round is listed for a person to look at.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpo_wrap.config import Settings, load_settings
from dpo_wrap.errors import ConfigError, DpoWrapError
from dpo_wrap.hub import check_paths, settle_environment
from dpo_wrap.run_dir import RUN, SUSPECTS, SUSPECTS_FIGURES, SUSPECTS_SCORES
from dpo_wrap.signals import Stop
from dpo_wrap.train import add_config_options, config_path

EXAMPLES = """examples:
  python -m dpo_wrap.suspects configs/dpo_config.yaml
  python -m dpo_wrap.suspects configs/dpo_config.yaml --set num_epochs=1

suspects.jsonl in output_dir has the suspects, the strongest first, each with its `source`, and
out_of_fold.parquet the margin of every pair. Read the file, delete the lines whose label is right
after all, and leave the others out of the data:

  python -m data_tools.convert raw.csv -o data/mended --exclude-rows checkpoints/dpo/suspects.jsonl

Each half is trained on for as many steps as the whole would be, so it takes twice as long as
training. Pairs made of one record share its source and are left out together; where the same pair
stands twice in the raw data, convert says which place to list too. It is a list to look at and no
verdict: a rare but right opinion looks like a mistake.

exit status: 0 scored; 1 it failed or was stopped, and the same command goes on; 2 the config, the
data or the model's files were refused."""

SHOWN, CLIPPED = 3, 160
AGAIN = "the same command goes on from there"


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.suspects",
        description="List the pairs whose margin speaks strongly against their label, each scored "
        "by a policy that was not trained on it.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_config_options(parser)
    return parser


def find(settings: Settings, stop: Stop) -> list[str]:
    """Score every pair out of fold, write what is suspect, and return what to say of it."""
    import io

    from dpo_wrap.evaluation.examples import said
    from dpo_wrap.files import write_atomically
    from dpo_wrap.report.page import write_page
    from dpo_wrap.suspects.cross_fit import OWN_COLUMNS, clear, scored_apart
    from dpo_wrap.suspects.selection import as_record, concentrated, crowd, suspects, threshold

    out = Path(settings.output_dir).expanduser()
    scored, splits = scored_apart(settings, stop)
    found, records = suspects(scored), []
    kept = [name for name in scored if name not in OWN_COLUMNS]
    for row in found.to_dict("records"):
        pair = splits[row["split"]][row["row"]]
        text = {side: said(pair[side]) for side in ("prompt", "chosen", "rejected")}
        records.append(as_record(row, text, kept))
    table = io.BytesIO()
    scored.to_parquet(table, index=False)
    write_atomically(out / SUSPECTS_SCORES, table.getvalue())
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    write_atomically(out / SUSPECTS, lines)
    figures = {
        "pairs": len(scored),
        "suspects": len(records),
        "agreement": float((scored["reward_margin"] > 0).mean()),
        "threshold": threshold(scored["reward_margin"]),
        "crowds": [crowd(*one) for one in concentrated(scored, found, kept)],
    }
    text = json.dumps(figures, ensure_ascii=False, indent=2)
    write_atomically(out / SUSPECTS_FIGURES, text + "\n")
    clear(settings)
    if (out / RUN).is_file():
        write_page(out)
    return summary(figures, records, out)


def summary(figures: dict[str, Any], records: list[dict[str, Any]], out: Path) -> list[str]:
    """How many are suspect and where they crowd, the first few, and what to do with them."""
    lines = [
        f"{figures['pairs']:,} pairs scored by policies that did not see them, which agree with "
        f"{figures['agreement']:.1%} of the labels",
        f"{len(records):,} suspect ({len(records) / figures['pairs']:.1%}): the other answer has a "
        f"probability of at least {figures['threshold']:.2f}",
        *(f"! {line}" for line in figures["crowds"]),
    ]
    for record in records[:SHOWN]:
        lines += ["", f"{record['source']}: margin {record['reward_margin']:.2f} against the label"]
        lines += [
            f"  {side:<9} {_one_line(record[side])}" for side in ("prompt", "chosen", "rejected")
        ]
    placeless = sum(not record["source"] for record in records)
    if records and placeless == len(records):
        lines.append("the data have no column `source`, so convert cannot leave these rows out")
    elif records:
        if placeless:
            lines.append(
                f"{placeless:,} have no `source`: delete those lines, convert refuses them"
            )
        lines += [
            "",
            "read them, delete the lines whose label is right, and leave the others out:",
            f"python -m data_tools.convert RAW -o NEW --exclude-rows {out / SUSPECTS}",
        ]
    return [*lines, f"suspects {out / SUSPECTS}, every margin {out / SUSPECTS_SCORES}"]


def _one_line(text: str) -> str:
    shown = "".join(char if char.isprintable() else " " for char in " ".join(text.split()))
    return shown if len(shown) <= CLIPPED else f"{shown[: CLIPPED - 1]}…"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    try:
        with Stop() as stop:
            settings = load_settings(config_path(arguments), arguments.overrides)
            if os.environ.get("WORLD_SIZE", "1") != "1":
                raise ConfigError("suspects runs in one process; start it without a launcher")
            check_paths(settings)
            settle_environment(settings)
            # Imports torch and trl, which takes seconds: not before the config is right.
            from dpo_wrap.system_errors import system_errors_reported

            with system_errors_reported(Path(settings.output_dir), AGAIN):
                lines = find(settings, stop)
    except DpoWrapError as error:
        print(error, file=sys.stderr)
        return error.status
    except KeyboardInterrupt:
        print(f"stopped; {AGAIN}", file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0

"""Select the pairs whose margin contradicts their label, and write the list."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from dpo_wrap.evaluation.examples import VALUES, as_text, file_of
from dpo_wrap.files import write_atomically
from dpo_wrap.run_dir import SUSPECTS, SUSPECTS_FIGURES, SUSPECTS_SCORES
from dpo_wrap.suspects.cross_fit import COLUMNS

RATIO, MINIMUM = 2.0, 3
"""Share of suspects over the overall share, and number of suspects, to report a group."""


def confidence(margins: pd.Series) -> pd.Series:
    """The probability that a policy gives each label: sigmoid of its margin (paper, equation 6)."""
    return 0.5 * (1 + np.tanh(margins / 2))


def threshold(margins: pd.Series) -> float:
    """The probability of the other label above which a pair is suspect.

    Confident learning (Northcutt et al. 2021, equation 2): the mean probability of the given
    labels, one value for both classes since chosen and rejected are symmetric. Unlike a fixed
    threshold it follows beta and the length of training.
    """
    return float(confidence(margins).mean())


def suspects(scores: pd.DataFrame) -> pd.DataFrame:
    """The suspect rows, lowest margin first, with the `probability` of their label.

    Margins of 0, of a policy that learned nothing, make no suspects.
    """
    given = confidence(scores["reward_margin"])
    is_suspect = (1 - given >= threshold(scores["reward_margin"])) & (given < 0.5)
    return scores.assign(probability=given)[is_suspect].sort_values("reward_margin", kind="stable")


def concentrations(scores: pd.DataFrame, found: pd.DataFrame, kept: Sequence[str]) -> list[str]:
    """Sentences on groups with many suspects, by input file and by each kept column.

    A group's share of suspects is more than RATIO times the overall one. Columns of more than
    VALUES distinct values are no groups.
    """
    columns = {"file": scores["source"].map(file_of, na_action="ignore")}
    columns |= {name: scores[name] for name in kept}
    overall, sentences = len(found) / len(scores), []
    for name, values in columns.items():
        pairs, suspect = values.value_counts(), values[found.index].value_counts()
        if not 1 < len(pairs) <= VALUES:
            continue
        for value, count in suspect.items():
            if count >= MINIMUM and count / pairs[value] > RATIO * overall:
                sentences.append(
                    f"{name} {value}: {count:,} of its {pairs[value]:,} pairs are suspect, far "
                    "more than elsewhere; check how its labels were assigned or read before you "
                    "remove single pairs"
                )
    return sentences


def write_suspects(scores: pd.DataFrame, splits: dict[str, Dataset], out: Path) -> list[str]:
    """Write the scores, the suspects and the figures; return the lines to print."""
    kept = [name for name in scores if name not in COLUMNS]
    found = suspects(scores)
    rows = found.to_dict("records")
    records = [_record(row, splits[row["split"]][row["row"]], kept) for row in rows]
    figures = {
        "pairs": len(scores),
        "suspects": len(records),
        "agreement": float((scores["reward_margin"] > 0).mean()),
        "threshold": threshold(scores["reward_margin"]),
        "crowds": concentrations(scores, found, kept),
    }
    table = io.BytesIO()
    scores.to_parquet(table, index=False)
    write_atomically(out / SUSPECTS_SCORES, table.getvalue())
    lines = "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records)
    write_atomically(out / SUSPECTS, lines)
    text = json.dumps(figures, ensure_ascii=False, indent=2)
    write_atomically(out / SUSPECTS_FIGURES, text + "\n")
    return _summary(figures, records, out)


def _record(row: dict[str, Any], pair: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    """A line of suspects.jsonl; convert --exclude-rows reads its `source`."""
    names = (*kept, "source", "reward_margin", "probability", "split")
    texts = {side: as_text(pair[side]) for side in ("prompt", "chosen", "rejected")}
    return {name: row[name] for name in names} | texts


def _summary(figures: dict[str, Any], records: list[dict[str, Any]], out: Path) -> list[str]:
    lines = [
        f"{figures['pairs']:,} pairs scored by policies that were not trained on them, which agree "
        f"with {figures['agreement']:.1%} of the labels",
        f"{len(records):,} suspect ({len(records) / figures['pairs']:.1%}): the other answer has a "
        f"probability of at least {figures['threshold']:.2f}",
        *(f"! {sentence}" for sentence in figures["crowds"]),
    ]
    without = sum(not record["source"] for record in records)
    if without:
        lines.append(f"{without:,} have no `source`, so convert cannot exclude them; delete them")
    if records:
        lines += [
            f"read {out / SUSPECTS}, delete the lines with a correct label, exclude the others:",
            f"  python -m data_tools.convert RAW -o NEW --exclude-rows {out / SUSPECTS}",
        ]
    return [*lines, f"every margin {out / SUSPECTS_SCORES}"]

"""What the converter said of a run's data: the report.json of each dataset, where it stands.

A converted directory has its report beside it; that of a raw file, which was converted on the way,
stands in the run directory.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def reports(run: Path, paths: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By path, the reports of those datasets that have one which can be read."""
    found = {}
    for position, path in enumerate(paths):
        part = f"dataset-{position + 1}" if len(paths) > 1 else "dataset"
        given = Path(path).expanduser()
        try:
            place = given if given.is_dir() else run / part
        except OSError:  # no path at all, such as one that is too long
            continue
        if report := _object(place / "report.json"):
            found[path] = report
    return found


def ordered(reports: Sequence[dict[str, Any]], split: str) -> tuple[int, int]:
    """Of how many pairs of a split the order shown is known, and how often the first one won."""
    parts = [_dict(_dict(report.get("order_by_split")).get(split)) for report in reports]
    return _sum(parts, "pairs"), _sum(parts, "first_wins")


def agreement(reports: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How often an annotator agrees with the majority of the others; None where it is not known.

    `share` over all judgements that others judged too: what a model at best can be asked for, since
    a label that the next annotator would turn round can only be guessed.
    """
    known = [found for report in reports if (found := _dict(report.get("agreement")))]
    rows = [row for found in known for row in found["per_annotator"] if row["compared"]]
    compared = sum(row["compared"] for row in rows)
    if not compared:
        return None
    agreed = sum(row["compared"] * (1 - row["differs"]) for row in rows)
    alpha = known[0]["alpha"] if len(known) == 1 else None
    return {"share": agreed / compared, "judgements": compared, "alpha": alpha}


def _object(path: Path) -> dict[str, Any]:
    try:
        return _dict(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _sum(parts: list[dict[str, Any]], name: str) -> int:
    return sum(part[name] for part in parts if isinstance(part.get(name), int))

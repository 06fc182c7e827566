"""Baselines for data_tools.convert: the scripts that users write by hand.

    python -m bench.rivals datasets raw.csv out
    python -m bench.rivals pandas raw.csv out
    python -m bench.rivals read raw.csv out

`datasets` loads, filters, maps and saves, with the checks of single records. `pandas`
makes every check of records and pairs, duplicates and contradictions included, on chunks of the
file, but does not report what it drops. `read` only reads the bytes.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_CHUNK = 20_000  # rows that pandas reads at once
_FIRST_WON = {"response_a": True, "response_b": False}


def by_datasets(path: Path, out: Path) -> None:
    """load_dataset, filter, map and save_to_disk."""
    import datasets

    datasets.disable_progress_bars()
    is_csv = path.suffix == ".csv"
    rows = datasets.load_dataset(
        "csv" if is_csv else "json",
        data_files=str(path),
        split="train",
        cache_dir=str(out / "cache"),
    )
    rows = rows.filter(_is_valid_row if is_csv else _is_valid_record)
    if is_csv:
        rows = rows.map(_by_label, remove_columns=rows.column_names)
    rows.train_test_split(0.05, seed=0).save_to_disk(str(out / "data"))


def _is_valid_row(row: dict) -> bool:
    texts = row["prompt"], row["response_a"], row["response_b"]
    if not all(text and text.strip() for text in texts) or row["preference"] not in _FIRST_WON:
        return False
    return " ".join(texts[1].split()) != " ".join(texts[2].split())


def _by_label(row: dict) -> dict:
    answers = row["response_a"], row["response_b"]
    chosen, rejected = answers if _FIRST_WON[row["preference"]] else answers[::-1]
    return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}


def _is_valid_record(record: dict) -> bool:
    sides = record["prompt"], record["chosen"], record["rejected"]
    if not all(sides) or any(side[-1]["role"] != "assistant" for side in sides[1:]):
        return False
    prompt, chosen, rejected = (" ".join(side[-1]["content"].split()) for side in sides)
    return bool(prompt and chosen and rejected and chosen != rejected)


def by_pandas(path: Path, out: Path) -> None:
    """Read the file twice: the keys of all pairs, then the pairs that are kept."""
    import pyarrow as pa

    outcomes: dict[bytes, int] = {}  # of each comparison: bit 1 one answer won, bit 2 the other
    for rows in _valid_rows(path):
        for key, outcome in zip(rows["key"], rows["outcome"], strict=True):
            outcomes[key] = outcomes.get(key, 0) | outcome
    names = ["prompt", "chosen", "rejected"]
    schema, written = pa.schema([(name, pa.string()) for name in names]), set()
    with (
        pa.OSFile(str(out / "train.arrow"), "wb") as train_file,
        pa.OSFile(str(out / "test.arrow"), "wb") as test_file,
        pa.ipc.new_stream(train_file, schema) as train,
        pa.ipc.new_stream(test_file, schema) as test,
    ):
        for rows in _valid_rows(path):
            keep = []
            for key in rows["key"]:
                keep.append(outcomes[key] != 3 and key not in written)
                written.add(key)
            rows = rows[keep]
            for split, part in ((train, rows[~rows["in_test"]]), (test, rows[rows["in_test"]])):
                split.write_table(pa.Table.from_pandas(part[names], schema, preserve_index=False))


def _valid_rows(path: Path) -> Iterator:
    """Data frames of the valid pairs, with the keys for the checks across records."""
    import pandas as pd
    import xxhash

    chunks = pd.read_csv(
        path, dtype=str, keep_default_na=False, chunksize=_CHUNK, on_bad_lines="skip"
    )
    for rows in chunks:
        rows = rows[rows["preference"].isin(list(_FIRST_WON))]
        normalized = {
            name: rows[name].str.split().str.join(" ")
            for name in ("prompt", "response_a", "response_b")
        }
        is_valid = normalized["response_a"] != normalized["response_b"]
        for texts in normalized.values():
            is_valid &= texts != ""
        rows = rows[is_valid]
        prompts, a, b = (texts[is_valid] for texts in normalized.values())
        first_won = rows["preference"] == "response_a"
        low, high = a.where(a < b, b), b.where(a < b, a)
        keys = [
            xxhash.xxh3_128_digest("\0".join(key).encode())
            for key in zip(prompts, low, high, strict=True)
        ]
        yield pd.DataFrame(
            {
                "prompt": rows["prompt"],
                "chosen": rows["response_a"].where(first_won, rows["response_b"]),
                "rejected": rows["response_b"].where(first_won, rows["response_a"]),
                "key": keys,
                "outcome": ((a < b) == first_won).astype(int) + 1,
                "in_test": [xxhash.xxh3_64_intdigest(text.encode()) % 20 == 0 for text in prompts],
            }
        )


def by_reading(path: Path, out: Path) -> None:
    """Read the bytes and do nothing with them."""
    buffer = bytearray(1 << 20)
    with path.open("rb") as file:
        while file.readinto(buffer):
            pass


RIVALS = {"datasets": by_datasets, "pandas": by_pandas, "read": by_reading}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("raw", type=Path, help="a file that bench.raw_pairs wrote")
    parser.add_argument("out", type=Path, help="the directory to write")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    RIVALS[arguments.rival](arguments.raw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

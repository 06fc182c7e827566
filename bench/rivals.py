"""What people write to get from a raw file to a dataset, to measure data_tools.convert against.

    python -m bench.rivals datasets raw.csv out
    python -m bench.rivals pandas raw.csv out
    python -m bench.rivals read raw.csv out

`datasets` loads, filters, maps and saves, with the rules that need no second look at the data;
`pandas` keeps every rule of one pair and of all pairs, a chunk at a time, but names no rejected
record; `read` does nothing with the bytes.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

_CHUNK = 20_000  # rows of a chunk of pandas'
_WON = {"response_a": True, "response_b": False}


def by_datasets(path: Path, out: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    kind = "csv" if path.suffix == ".csv" else "json"
    rows = datasets.load_dataset(
        kind, data_files=str(path), split="train", cache_dir=str(out / "cache")
    )
    sound, sides = (_labelled, _sides) if kind == "csv" else (_messages, None)
    rows = rows.filter(sound)
    if sides:
        rows = rows.map(sides, remove_columns=rows.column_names)
    rows.train_test_split(0.05, seed=0).save_to_disk(str(out / "data"))


def _labelled(row: dict) -> bool:
    texts = row["prompt"], row["response_a"], row["response_b"]
    if not all(text and text.strip() for text in texts) or row["preference"] not in _WON:
        return False
    return " ".join(texts[1].split()) != " ".join(texts[2].split())


def _sides(row: dict) -> dict:
    sides = row["response_a"], row["response_b"]
    chosen, rejected = sides if _WON[row["preference"]] else sides[::-1]
    return {"prompt": row["prompt"], "chosen": chosen, "rejected": rejected}


def _messages(row: dict) -> bool:
    sides = row["prompt"], row["chosen"], row["rejected"]
    if not all(sides) or any(side[-1]["role"] != "assistant" for side in sides[1:]):
        return False
    prompt, chosen, rejected = (" ".join(side[-1]["content"].split()) for side in sides)
    return bool(prompt and chosen and rejected and chosen != rejected)


def by_pandas(path: Path, out: Path) -> None:
    """Two passes: keys of all pairs, then the rows that they leave."""
    import pyarrow as pa

    seen: dict[bytes, int] = {}  # of each comparison the ways that it went, by its key
    for rows in _sound(path):
        for key, way in zip(rows["key"], rows["way"], strict=True):
            seen[key] = seen.get(key, 0) | way
    taken, schema = set(), pa.schema([(n, pa.string()) for n in ("prompt", "chosen", "rejected")])
    with (
        pa.OSFile(str(out / "train.arrow"), "wb") as one,
        pa.OSFile(str(out / "test.arrow"), "wb") as other,
        pa.ipc.new_stream(one, schema) as train,
        pa.ipc.new_stream(other, schema) as test,
    ):
        for rows in _sound(path):
            first = []
            for key in rows["key"]:
                first.append(seen[key] != 3 and key not in taken)
                taken.add(key)
            rows = rows[first]
            for sink, part in ((train, rows[~rows["held"]]), (test, rows[rows["held"]])):
                columns = part[["prompt", "chosen", "rejected"]]
                sink.write_table(pa.Table.from_pandas(columns, schema, preserve_index=False))


def _sound(path: Path) -> Iterator:
    import pandas as pd
    import xxhash

    chunks = pd.read_csv(
        path, dtype=str, keep_default_na=False, chunksize=_CHUNK, on_bad_lines="skip"
    )
    for rows in chunks:
        rows = rows[rows["preference"].isin(list(_WON))]
        folded = {
            name: rows[name].str.split().str.join(" ")
            for name in ("prompt", "response_a", "response_b")
        }
        full = folded["response_a"] != folded["response_b"]
        for texts in folded.values():
            full &= texts != ""
        rows = rows[full]
        first = rows["preference"] == "response_a"
        a, b = folded["response_a"][full], folded["response_b"][full]
        prompts = folded["prompt"][full]
        low, high = a.where(a < b, b), b.where(a < b, a)
        keys = [
            xxhash.xxh3_128_digest("\0".join(key).encode())
            for key in zip(prompts, low, high, strict=True)
        ]
        yield pd.DataFrame(
            {
                "prompt": rows["prompt"],
                "chosen": rows["response_a"].where(first, rows["response_b"]),
                "rejected": rows["response_b"].where(first, rows["response_a"]),
                "key": keys,
                "way": ((a < b) == first).astype(int) + 1,
                "held": [xxhash.xxh3_64_intdigest(text.encode()) % 20 == 0 for text in prompts],
            }
        )


def by_reading(path: Path, out: Path) -> None:
    buffer = bytearray(1 << 20)
    with path.open("rb") as file:
        while file.readinto(buffer):
            pass


WAYS = {"datasets": by_datasets, "pandas": by_pandas, "read": by_reading}


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.rivals",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("raw", type=Path, help="the file that `bench.raw_pairs` wrote")
    parser.add_argument("out", type=Path, help="a folder for what comes out")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    arguments.out.mkdir(parents=True, exist_ok=True)
    WAYS[arguments.way](arguments.raw, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast data_tools.convert is, and in how much memory: python -m bench.convert

Files of invented pairs with 3 % of each fault are converted by this command, by `datasets`
(load_dataset, filter, map, save_to_disk), by pandas in chunks with the same rules, and read and
thrown away; whole processes, in turns, so that other work on the machine falls on all of them.
Printed are medians of seconds, records and megabytes a second, peak memory over all processes of
each (as proportional shares, so that what they share counts once), and the others' seconds over
the command's, as medians of the ratios within each turn.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import raw_pairs

OURS, OTHERS = (
    "data_tools.convert",
    {"csv": ("datasets", "pandas", "read"), "jsonl": ("datasets", "read")},
)
_BEGINS = re.compile(rb'"?\d+: |\{"prompt"|\Z')  # a record, or nothing
_LOOK = 0.25  # seconds between two looks at the memory


@dataclass(frozen=True)
class Measured:
    """One process and all that it started."""

    seconds: float
    peak: int
    """Bytes."""


def measure(words: Sequence[str]) -> Measured:
    """Run a Python program; ends the bench with what it said if it fails."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL, stderr=said)
        peak = 0
        while process.returncode is None:
            peak = max(peak, sum(map(_memory, _tree(process.pid))))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_LOOK)
        seconds = time.perf_counter() - started
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(words)} ended with {process.returncode}:\n{said.read()}")
    return Measured(seconds, peak)


def _tree(pid: int) -> Iterator[int]:
    yield pid
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            children = Path(f"/proc/{pid}/task/{task}/children").read_text()
            for child in children.split():
                yield from _tree(int(child))
    except OSError:  # it has ended meanwhile
        return


def _memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def commands(raw: Path, out: Path, more: Sequence[str], alone: bool) -> dict[str, list[str]]:
    """What is run, by its name."""
    ours = ["-m", OURS, str(raw), "-o", str(out / "converted"), "--json", *more]
    others = (
        {}
        if alone
        else {w: ["-m", "bench.rivals", w, str(raw), str(out / w)] for w in OTHERS[raw.suffix[1:]]}
    )
    return {OURS: ours} | others


def in_turns(
    raw: Path, out: Path, runs: int, more: Sequence[str], alone: bool, say: Callable[[str], None]
) -> dict[str, list[Measured]]:
    """Every way some times, one after the other."""
    found: dict[str, list[Measured]] = {}
    for turn in range(runs):
        for name, words in commands(raw, out, more, alone).items():
            measured = measure(words)
            found.setdefault(name, []).append(measured)
            say(f"turn {turn + 1} {raw.name} {name}: {measured.seconds:.2f} s")
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
    return found


def table(raw: Path, records: int, found: dict[str, list[Measured]]) -> list[str]:
    size = raw.stat().st_size
    ours = [one.seconds for one in found[OURS]]
    lines = []
    for name, runs in found.items():
        seconds = statistics.median(one.seconds for one in runs)
        peak = max(one.peak for one in runs)
        ratio = statistics.median(a.seconds / b for a, b in zip(runs, ours, strict=True))
        speed = f"{records / seconds:,.0f} | {size / seconds / 1e6:,.0f}"
        lines.append(
            f"| {raw.suffix[1:]}, {records:,} | {name} | {seconds:.1f} | {speed} | "
            f"{peak / 1e6:,.0f} | {peak / records:,.0f} | {ratio:.1f} |"
        )
    return lines


HEAD = [
    "| input | way | seconds | records/s | MB/s | peak MB | bytes a record | seconds over ours |",
    "|---|---|---|---|---|---|---|---|",
]


def broken_line(raw: Path, out: Path, runs: int, more: Sequence[str]) -> str:
    """What one line with an open quote costs, in turns with the same file without it."""
    spoiled = raw.with_name(f"broken{raw.suffix}")
    with raw.open("rb") as file, spoiled.open("wb") as copy:
        copy.write(file.read(raw.stat().st_size // 2))
        line = file.readline()
        while not _BEGINS.match(line):
            copy.write(line)
            line = file.readline()
        copy.write(b'"broken\n' if raw.suffix == ".csv" else b'{"broken\n')
        copy.write(line)
        shutil.copyfileobj(file, copy, 1 << 20)
    ratios = []
    for _ in range(runs):
        both = [
            measure(commands(path, out, more, alone=True)[OURS]).seconds for path in (raw, spoiled)
        ]
        ratios.append(both[1] / both[0])
    report = json.loads((out / "converted/report.json").read_text("utf-8"))
    spoiled.unlink()
    return (
        f"{raw.suffix[1:]}: one broken line costs {statistics.median(ratios) - 1:+.1%} "
        f"({report['records']['read']:,} records read)"
    )


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--records",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000],
        metavar="N",
        help="records of a file (default 100000 1000000)",
    )
    add("--kinds", nargs="+", choices=OTHERS, default=[*OTHERS], help="of file (default both)")
    add("--runs", type=int, default=3, metavar="N", help="turns (default 3)")
    add("--workers", metavar="N", help="of the command (default: its own)")
    add("--short", action="store_true", help="texts of a few words, the command alone")
    add("--folder", type=Path, metavar="DIR", help="where files go (default: a temporary folder)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    more = ["--workers", arguments.workers] if arguments.workers else []
    lines, notes = [], []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        out = Path(folder) / "out"
        for records in arguments.records:
            for kind in arguments.kinds:
                raw = Path(folder) / f"raw.{kind}"
                out.mkdir(exist_ok=True)
                raw_pairs.write(raw, records, arguments.short)
                found = in_turns(raw, out, arguments.runs, more, arguments.short, _say)
                lines += table(raw, records, found)
                if records == max(arguments.records) and kind == "csv" and not arguments.short:
                    notes.append(broken_line(raw, out, arguments.runs, more))
                raw.unlink()
    print("\n".join([*HEAD, *lines, *notes]))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Speed and memory of data_tools.convert, compared with hand-written scripts.

    python -m bench.convert                      every kind of file, 100,000 and 1,000,000 records
    python -m bench.convert --kinds ascii --records 300000 --scaling     two workers against one
    python -m bench.convert --startup            --help, and 100 records

The files are those of bench.raw_pairs: labelled CSV in ASCII, the same with accents and Chinese
(wide), TRL's messages as JSON Lines, ranked answers, and CSV with three annotators. The other
programs are those of bench.rivals; on ranked and annotated files, convert runs alone.

All programs run in turn, three rounds by default, so that other load on the machine affects all of
them. Seconds are the median over rounds, memory is the largest sum over all processes of a program
(proportional set size, which counts shared pages once), and a ratio is the median of the ratios
within each round.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import raw_pairs

CONVERT = "data_tools.convert"
RIVALS = {
    "ascii": ("datasets", "pandas", "read"),
    "wide": ("datasets", "pandas", "read"),
    "jsonl": ("datasets", "read"),
}
BROKEN = "ascii"  # the kind that is also converted with a broken line
_INTERVAL = 0.25  # seconds between two memory samples


@dataclass(frozen=True)
class Run:
    """Wall-clock seconds of a program, and the peak memory of all its processes in bytes."""

    seconds: float
    peak: int


Command = list[str]  # the arguments of Python


def convert(raw: Path, out: Path, workers: int | None = None) -> Command:
    """The command that converts a raw file."""
    chosen = ["--workers", str(workers)] if workers else []
    return ["-m", CONVERT, str(raw), "-o", str(out), *chosen]


def measure(command: Command) -> Run:
    """Run a program to its end. Raises SystemExit with its error output where it fails."""
    peak, ended = 0, threading.Event()
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *command], stdout=subprocess.DEVNULL, stderr=errors
        )

        def watch() -> None:
            nonlocal peak
            while not ended.wait(_INTERVAL):
                peak = max(peak, sum(map(_memory, _processes(process.pid))))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        seconds = time.perf_counter() - started
        ended.set()
        watcher.join()
        if status:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)}: exit status {status}\n{errors.read()}")
    return Run(seconds, peak)


def _processes(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                yield from _processes(int(child))
    except OSError:  # the process has ended
        return


def _memory(pid: int) -> int:
    """The proportional set size of a process in bytes."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:  # the process has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def interleave(commands: Mapping[str, Command], rounds: int, out: Path) -> dict[str, list[Run]]:
    """The runs of each command; what they write to `out` is removed before the next."""
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(1, rounds + 1):
        for name, command in commands.items():
            shutil.rmtree(out, ignore_errors=True)
            run = measure(command)
            runs[name].append(run)
            line = f"round {number}, {' '.join(command)}: {run.seconds:.2f} s"
            print(line, file=sys.stderr, flush=True)
    return runs


def seconds(runs: Sequence[Run]) -> float:
    return statistics.median(run.seconds for run in runs)


def ratio(runs: Sequence[Run], base: Sequence[Run]) -> float:
    """How many times as long as `base` it takes."""
    return statistics.median(a.seconds / b.seconds for a, b in zip(runs, base, strict=True))


def throughput(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """A table of all programs on all kinds of files, and what a broken line costs."""
    columns = ("input", "records", "program", "seconds", "records/s", "MB/s", "peak MB")
    lines = _head(*columns, "bytes/record", "seconds over ours")
    notes, out = [], folder / "out"
    for records in arguments.records:
        for kind in arguments.kinds:
            raw = raw_pairs.write(folder, kind, records, arguments.short)
            size = raw.stat().st_size
            commands = {CONVERT: convert(raw, out, arguments.workers)}
            for rival in () if arguments.short else RIVALS.get(kind, ()):
                commands[rival] = ["-m", "bench.rivals", rival, str(raw), str(out)]
            found = interleave(commands, arguments.runs or 3, out)
            for name, runs in found.items():
                took, peak = seconds(runs), max(run.peak for run in runs)
                lines.append(
                    f"| {kind} | {records:,} | {name} | {took:.1f} | {records / took:,.0f} | "
                    f"{size / took / 1e6:,.0f} | {peak / 1e6:,.0f} | {peak / records:,.0f} | "
                    f"{ratio(runs, found[CONVERT]):.1f} |"
                )
            if kind == BROKEN and records == max(arguments.records) and not arguments.short:
                notes = ["", broken_line(raw, records, arguments, folder)]
            raw.unlink()
    return [*lines, *notes]


def broken_line(raw: Path, records: int, arguments: argparse.Namespace, folder: Path) -> str:
    """What one line with an open quote in the middle of a table costs."""
    broken, out = raw_pairs.write(folder, BROKEN, records, broken=True), folder / "out"
    commands = {
        "whole": convert(raw, out, arguments.workers),
        "broken": convert(broken, out, arguments.workers),
    }
    found = interleave(commands, arguments.runs or 3, out)
    broken.unlink()
    read = json.loads((out / "report.json").read_text("utf-8"))["records"]["read"]
    cost = ratio(found["broken"], found["whole"]) - 1
    return f"One broken line in {records:,} costs {cost:+.1%} ({read:,} records read)."


def scaling(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """The speedup of two workers over one."""
    lines = _head("input", "records", "one worker, s", "two workers, s", "ratio")
    out = folder / "out"
    for records in arguments.records:
        for kind in arguments.kinds:
            raw = raw_pairs.write(folder, kind, records, arguments.short)
            commands = {f"{n} workers": convert(raw, out, n) for n in (1, 2)}
            one, two = interleave(commands, arguments.runs or 3, out).values()
            shown = f"{seconds(one):.1f} | {seconds(two):.1f} | {ratio(one, two):.2f}"
            lines.append(f"| {kind} | {records:,} | {shown} |")
            raw.unlink()
    return lines


def startup(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Seconds of --help, and of 100 records of each kind."""
    out = folder / "out"
    commands = {"--help": ["-m", CONVERT, "--help"]}
    for kind in arguments.kinds:
        raw = raw_pairs.write(folder, kind, 100, arguments.short)
        commands[f"100 records, {kind}"] = convert(raw, out, arguments.workers)
    found = interleave(commands, arguments.runs or 10, out)
    return [
        *_head(CONVERT, "seconds"),
        *(f"| {name} | {seconds(runs):.2f} |" for name, runs in found.items()),
    ]


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, kinds, sizes = parser.add_argument, [*raw_pairs.KINDS], [100_000, 1_000_000]
    help = "records of a file (default 100000 1000000)"
    add("--records", type=int, nargs="+", default=sizes, metavar="N", help=help)
    add("--kinds", nargs="+", choices=kinds, default=kinds, help="of files (default all)")
    add("--runs", type=int, metavar="N", help="rounds (default 3, and 10 for --startup)")
    add("--workers", type=int, metavar="N", help="of convert (default its own)")
    add("--short", action="store_true", help="texts of a few words, and convert alone")
    add("--scaling", action="store_true", help="compare two workers with one")
    add("--startup", action="store_true", help="measure --help and 100 records")
    add("--folder", type=Path, metavar="DIR", help="for all files (default a temporary folder)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    bench = scaling if arguments.scaling else startup if arguments.startup else throughput
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print("\n".join(bench(arguments, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

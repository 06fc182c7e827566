"""What the README says exists: commands, options, keys, targets, files and configs."""

import csv
import re
import shlex
from pathlib import Path

import pytest

from bench import convert as bench_convert
from bench import frontier, overhead, rivals, train_throughput
from bench import suspects as bench_suspects
from data_tools import options
from data_tools.checks import WARNINGS
from data_tools.formats import FORMATS
from data_tools.record import REASONS
from dpo_wrap import eval as eval_command
from dpo_wrap import judge, merge, suspects, train
from dpo_wrap.config import key_table, load_settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONVERT = (ROOT / "docs/convert.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
PARSERS = {
    "data_tools.convert": options.parser,
    "dpo_wrap.train": train.parser,
    "dpo_wrap.eval": eval_command.parser,
    "dpo_wrap.merge": merge.parser,
    "dpo_wrap.judge": judge.parser,
    "dpo_wrap.suspects": suspects.parser,
    "bench.convert": bench_convert.parser,
    "bench.frontier": frontier.parser,
    "bench.rivals": rivals.parser,
    "bench.overhead": overhead.parser,
    "bench.suspects": bench_suspects.parser,
    "bench.train_throughput": train_throughput.parser,
}
CONFIGS = sorted((ROOT / "configs").glob("*.yaml")) + sorted(
    (ROOT / "configs/recipes").rglob("*.yaml")
)
SHOWING = [
    *(README, *DOCS, options.EXAMPLES, train.EXAMPLES, eval_command.EXAMPLES, merge.EXAMPLES),
    *(judge.EXAMPLES, suspects.EXAMPLES),
    *(path.read_text(encoding="utf-8") for path in CONFIGS),
]
COMMANDS = sorted(
    {
        command
        for text in SHOWING
        for command in re.findall(r"-m ((?:data_tools|dpo_wrap|bench)\.\w+[^\n`#]*)", text)
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_is_shown_parses(command):
    module, *words = shlex.split(command)
    PARSERS[module]().parse_args(words)


def test_every_option_that_the_readme_and_docs_name_is_one():
    known = {
        option
        for parser in PARSERS.values()
        for action in parser()._actions
        for option in action.option_strings
    }
    named = set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", "\n".join([README, *DOCS])))
    assert named - known == set()


def test_the_key_table_is_the_one_that_the_code_makes():
    assert key_table() in (ROOT / "docs/config.md").read_text(encoding="utf-8")


def test_every_format_has_its_row_in_the_docs():
    section = CONVERT.split("\n## Formats")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{f.name}` | {f.about['sentence']} | {f.about['polarity']} |" for f in FORMATS.values()
    ]


def test_the_docs_list_every_reason_and_every_warning():
    rows = set(re.findall(r"^\| `(\w+)` \|", CONVERT, re.MULTILINE))
    assert {*REASONS, *WARNINGS} <= rows


def test_every_make_target_that_is_named_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"(?:^|`|    )make ([a-z-]+)", text, re.MULTILINE)) <= targets


def test_every_link_to_a_file_leads_to_one():
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_config_loads(path):
    assert load_settings(str(path)).model_path


def test_the_sample_config_is_the_documented_one():
    assert (ROOT / "configs/dpo_config.yaml").read_text(encoding="utf-8").splitlines() == [
        'model_path: "gpt2"',
        'dataset_path: "data/preferences.json"',
        'output_dir: "checkpoints/dpo"',
        "batch_size: 4",
        "num_epochs: 3",
        'logging_dir: "logs"',
        "lora_r: 8",
        "lora_alpha: 16",
        "lora_dropout: 0.1",
        "max_seq_length: 512",
        "beta: 0.1",
    ]


def test_every_requirement_is_pinned_and_earns_its_line():
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
            if line.startswith(("#", "-r ")):
                continue
            assert re.fullmatch(r"[a-z0-9-]+==[\w.]+ +# .+", line), line


def test_the_proof_has_the_table_that_its_data_make():
    """docs/proof.md shows what bench.frontier printed, and docs/frontier.csv is behind it."""
    with (ROOT / "docs/frontier.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    read = {"loss": str, "seed": int, "steps": int}
    points = [
        frontier.Point(**{n: read.get(n, float)(value or "nan") for n, value in row.items()})
        for row in rows
    ]
    shown = (ROOT / "docs/proof.md").read_text(encoding="utf-8")
    assert "\n".join(frontier.table(frontier.means(points))) in shown
    assert (ROOT / "docs/frontier.png").read_bytes().startswith(b"\x89PNG")
    losses = {point.loss for point in points}
    assert losses == {*frontier.BETAS, frontier.SFT, frontier.BEST}
    assert {point.seed for point in points if point.loss != frontier.BEST} == {1, 2, 3}

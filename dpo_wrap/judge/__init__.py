"""Ask a model which answers are better: python -m dpo_wrap.judge to_judge.jsonl --model NAME"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from dpo_wrap import cli
from dpo_wrap.judge import verdicts_file
from dpo_wrap.judge.prompt import CRITERION

EXAMPLES = """The key is read from the environment only, from OPENAI_API_KEY; a server of your own
needs none. OPENAI_BASE_URL replaces --base-url. The texts of the file and the criterion are sent to
that endpoint and nowhere else.

FILE.jsonl has instruction, output_1 and output_2 (AlpacaEval's names). eval writes it as
to_judge.jsonl, with each pair in both orders, because judges prefer a position. Every verdict is
saved when it arrives; the same command then asks only what is missing. To judge by hand or with
another program, set `preference` to 1, 2, or 1.5 for a tie.

examples:
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --base-url http://localhost:8000/v1
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --criterion-file summaries.txt
  python -m dpo_wrap.judge runs/dpo/to_judge.jsonl --model NAME --max-tokens 4096 --again
  python -m dpo_wrap.eval configs/dpo_config.yaml --verdicts runs/dpo/verdicts.jsonl

Describe the criterion for your task, for example for summaries: the better one has the main points
of the post, precisely and in few words.

exit status: 0 every question was answered (replies without a verdict are counted); 1 requests
failed, or it was stopped, and all verdicts so far are saved; 2 refused."""

FIXED_FIELDS = {"model", "messages", "stream", "n"}


def parser() -> argparse.ArgumentParser:
    """The command line; no library is imported for its --help."""
    parser = argparse.ArgumentParser(
        prog="python -m dpo_wrap.judge",
        description="Ask a model which of two answers is better, for every record of a file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("file", metavar="FILE.jsonl", help="the pairs to judge, eval's to_judge.jsonl")
    add("--model", required=True, metavar="NAME", help="the judge's name at the endpoint")
    add("--base-url", metavar="URL", help="the endpoint, such as http://localhost:8000/v1")
    default = f"default {verdicts_file.VERDICTS} next to the input"
    add("-o", "--output", metavar="FILE", help=f"where to save the verdicts ({default})")
    criterion = parser.add_mutually_exclusive_group()
    about = f"what makes an answer the better one; default: {CRITERION}"
    criterion.add_argument("--criterion", metavar="TEXT", help=about)
    criterion.add_argument("--criterion-file", metavar="FILE", help="the same, from a text file")
    add("--again", action="store_true", help="ask again where a reply had no verdict")
    for option, type_, default, metavar, about in (
        ("--workers", cli.number(int, 1, 256), 4, "N", "concurrent requests"),
        ("--max-retries", cli.number(int, 0, 100), 5, "N", "retries of a failed request"),
        ("--timeout", cli.number(float, 0.001, 86_400), 120.0, "S", "seconds without a response"),
        ("--temperature", cli.number(float, 0), 0.0, "T", "sampling temperature"),
        ("--max-tokens", cli.number(int, 1, 10**6), 1024, "N", "tokens of a reply"),
    ):
        about = f"{about} (default %(default)g)"
        add(option, type=type_, default=default, metavar=metavar, help=about)
    add(
        "--request",
        type=_request_fields,
        default={},
        metavar="JSON",
        help="further or other fields of the request; null removes one: "
        '\'{"max_tokens": null, "max_completion_tokens": 4096, "temperature": null}\'',
    )
    return parser


def _request_fields(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"expected a JSON object, found {text!r}")
    if fixed := sorted(FIXED_FIELDS & value.keys()):
        raise argparse.ArgumentTypeError(f"{', '.join(fixed)} cannot be set; remove it")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    arguments = parser().parse_args(argv)
    return cli.run(
        lambda stop: verdicts_file.judge_file(arguments),
        stopped="stopped; all verdicts so far are saved; run the same command again for the rest",
    )

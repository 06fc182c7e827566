"""README.md of a trained or merged model: what it is, on which data, and how to load it."""

import re
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader

from dpo_wrap.hub import is_hub_name, is_local

README = "README.md"
FIGURES = {
    "reward_accuracy": "reward accuracy, last log of training",
    "reward_margin": "reward margin, last log of training",
    "eval_rewards/accuracies": "reward accuracy, held out",
    "eval_rewards/margins": "reward margin, held out",
    "kl_per_token_on_chosen": "KL from the reference per token of chosen answers, nats",
}


def model_card(name: str, run: dict[str, Any], merged: dict[str, str] | None = None) -> str:
    """The card of a run, or of the model merged from it, in Markdown.

    `run` is run.json, perhaps without its verdict, or {} for an adapter without one. `merged` has
    the base model and the dtype of the saved weights.
    """
    config = run.get("config", {})
    base = (merged or {}).get("base") or config["model_path"]
    kind = "merged" if merged else "adapter" if config["lora"] is not False else "full"
    head = {"library_name": "peft" if kind == "adapter" else "transformers"}
    head |= {"tags": ["dpo", "trl", "preference"]}
    if is_hub_name(base) and not is_local(base):
        head["base_model"] = base
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), trim_blocks=True)
    environment.filters["code"] = code_span
    found = run.get("figures", {})
    return environment.get_template("card.md.jinja").render(
        head=yaml.safe_dump(head, sort_keys=False),
        name=name,
        base=base,
        kind=kind,
        run=run,
        dtype=(merged or {}).get("dtype"),
        figures={text: found[key] for key, text in FIGURES.items() if found.get(key) is not None},
        config=yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
    )


def code_span(text: Any) -> str:
    """The text as code in Markdown, whatever backticks it has."""
    longest = max(map(len, re.findall("`+", str(text))), default=0)
    fence, blank = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{blank}{text}{blank}{fence}"

"""Data sets on the Hugging Face Hub: `hf://datasets/OWNER/NAME[@REVISION][/PATH]`.

Their files are fetched into the cache of huggingface_hub, which also serves them offline.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from textwrap import shorten

from data_tools.record import ConvertError

SCHEME = "hf://"
_PATH = re.compile(
    r"(hf://datasets/([\w.-]+/[\w.-]+)(?:@(refs/(?:convert|pr)/[^/]+|[^/]+))?)(?:/(.*))?"
)


def fetch(path: str, endings: Sequence[str]) -> tuple[str, Callable[[str], bool]]:
    """Fetch the files that a path names, or the data files of the default config.

    Returns where the path is on disk, and whether a file there is one of them, by its name: those
    of earlier calls are there too. Raises ConvertError.
    """
    from huggingface_hub import DatasetCard, snapshot_download
    from huggingface_hub.utils import filter_repo_objects

    found = _PATH.fullmatch(path)
    if not found:
        raise ConvertError(f"{path}: write it as hf://datasets/OWNER/NAME[@REVISION][/PATH]")
    root, name, revision, inside = found.groups()
    get = partial(snapshot_download, name, repo_type="dataset", revision=revision)
    wanted = [inside] if inside else []
    try:
        if not inside:
            card = os.path.join(get(allow_patterns=["README.md"]), "README.md")
            configs = DatasetCard.load(card).data.get("configs") if os.path.exists(card) else None
            wanted = _data_files(root, configs or []) or [f"*{ending}" for ending in endings]
        wanted += [os.path.join(pattern, "*") for pattern in wanted]  # in folders and archives
        place = os.path.join(get(allow_patterns=wanted), inside or "")
    except ConvertError:
        raise
    except Exception as error:  # of the network, the server and the card, of many kinds
        why = shorten(str(error), 300) or type(error).__name__
        fix = "check the name, the network and your access token"
        raise ConvertError(f"{path}: cannot be fetched from the Hub ({why}); {fix}") from None
    is_wanted = partial(filter_repo_objects, allow_patterns=wanted)
    return place, lambda file: any(is_wanted([file[len(root) + 1 :]]))


def _data_files(root: str, configs: list[dict]) -> list[str]:
    """The patterns of the data files of the default config; none where the card names none.

    Raises ConvertError where none of several configs is the default.
    """
    patterns: dict[str, list[str]] = {}
    for config in configs:
        given = config.get("data_files") or os.path.join(config.get("data_dir", ""), "*")
        name = "default" if config.get("default") else config["config_name"]
        patterns[name] = [pattern.removeprefix("./") for pattern in _texts(given)]
    if len(patterns) > 1 and "default" not in patterns:
        example = next(iter(patterns.values()))[0]
        fix = f"name the files of one, such as {root}/{os.path.dirname(example) or example}"
        raise ConvertError(f"{root}: has the configs {', '.join(patterns)}; {fix}")
    return patterns.get("default") or next(iter(patterns.values()), [])


def _texts(value: str | list | dict) -> list[str]:
    """The patterns in the `data_files` of a card: a text, a list, or lists by split."""
    if isinstance(value, dict):
        value = value["path"]
    return [value] if isinstance(value, str) else [text for part in value for text in _texts(part)]

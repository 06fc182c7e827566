"""Load the tokenizer with what training needs: a pad token, an end of text, a chat template."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from dpo_wrap.config import Settings
from dpo_wrap.errors import ModelError, one_line
from dpo_wrap.hub import located

# ChatML without anything after the end of the last turn, so that an answer ends in a stop token.
CHATML = (
    "{{% for message in messages %}}"
    "{{{{ ({start} if loop.first else '\\n') + '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + {end} }}}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '\\n<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
CHATML_END = "<|im_end|>"
PROBE = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]
"""A conversation that shows what a template renders."""


def silence_length_warning(tokenizer: PreTrainedTokenizerBase) -> None:
    """Stop its warning of the first text beyond the context; data.length_stats counts them all."""
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True


def load_tokenizer(
    settings: Settings, notes: list[str] | None = None, config: PretrainedConfig | None = None
) -> PreTrainedTokenizerBase:
    """The tokenizer of adapter_path if it has one, else of the base model. Raises ModelError.

    chat_template replaces its template, with a note. So does the end of text a pad token that has
    no embedding in a model of this `config`.
    """
    source = located(settings.model_path)
    if settings.adapter_path is not None:
        adapter = located(settings.adapter_path)
        if Path(adapter, "tokenizer_config.json").is_file():
            # It has the template that the adapter was trained with.
            source = adapter
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source,
            trust_remote_code=settings.option("trust_remote_code"),
            revision=(settings.option("model_init_kwargs") or {}).get("revision"),
        )
    except Exception as error:  # tokenizers raises a plain Exception, and a model's code anything
        raise ModelError(
            f"{source}: its tokenizer cannot be loaded: {_why(source, error)}"
        ) from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers makes an empty tokenizer if the files are missing.
        raise ModelError(
            f"{source}: its tokenizer is empty; put the tokenizer's files next to the weights"
        )
    if tokenizer.eos_token is None:
        raise ModelError(
            f"{source}: the tokenizer has no end-of-text token, so no answer could end; set "
            "eos_token in its tokenizer_config.json"
        )
    size = getattr(config and config.get_text_config(), "vocab_size", None)
    pad = tokenizer.pad_token
    if pad is None or size is not None and tokenizer.pad_token_id >= size:
        tokenizer.pad_token = tokenizer.eos_token
        if pad is not None and notes is not None:
            notes.append(
                f"the pad token {pad} has no embedding, since the model has {size}; padding, which "
                f"is masked, uses {tokenizer.eos_token} instead"
            )
    silence_length_warning(tokenizer)
    if settings.chat_template is not None:
        previous, tokenizer.chat_template = tokenizer.chat_template, _template(settings, tokenizer)
        is_own = isinstance(previous, dict) and settings.chat_template in previous
        if notes is not None and previous not in (None, tokenizer.chat_template) and not is_own:
            notes.append(
                f"{settings.where('chat_template')}: replaces the template in {source}, so prompts "
                "differ from those that the model was trained on"
            )
        _check_template(settings, tokenizer)
    return tokenizer


def choose_template(
    settings: Settings, tokenizer: PreTrainedTokenizerBase, tools: bool, notes: list[str]
) -> None:
    """Leave a tokenizer with several named chat templates the one that transformers would use.

    Raises ModelError if no name decides it.
    """
    templates = tokenizer.chat_template
    if not isinstance(templates, dict):
        return
    names = ", ".join(sorted(templates))
    name = "tool_use" if tools and "tool_use" in templates else "default"
    if name not in templates:
        raise ModelError(
            f"{settings.where('model_path')}: the tokenizer has several chat templates and no "
            f"default; set chat_template to one of {names}"
        )
    tokenizer.chat_template = templates[name]
    notes.append(f"chat_template: {name}, of the tokenizer's own {names}")


def adds_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its begin-of-text token before plain text."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids that end an answer: the end of text, and the template's end of turn."""
    return sorted({tokenizer.eos_token_id, end_of_turn(tokenizer)} - {None})


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the template writes after an answer, such as `<|im_end|>`, or None."""
    if tokenizer.chat_template is None:
        return None
    try:
        text = tokenizer.apply_chat_template(PROBE, tokenize=False)
    except Exception:  # a template is code and may raise anything; tokenize reports it
        return None
    after = text.rpartition(PROBE[-1]["content"])[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    special = {n for n, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((token for token in ids if token in special), None)


def _why(source: str, error: Exception) -> str:
    """Why a tokenizer cannot be loaded, and how to fix it."""
    for path in sorted(Path(source).glob("*.*")):
        if path.suffix in (".json", ".jinja", ".model", ".txt") and path.is_file():
            with path.open("rb") as file:
                start = file.read(100)
            if start.startswith(b"version https://git-lfs"):
                return f"{path.name} is a Git LFS pointer; run git lfs pull in that directory"
            if not start.strip():
                return f"{path.name} is empty; download it again"
    text = " ".join(str(error).split())
    return (
        f"{type(error).__name__}: {text}; put the tokenizer's files next to the weights, in a form "
        "that the installed transformers reads"
    )


def _template(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> str:
    templates = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    if settings.chat_template in templates:
        return templates[settings.chat_template]
    if settings.chat_template == "chatml":
        # Generation cannot stop at an end of turn that is not a token of its own.
        known = CHATML_END in tokenizer.get_vocab()
        end = CHATML_END if known else tokenizer.eos_token
        start = tokenizer.bos_token if adds_bos(tokenizer) else ""
        return CHATML.format(start=json.dumps(start), end=json.dumps(end))
    try:
        return Path(settings.chat_template).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        known = ", ".join(["chatml", *sorted(templates)])
        raise ModelError(
            f"{settings.where('chat_template')} {settings.chat_template!r} is neither a readable "
            f"file ({one_line(error)}) nor one of the known templates: {known}"
        ) from None


def _check_template(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ModelError if the template fails, or omits the question or the answer."""
    probe = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]
    place = settings.where("chat_template")
    try:
        text = tokenizer.apply_chat_template(probe, tokenize=False)
    except Exception as error:  # a template is code and may raise anything
        raise ModelError(
            f"{place}: the template fails on a question and its answer: {one_line(error)}"
        ) from None
    if "ask" not in text or "tell" not in text:
        raise ModelError(
            f"{place}: the template omits messages: it renders the question 'ask' and the answer "
            f"'tell' as {text!r}"
        )

"""Load the tokenizer with what training needs: a pad token, an end of text, a chat template."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

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


def load_tokenizer(settings: Settings, notes: list[str] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of adapter_path if it has one, else of the base model. Raises ModelError.

    chat_template replaces its template, with a note.
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
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"{source}: its tokenizer cannot be loaded ({one_line(error)}); put the tokenizer's "
            "files next to the weights"
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
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    silence_length_warning(tokenizer)
    if settings.chat_template is not None:
        previous, tokenizer.chat_template = tokenizer.chat_template, _template(settings, tokenizer)
        if notes is not None and previous not in (None, tokenizer.chat_template):
            notes.append(
                f"{settings.where('chat_template')}: replaces the template in {source}, so prompts "
                "differ from those that the model was trained on"
            )
        _check_template(settings, tokenizer)
    return tokenizer


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


def _template(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> str:
    if settings.chat_template == "chatml":
        # Generation cannot stop at an end of turn that is not a token of its own.
        known = CHATML_END in tokenizer.get_vocab()
        end = CHATML_END if known else tokenizer.eos_token
        start = tokenizer.bos_token if adds_bos(tokenizer) else ""
        return CHATML.format(start=json.dumps(start), end=json.dumps(end))
    try:
        return Path(settings.chat_template).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{settings.where('chat_template')} {settings.chat_template!r} is neither chatml nor a "
            f"readable file ({one_line(error)})"
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

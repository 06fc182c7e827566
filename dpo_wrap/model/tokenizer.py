"""The tokenizer as training sees it: a pad token, an end of text, a chat template where needed."""

import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dpo_wrap.config import Settings
from dpo_wrap.data.splits import Splits
from dpo_wrap.errors import ModelError, one_line
from dpo_wrap.hub import located

# ChatML with nothing after a last turn's end, so that an answer's last token is the one to stop at.
CHATML = (
    "{{% for message in messages %}}"
    "{{{{ ({start} if loop.first else '\\n') + '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + {end} }}}}"
    "{{% endfor %}}"
    "{{% if add_generation_prompt %}}{{{{ '\\n<|im_start|>assistant\\n' }}}}{{% endif %}}"
)
CHATML_END = "<|im_end|>"
TOOL = {
    "type": "function",
    "function": {
        "name": "probe_tool",
        "description": "A probe.",
        "parameters": {"type": "object", "properties": {"x": {"type": "string"}}},
    },
}
CALL = {"type": "function", "function": {"name": "probe_call", "arguments": {"x": "1"}}}
PROBE = [{"role": "user", "content": "ask"}, {"role": "assistant", "content": "tell"}]


def load_tokenizer(settings: Settings, notes: list[str] | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of the adapter to go on from, where it has one, else of the base model.

    With `chat_template` given it carries that template; one that it replaces is a note. Raises
    ModelError.
    """
    source = located(settings.model_path)
    if settings.adapter_path is not None:
        adapter = located(settings.adapter_path)
        if Path(adapter, "tokenizer_config.json").is_file():
            # The template that the adapter was trained with is saved there.
            source = adapter
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source,
            trust_remote_code=settings.option("trust_remote_code"),
            revision=(settings.option("model_init_kwargs") or {}).get("revision"),
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ModelError(
            f"{source}: its tokenizer cannot be loaded ({one_line(error)}); the tokenizer's files "
            "belong beside the weights"
        ) from None
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # Where the files are missing, transformers makes an empty tokenizer and says nothing.
        raise ModelError(
            f"{source}: its tokenizer is empty; the tokenizer's files belong beside the weights"
        )
    if tokenizer.eos_token is None:
        raise ModelError(
            f"{source}: the tokenizer has no end-of-text token, so no answer could end; name an "
            "eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # It warns of the first text beyond its context; tokens.py counts all of them and says so.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if settings.chat_template is not None:
        before, tokenizer.chat_template = tokenizer.chat_template, _template(settings, tokenizer)
        if notes is not None and before not in (None, tokenizer.chat_template):
            notes.append(
                f"{settings.where('chat_template')}: takes the place of the template in {source}, "
                "with other prompts than that model was trained on"
            )
        _check_template(settings, tokenizer)
    return tokenizer


def check_data_fit(settings: Settings, tokenizer: PreTrainedTokenizerBase, splits: Splits) -> None:
    """Raise ModelError where conversations meet no template, or a template no words for them."""
    place = settings.where("chat_template")
    if not splits.conversational:
        if settings.chat_template is not None:
            raise ModelError(f"{place}: no effect, since the data are plain text; remove it")
        return
    if tokenizer.chat_template is None:
        raise ModelError(
            f"{settings.where('model_path')}: the data are conversations, and this tokenizer has "
            "no chat template; set chat_template: chatml, or the path of one, or convert the "
            "data to plain text"
        )
    said = _rendered_tools(tokenizer)
    for there, what, name in (
        (splits.calls, "tool calls", CALL["function"]["name"]),
        (splits.tools, "tools", TOOL["function"]["name"]),
    ):
        if there and said is not None and name not in said:
            raise ModelError(
                f"{place}: the data have {what}, which this chat template has no words for, so "
                "they would be left out in silence; give the path of a template that renders them"
            )


def _rendered_tools(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A tool and a call of it in the template's words; None where it refuses them aloud."""
    calling = [PROBE[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    try:
        return tokenizer.apply_chat_template(calling, tools=[TOOL], tokenize=False)
    except Exception:  # a template is code and may raise anything; rows that it refuses are named
        return None


def stop_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The token ids that end an answer: the end of text, and the template's end of turn."""
    return sorted({tokenizer.eos_token_id, end_of_turn(tokenizer)} - {None})


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template writes after an answer; None where it writes none.

    `<|eot_id|>`, `<|im_end|>`, `<end_of_turn>` and the like are ends of turns and no ends of text.
    """
    if tokenizer.chat_template is None:
        return None
    try:
        text = tokenizer.apply_chat_template(PROBE, tokenize=False)
    except Exception:  # a template is code and may raise anything; who renders data will see it
        return None
    after = text.rpartition(PROBE[-1]["content"])[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    special = {n for n, token in tokenizer.added_tokens_decoder.items() if token.special}
    return next((token for token in ids if token in special), None)


def _template(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> str:
    if settings.chat_template == "chatml":
        known = CHATML_END in tokenizer.get_vocab()
        # A mark that is no token of its own is spelled out in letters, and nothing stops there.
        end = CHATML_END if known else tokenizer.eos_token
        begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
        start = tokenizer.bos_token if begins else ""
        return CHATML.format(start=json.dumps(start), end=json.dumps(end))
    try:
        return Path(settings.chat_template).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{settings.where('chat_template')} {settings.chat_template!r} is neither chatml nor a "
            f"readable file ({one_line(error)})"
        ) from None


def _check_template(settings: Settings, tokenizer: PreTrainedTokenizerBase) -> None:
    place = settings.where("chat_template")
    try:
        text = tokenizer.apply_chat_template(PROBE, tokenize=False)
    except Exception as error:  # a template is code and may raise anything
        raise ModelError(
            f"{place}: the template fails on a question and its answer: {one_line(error)}"
        ) from None
    if "ask" not in text or "tell" not in text:
        raise ModelError(
            f"{place}: the template leaves out what it is given; it renders the question 'ask' and "
            f"its answer 'tell' as {text!r}"
        )

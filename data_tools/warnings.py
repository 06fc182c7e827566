"""What is unusual but kept: a warning, with a note on what it may mean.

Some are found in one pair (`pair_warnings`), some only over the whole dataset (`share_warnings`,
and `near_duplicates`).
"""

import re
from collections.abc import Sequence

from data_tools.keys import Column

WARNINGS = {
    "html": "HTML tags or entities",
    "replacement_character": "U+FFFD, where a character was lost in decoding",
    "zero_width": "zero-width characters, which are invisible",
    "template_tokens": "a chat template's special tokens as text",
    "page_residue": "text that a chat page showed around the answer",
    "judge_residue": "a judge's prompt or verdict",
    "alike_across_splits": "test prompts that equal one in train except for case and punctuation",
    "first_answer_bias": "one position wins far more often than the other",
    "length_bias": "one length, longer or shorter, wins far more often than the other",
}

# Exact texts, by the model family whose chat template has them.
_TOKENS = {
    "GPT-2, ChatML": "<|endoftext|> <|im_start|> <|im_end|> <|im_sep|>",
    "Llama 2, Mistral": "<s> </s> [INST] [/INST] <<SYS>> <</SYS>> [SYSTEM_PROMPT] "
    "[/SYSTEM_PROMPT] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] "
    "[/TOOL_RESULTS]",
    "Llama 3 and 4": "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> "
    "<|eot_id|> <|eom_id|> <|python_tag|> <|header_start|> <|header_end|> <|eot|> <|eom|>",
    "Gemma": "<start_of_turn> <end_of_turn> <bos> <eos> <pad> <unk>",
    "Zephyr, Phi, GLM": "<|system|> <|user|> <|assistant|> <|end|> <|observation|> <|prompter|> "
    "[gMASK]<sop>",
    "Kimi": "<|im_system|> <|im_user|> <|im_assistant|> <|im_middle|>",
    "DeepSeek": "<｜begin▁of▁sentence｜> <｜end▁of▁sentence｜> <｜User｜> <｜Assistant｜> "
    "<｜tool▁calls▁begin｜> <｜tool▁calls▁end｜>",
    "Harmony": "<|start|> <|message|> <|channel|> <|return|> <|call|> <|constrain|>",
    "Command R": "<|START_OF_TURN_TOKEN|> <|END_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> "
    "<|SYSTEM_TOKEN|> <BOS_TOKEN> <EOS_TOKEN>",
    "Granite": "<|start_of_role|> <|end_of_role|>",
    "EXAONE": "[|system|] [|user|] [|assistant|] [|endofturn|]",
}
TEMPLATE_TOKENS = tuple(" ".join(_TOKENS.values()).split())


def _any_of(tokens: tuple[str, ...]) -> str:
    """A pattern of exact texts; shared beginnings are written once, which is faster."""
    tails: dict[str, list[str]] = {}
    for token in tokens:
        tails.setdefault(token[:2], []).append(re.escape(token[2:]))
    return "|".join(f"{re.escape(head)}(?:{'|'.join(rest)})" for head, rest in tails.items())


# A pattern is searched only in texts that contain one of its hints; most texts contain none.
# No pattern can match at more than a few lengths from one position, so none is quadratic.
_PATTERNS = {
    "html": (
        ("<", "&"),
        r"</?(?:p|br|div|span|a|li|ul|ol|b|i|em|strong|table|tr|td)\b[^<>]*>|&[a-z]{2,6};",
    ),
    "replacement_character": (("\ufffd",), "\ufffd"),
    "zero_width": (("\u200b", "\u200c", "\u2060", "\ufeff"), "[\u200b\u200c\u2060\ufeff]"),
    "template_tokens": (("<", "["), _any_of(TEMPLATE_TOKENS)),
    "page_residue": (
        ("NETWORK ERROR DUE", "$MODERATION$ YOUR INPUT", "Regenerate response", "Copy code", "▌"),
        r"NETWORK ERROR DUE TO HIGH TRAFFIC"
        r"|\$MODERATION\$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES"
        r"|^[ \t]*(?:Regenerate response|Copy code)[ \t]*\r?$"
        r"|▌\s*\Z",
    ),
    "judge_residue": (
        ("[[", "[The ", "|The "),
        r"\[\[(?:[ABC]|[AB](?:>>?|=|<<?)[AB]|(?<=Rating: \[\[)[0-9.]{1,4})\]\]"
        r"|(?:\[|<\|)The (?:Start|End) of (?:Assistant|Reference Answer)",
    ),
}
PAIR_WARNINGS = tuple(_PATTERNS)
"""The codes of single pairs; `pair_warnings` gives each as a bit."""

_COMPILED = [(hints, re.compile(pattern, re.MULTILINE)) for hints, pattern in _PATTERNS.values()]


def pair_warnings(columns: Sequence[Column]) -> list[int]:
    """For each pair of these sides a number whose bits are its warnings, as in PAIR_WARNINGS."""
    found = [0] * len(columns[0].sides)
    for column in columns:
        texts = column.texts.texts
        for bit, (hints, pattern) in enumerate(_COMPILED):
            for hint in hints:
                data = column.texts.data if hint.isascii() else column.texts.wide
                # One byte is found, or found missing, much faster than several.
                if hint[0].encode() not in data or hint.encode() not in data:
                    continue
                for at in [at for at, text in enumerate(texts) if hint in text]:
                    if pattern.search(texts[at]):
                        found[column.owner(at)] |= 1 << bit
    return found


def share_warnings(first_wins: int, ordered: int, longer: int, unequal: int) -> dict[str, int]:
    """Warnings for shares outside 0.4 to 0.6, each with the pairs of the larger share.

    `first_wins` of the `ordered` pairs were won by the answer shown first; of the `unequal` pairs,
    whose answers differ in length, `longer` have the longer one chosen.
    """
    found = {}
    for code, part, whole in (
        ("first_answer_bias", first_wins, ordered),
        ("length_bias", longer, unequal),
    ):
        distance = abs(2 * part - whole)  # the second limit is three standard errors
        if distance > max(0.2 * whole, 3 * whole**0.5):
            found[code] = max(part, whole - part)
    return found

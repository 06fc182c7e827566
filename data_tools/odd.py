"""What looks odd but is kept: a warning, with a word on what it may mean.

Some are seen in one pair (`warnings`), some only over the whole dataset (`share_warnings`, and
`alike` by each prompt's `loose_key`).
"""

import re
import unicodedata

import xxhash

from data_tools.record import Pair, Side
from data_tools.side import texts

WARNINGS = {
    "html": "HTML tags or entities",
    "replacement_character": "U+FFFD, where an earlier decoding lost a character",
    "zero_width": "zero-width characters, which no reader sees",
    "template_tokens": "a chat template's special tokens as text",
    "page_residue": "what a chat page showed around the answer",
    "judge_residue": "a judge's prompt or verdict",
    "alike_across_splits": "test prompts that train has too but for case and punctuation",
    "first_answer_bias": "one position wins far more often than the other",
    "length_bias": "one length, longer or shorter, wins far more often than the other",
}

# Exact texts, by the family of models whose chat template has them.
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
    """A pattern of exact texts, the beginnings that they share written once, which is faster."""
    tails: dict[str, list[str]] = {}
    for token in tokens:
        tails.setdefault(token[:2], []).append(re.escape(token[2:]))
    return "|".join(f"{re.escape(head)}(?:{'|'.join(rest)})" for head, rest in tails.items())


# A pattern is tried only where one of its hints stands in the text; in most texts none does.
# No pattern can match at more than a few lengths from one place, so none takes quadratic time.
_PATTERNS = {
    "html": (
        ("<", "&"),
        r"</?(?:p|br|div|span|a|li|ul|ol|b|i|em|strong|table|tr|td)\b[^<>]*>|&[a-z]{2,6};",
    ),
    "replacement_character": (("\ufffd",), "\ufffd"),
    "zero_width": (("\u200b", "\u200c", "\u2060", "\ufeff"), "[\u200b\u200c\u2060\ufeff]"),
    "template_tokens": (("<", "["), _any_of(TEMPLATE_TOKENS)),
    "page_residue": (
        (
            "NETWORK ERROR DUE TO HIGH TRAFFIC",
            "$MODERATION$ YOUR INPUT VIOLATES",
            "Regenerate response",
            "Copy code",
            "▌",
        ),
        r"NETWORK ERROR DUE TO HIGH TRAFFIC"
        r"|\$MODERATION\$ YOUR INPUT VIOLATES OUR CONTENT MODERATION GUIDELINES"
        r"|^[ \t]*(?:Regenerate response|Copy code)[ \t]*\r?$"
        r"|▌\s*\Z",
    ),
    "judge_residue": (
        ("[", "<|The"),
        r"\[\[(?:[ABC]|[AB](?:>>?|=|<<?)[AB]|(?<=Rating: \[\[)[0-9.]{1,4})\]\]"
        r"|(?:\[|<\|)The (?:Start|End) of (?:Assistant|Reference Answer)",
    ),
}
_COMPILED = {
    code: (hints, re.compile(pattern, re.MULTILINE)) for code, (hints, pattern) in _PATTERNS.items()
}
_EVERY_HINT = dict.fromkeys(hint for hints, _ in _PATTERNS.values() for hint in hints)
HINTS = tuple(hint for hint in _EVERY_HINT if not any(o in hint for o in _EVERY_HINT if o != hint))
"""Texts one of which stands in whatever has a warning."""
PAIR_WARNINGS = tuple(_PATTERNS)
"""The codes that one pair alone may have; they fit into 16 bits."""


def warnings(pair: Pair) -> tuple[str, ...]:
    """The codes of what looks odd in a pair that is kept."""
    sides = [*texts(pair.prompt), *texts(pair.chosen), *texts(pair.rejected)]
    joined = "\n".join(sides)
    return tuple(
        code
        for code, (hints, pattern) in _COMPILED.items()
        if any(hint in joined for hint in hints) and any(map(pattern.search, sides))
    )


def loose_key(prompt: Side) -> int | None:
    """A prompt by its letters, digits and the marks on them alone; None where it has none."""
    loose = [_loose(text) for text in texts(prompt)]
    return xxhash.xxh3_64_intdigest("\n".join(loose).encode()) if any(loose) else None


def _loose(text: str) -> str:
    text = unicodedata.normalize("NFC", text.casefold())
    # Marks stay: without them, words of Hindi or Thai that differ would be alike.
    dropped = [c for c in set(text) if unicodedata.category(c)[0] not in "LNM"]
    return text.translate({ord(c): None for c in dropped})


def share_warnings(first_wins: int, ordered: int, longer: int, unequal: int) -> dict[str, int]:
    """Warnings for shares far from one half, each with the pairs on the heavier side.

    `first_wins` of the `ordered` pairs were won by the first answer; of the `unequal` pairs, whose
    answers differ in length, `longer` have the longer one chosen.
    """
    shares = {"first_answer_bias": (first_wins, ordered), "length_bias": (longer, unequal)}
    return {code: max(k, n - k) for code, (k, n) in shares.items() if _far_from_half(k, n)}


def _far_from_half(part: int, whole: int) -> bool:
    """Outside 0.4 to 0.6, and by more than three standard errors, so not by chance."""
    off = abs(2 * part - whole)
    return off > 0.2 * whole and off > 3 * whole**0.5

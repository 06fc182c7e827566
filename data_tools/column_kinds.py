"""Names of columns next to the prompt and the answers that change what the model should see.

For conversion and training alike, so nothing of this package is imported.
"""

import re
from functools import lru_cache

_NAMES = {
    "system": "system system_prompt system_message system_instruction systemInstruction",
    "turns": "history chat_history conversation_history conversation conversations messages",
}
NAMES = {kind: tuple(names.split()) for kind, names in _NAMES.items()}
"""Names of columns by what they hold."""
_KINDS = {name.casefold().replace("_", ""): kind for kind, names in NAMES.items() for name in names}
_CONTEXT = re.compile(
    "(?:.*_)?(?:context|passage|document|article|evidence|knowledge|reason_steps)s?|"
    "input|references?|background|source_text"
)
_MEDIA = re.compile(
    "(?:image|img|picture|photo|video|audio|frames|media|attachment)s?"
    r"(?:_?(?:path|url|file|byte|base64|data)s?)?_?\d*"
)


@lru_cache
def kind_of(column: str) -> str | None:
    """What a column holds by its name: system, turns, media or context; None where it is other."""
    name = column.strip().casefold().replace(" ", "_").replace("-", "_")
    if _MEDIA.fullmatch(name):
        return "media"
    return _KINDS.get(name.replace("_", ""), "context" if _CONTEXT.fullmatch(name) else None)

"""Names of columns next to the prompt and the answers that change what the model should see.

For conversion and training alike, so nothing of this package is imported.
"""

import re

_NAMES = {
    "system": "system system_prompt system_message system_instruction systemInstruction",
    "turns": "history chat_history conversation_history conversation conversations messages",
    "media": "image images img imgs picture pictures image_path image_paths image_url image_urls "
    "video videos video_path video_url audio audios audio_path audio_url",
}
NAMES = {kind: tuple(names.split()) for kind, names in _NAMES.items()}
"""Names of columns by what they hold."""
_KINDS = {name.casefold(): kind for kind, names in NAMES.items() for name in names}
_CONTEXT = re.compile(
    "(?:.*_)?(?:context|passage|document|article|reason_steps)s?|input|background|source_text"
)


def kind_of(column: str) -> str | None:
    """What a column holds by its name: system, turns, media or context; None where it is other."""
    name = column.strip().casefold().replace(" ", "_").replace("-", "_")
    return _KINDS.get(name, "context" if _CONTEXT.fullmatch(name) else None)

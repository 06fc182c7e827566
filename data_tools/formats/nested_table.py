"""The table of nested formats: the paths of the prompt, the answers, and a label, ranks or scores.

A new nested format is a new row, and an entry in descriptions.json; `paths` says how a path is
written. What no path describes is code in a file of its family.
"""

from data_tools.formats import dialogues, label, paths
from data_tools.formats.cells import load_list
from data_tools.formats.rows import RANKED, RATED, Answers, Around, Row
from data_tools.formats.sides import attempt, check_side
from data_tools.record import BadRecord, Side

# A record that also has a finished pair is of the format of that pair.
_FINISHED = ("chosen", "rejected", "chosen_response", "rejected_response")
_COMPARING = ("chosen", "rejected", "generations")  # in a field name: the record has two answers


def _judges_one_answer(record: dict) -> bool:
    return not any(word in name for name in record for word in _COMPARING)


def _mean_rating(annotations: object, where: str) -> float:
    """The mean of UltraFeedback's ratings that are not null or N/A. Raises BadRecord."""
    ratings = []
    annotations = {} if annotations is None else paths.check_object(annotations, where)
    for aspect, annotation in annotations.items():
        if annotation is None:
            continue
        rating = paths.check_object(annotation, f"{where}.{aspect}").get("Rating")
        if not label.is_null(rating):
            ratings.append(label.score(rating, f"{where}.{aspect}.Rating"))
    if not ratings:
        raise BadRecord("null_label", f"{where} has no Rating; rate the answer or remove it")
    return sum(ratings) / len(ratings)


def _webgpt_question(value: object, where: str) -> Side:
    """The full text of an object, also of one written as JSON; any other text as it is."""
    parsed = attempt(load_list, value, where)
    if isinstance(parsed, dict):
        value, where = parsed.get("full_text"), f"{where}.full_text"
    return check_side(value, where)


ROWS = (
    Row(
        "implicit-messages",
        "",
        Answers("chosen, rejected"),
        unless=dialogues.PROMPTS,
        only_if=dialogues.holds_messages,
    ),
    Row(
        "hh",
        "",
        Answers("chosen, rejected"),
        dialect=dialogues.HH,
        unless=dialogues.PROMPTS,
        only_if=dialogues.holds_hh,
    ),
    Row(
        "chatml",
        "",
        Answers("chosen, rejected"),
        dialect=dialogues.CHATML,
        unless=dialogues.PROMPTS,
        only_if=dialogues.holds_chatml,
    ),
    Row("sharegpt", "conversations", Answers("chosen, rejected"), dialect=dialogues.SHAREGPT),
    Row("llamafactory-v1", "", Answers("chosen_messages, rejected_messages")),
    Row(
        "axolotl-chat",
        "messages",
        Answers("chosen, rejected"),
        dialect=dialogues.AXOLOTL,
        unless=dialogues.PROMPTS,
        only_if=lambda record: not dialogues.holds_dialogue(record),
    ),
    Row(
        "openai",
        "input.messages",
        Answers("preferred_output, non_preferred_output"),
        Around(extras="input"),
        dialect=dialogues.HISTORY,
    ),
    Row(
        "openpipe",
        "messages[:-1]",
        Answers("messages[-1], rejected_message"),
        dialect=dialogues.HISTORY,
    ),
    Row("arena", "", Answers("conversation_a, conversation_b", label="winner", annotator="judge")),
    Row(
        "lm-human-preferences",
        "query",
        Answers("sample0, sample1", label="best"),
        only_if=lambda record: isinstance(record["sample0"], list),
        traits=frozenset({"refused"}),
    ),
    Row(
        "nectar",
        "prompt",
        Answers("answers[].answer", scores="answers[].rank", score=label.rank),
        dialect=dialogues.NECTAR,
        traits=RANKED,
    ),
    Row(
        "nemo-rl",
        "context",
        Answers("completions[].completion", scores="completions[].rank", score=label.rank),
        traits=RANKED,
    ),
    Row(
        "vertex-gemini",
        "contents",
        Answers("completions[].completion", scores="completions[].score"),
        Around(system=("system_instruction or systemInstruction", "system")),
        dialect=dialogues.GEMINI,
        traits=RANKED,
    ),
    Row(
        "ultrafeedback",
        "instruction",
        Answers("completions[].response", scores="completions[].annotations", score=_mean_rating),
        unless=_FINISHED,
        traits=RATED,
    ),
    Row(
        "webgpt",
        "question",
        Answers("answer_0, answer_1", scores="score_0, score_1"),
        dialect=dialogues.Dialect(prompt=_webgpt_question),
        traits=frozenset({"rated"}),
    ),
    Row(
        "stack-exchange",
        "question",
        Answers("answers[].text", scores="answers[].pm_score"),
        traits=RATED,
    ),
    Row(
        "distilabel",
        "instruction or messages",
        Answers("generations[]", scores="ratings[]"),
        Around(system=("system_prompt", "system")),
        unless=_FINISHED,
        traits=RATED,
    ),
    Row("kto", "prompt", Answers("completion", label="label", score=label.good_or_bad)),
    Row(
        "kto-messages",
        "messages[:-1]",
        Answers("messages[-1]", label="label | kto_tag", score=label.good_or_bad),
        only_if=_judges_one_answer,
    ),
    Row(
        "kto-sharegpt",
        "conversations[:-1]",
        Answers("conversations[-1]", label="label | kto_tag", score=label.good_or_bad),
        dialect=dialogues.SHAREGPT,
        only_if=_judges_one_answer,
    ),
    Row("helpsteer2", "prompt", Answers("response", label="helpfulness"), traits=RATED),
)

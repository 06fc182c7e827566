"""The table of formats: which field or path holds what, and what its label's values mean.

A new flat format is a new row: the fields of the prompt, those of the answers and what names the
better one; an entry in descriptions.json tells people about it. The row of a nested format has
paths (see `paths`); what no path describes is code in a file of its family. A label's numbers are
decoded only where the format that defines the field says what they mean, words everywhere.
"""

import re
from collections.abc import Callable

from data_tools.column_kinds import NAMES
from data_tools.formats import dialogues, label, paths
from data_tools.formats.label import FIRST, SECOND, codes
from data_tools.formats.rows import Row
from data_tools.record import BadRecord, Side

_PROMPTS = " | ".join(dialogues.PROMPTS)
_STEMS = "response_{} response{} answer_{} answer{} output_{} completion_{} option_{} candidate_{} "
_STEMS += "model_{}_response"
_FAMILIES = " | ".join(
    ", ".join(map(stem.format, ends))
    for stem in _STEMS.split()
    for ends in ("abcd", "1234")
    if "_" in stem or ends == "1234"  # response_a, response_1, response1
)
_LABELS = (
    "preference | preferred | preferred_response | winner | chosen | human_chosen | label | "
    "overall_preference | choice | vote | better | best"
)
_ANNOTATORS = (
    "annotator_id | annotator | annotator_index | worker_id | worker | rater_id | rater | judge"
)
_LISTS = "responses[] | all_generated_responses[] | answers[] | completions[]"
_RATINGS = ("scores", "rewards", "all_rm_scores")
_COMPARING = re.compile(  # a field name: the record has two answers
    "chosen|rejected|generations|^(better|responses|(response|answer|output|completion)_?[a-d0-4])$"
)
_BLOCKS = {"subreddit": "SUBREDDIT: r/", "title": "TITLE: ", "post": "POST: "}


def _without(*names: str) -> Callable[[dict], bool]:
    return lambda record: not any(name in record for name in names)


# A record that also has a finished pair is of the format of that pair.
_IS_UNFINISHED = _without("chosen", "rejected", "chosen_response", "rejected_response")


def _is_implicit(record: dict) -> bool:
    """Whether the answers are dialogues, or messages where there are no others."""
    kinds = dialogues.kinds(record)
    return "dialogue" in kinds or "messages" in kinds and "messages" not in record


def _is_halos(record: dict) -> bool:
    """Whether the record names its type, or its answers are lists of messages."""
    answer = record["output_A"]
    are_messages = dialogues.kind(answer) in ("dialogue", "messages")
    return "type" in record or are_messages and not isinstance(answer, dict)


def _judges_one_answer(record: dict) -> bool:
    return not any(_COMPARING.search(name.casefold()) for name in record)


def _mean_rating(annotations: object, where: str) -> float:
    """The mean of UltraFeedback's ratings that are not null or N/A. Raises BadRecord."""
    ratings = []
    for aspect, annotation in paths.check(annotations or {}, dict, where).items():
        if annotation is None:
            continue
        rating = paths.check(annotation, dict, f"{where}.{aspect}").get("Rating")
        if not label.is_null(rating):
            ratings.append(label.score(rating, f"{where}.{aspect}.Rating"))
    if not ratings:
        raise BadRecord("null_label", f"{where} has no Rating; rate the answer or remove it")
    return sum(ratings) / len(ratings)


def _webgpt_question(value: object, where: str) -> Side:
    """The full text of an object, also of one written as JSON; any other text as it is."""
    parsed = paths.parse_json(value, where)
    if isinstance(parsed, dict):
        value, where = parsed.get("full_text"), f"{where}.full_text"
    return dialogues.check_side(value, where)


def _post(info: object, where: str) -> str:
    """The post or article with the labels that the summariser was shown. Raises BadRecord."""
    info = paths.check(info, dict, where)
    for name in ("subreddit", "title", "post", "article"):
        if info.get(name) is not None:
            paths.check(info[name], str, f"info.{name}")
    given = [name for name in ("post", "article") if (info.get(name) or "").strip()]
    if len(given) != 1:
        detail = "info must have either a post or an article with a text; add what was summarised"
        raise BadRecord("wrong_type" if given else "missing_field", detail)
    if given == ["article"]:
        return f"{info['article']}\n\nTL;DR:"
    blocks = [f"{mark}{info[name]}" for name, mark in _BLOCKS.items() if info.get(name)]
    return "\n\n".join([*blocks, "TL;DR:"])


ROWS = {
    "preference": Row("prompt", "chosen, rejected", traits=("general", "any_case")),
    "orca": Row(
        "question | input | query", "chosen, rejected", only_if=_without("prompt", "instruction")
    ),
    "llamafactory-alpaca": Row(
        "instruction",
        "chosen, rejected",
        traits=("input",),
        only_if=_without("prompt", "question", "query"),
    ),
    "argilla-chosen-response": Row("instruction | prompt", "chosen_response, rejected_response"),
    "stack-exchange-paired": Row("question | prompt", "response_j, response_k"),
    "shp": Row(
        "history", "human_ref_A, human_ref_B", label="labels", decode=codes({1: FIRST, 0: SECOND})
    ),
    "alpaca-eval": Row(
        "instruction",
        "output_1, output_2",
        label="preference",
        decode=label.graded,
        annotator="annotator | annotator_index",
        traits=("input",),
    ),
    "pku-saferlhf": Row(
        "prompt", "response_0, response_1", label="better_response_id", decode=label.position
    ),
    "helpsteer2-preference": Row(
        "prompt", "response_1, response_2", label="preference_strength", decode=label.sign
    ),
    "helpsteer3": Row(
        "context", "response1, response2", label="overall_preference", decode=label.sign
    ),
    "halos": Row(
        "prompt",
        "output_A, output_B",
        label="label",
        decode=lambda number: FIRST if number == 1 else SECOND,  # HALOs' own rule
        only_if=_is_halos,
    ),
    "pandalm": Row(
        "instruction",
        "response1, response2 | response_1, response_2",
        label=re.compile(r"annotator_?\d+"),
        decode=label.ordinal,
        traits=("input",),
    ),
    "labelled-pairs": Row(
        _PROMPTS,
        _FAMILIES,
        label=_LABELS,
        annotator=_ANNOTATORS,
        only_if=lambda record: not {"chosen", "rejected"} <= record.keys(),
        traits=("general", "any_case", "input"),
    ),
    "better-worse": Row(
        _PROMPTS,
        "better, worse | accepted, rejected | pos_resp, neg_resp | "
        "response_chosen, response_rejected | response, rejected_response | text, rejected_text",
        traits=("input",),
        only_if=_without("chosen", "chosen_response"),
    ),
    "implicit-messages": Row("", "chosen, rejected", only_if=_is_implicit),
    "hh": Row("", "chosen, rejected", only_if=lambda record: "hh" in dialogues.kinds(record)),
    "chatml": Row(
        "", "chosen, rejected", only_if=lambda record: "chatml" in dialogues.kinds(record)
    ),
    "llama": Row("", "chosen, rejected", only_if=lambda record: "llama" in dialogues.kinds(record)),
    "sharegpt": Row(
        "conversations | trajectory",
        "chosen, rejected",
        read=dialogues.check_dialogue,
        only_if=_without(*dialogues.PROMPTS),
    ),
    "llamafactory-v1": Row(
        "", "chosen_messages, rejected_messages | chosen_conversations, rejected_conversations"
    ),
    "context-dialogue": Row(
        "context",
        "chosen, rejected | answer_w, answer_l | answer_winning, answer_losing",
        only_if=lambda record: (
            _without(*dialogues.PROMPTS, *NAMES["turns"])(record)
            and dialogues.is_dialogue(record["context"])
        ),
    ),
    "axolotl-chat": Row(
        "messages",
        "chosen, rejected",
        read=dialogues.check_dialogue,
        only_if=lambda record: dialogues.kinds(record) <= {"text", "messages", ""},
    ),
    "openai": Row(
        "input.messages", "preferred_output, non_preferred_output", read=dialogues.check_dialogue
    ),
    "openpipe": Row("messages[:-1]", "messages[-1], rejected_message"),
    "amazon-nova": Row(
        "messages[:-1]",
        "messages[-1].candidates[]",
        scores="messages[-1].candidates[].preferenceLabel",
        decode=label.good_or_bad,
        traits=("ranked",),
    ),
    "tinker": Row(
        "comparison.prompt_conversation",
        "comparison.completion_A, comparison.completion_B",
        label="label",
    ),
    "arena": Row(
        "",
        "conversation_a, conversation_b | messages_a, messages_b",
        label="winner",
        annotator="judge",
        traits=("turn",),
    ),
    "summarize-from-feedback": Row(
        "info",
        "summaries[].text",
        label="choice",
        decode=label.position,
        annotator="worker",
        read=_post,
    ),
    "lm-human-preferences": Row(
        "query",
        "sample0, sample1",
        label="best",
        only_if=lambda record: isinstance(record["sample0"], list),
        traits=("refused",),
    ),
    "nectar": Row(
        "prompt",
        "answers[].answer",
        scores="answers[].rank",
        decode=label.rank,
        read=dialogues.transcript_prompt,
        traits=("ranked",),
    ),
    "nemo-rl": Row(
        "context",
        "completions[].completion",
        scores="completions[].rank",
        decode=label.rank,
        traits=("ranked",),
    ),
    "vertex-gemini": Row(
        "contents",
        "completions[].completion",
        scores="completions[].score",
        read=dialogues.check_dialogue,
        traits=("ranked",),
    ),
    "ultrafeedback": Row(
        "instruction",
        "completions[].response",
        scores="completions[].annotations",
        decode=_mean_rating,
        only_if=_IS_UNFINISHED,
        traits=("ranked", "rated"),
    ),
    "webgpt": Row(
        "question",
        "answer_0, answer_1",
        scores="score_0, score_1",
        read=_webgpt_question,
        traits=("rated",),
    ),
    "stack-exchange": Row(
        "question", "answers[].text", scores="answers[].pm_score", traits=("ranked", "rated")
    ),
    "distilabel": Row(
        "instruction or messages",
        "generations[]",
        scores="ratings[]",
        only_if=_IS_UNFINISHED,
        traits=("ranked", "rated"),
    ),
    "scored-lists": Row(
        _PROMPTS,
        _LISTS,
        scores=" | ".join(f"{name}[]" for name in _RATINGS),
        only_if=_IS_UNFINISHED,
        traits=("general", "input", "ranked", "rated"),
    ),
    "ranked-lists": Row(
        _PROMPTS,
        _LISTS,
        scores="ranks[]",
        decode=label.rank,
        only_if=_without("chosen", "chosen_response", *_RATINGS),
        traits=("general", "input", "ranked"),
    ),
    "rated-singles": Row(
        _PROMPTS,
        "response | completion | answer | output",
        scores="score | rating | reward",
        only_if=_judges_one_answer,
        traits=("general", "input", "ranked", "rated"),
    ),
    "kto": Row("prompt", "completion", scores="label", decode=label.good_or_bad),
    "kto-messages": Row(
        "messages[:-1]",
        "messages[-1]",
        scores="label | kto_tag",
        decode=label.good_or_bad,
        only_if=_judges_one_answer,
    ),
    "kto-sharegpt": Row(
        "conversations[:-1]",
        "conversations[-1]",
        scores="label | kto_tag",
        decode=label.good_or_bad,
        only_if=_judges_one_answer,
    ),
    "helpsteer2": Row("prompt", "response", scores="helpfulness", traits=("ranked", "rated")),
}

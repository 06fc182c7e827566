"""Which answer a label names: by --label, by the format's own numbers, or by a known word."""

import re
from collections.abc import Callable, Mapping

from data_tools.record import BadRecord, ConvertError, clip

FIRST, SECOND, TIE = 0, 1, None  # outcomes; a third or fourth answer is 2 or 3

_TIES = frozenset(
    {"tie", "tied", "draw", "equal", "same", "about_the_same", "both", "neither", "no_preference"}
    | {"bothbad", "both_bad", "both_good", "tie_bothbad", "tie_(bothbad)"}
)
_NULLS = frozenset({"", "none", "null", "nan", "na", "n/a", "skip", "skipped"})
_ORDINALS = (("first", "left"), ("second", "right"), ("third",), ("fourth",))
_NOUNS = ("response", "answer", "output", "model", "option", "assistant")
_UNKNOWN = object()
NO_JUDGEMENT = "there is no judgement; label the record or remove it"

# A format's numbers to outcomes, as its documentation defines them; `_UNKNOWN` for any other.
Numbers = Callable[[float], int | None]


def codes(meanings: Mapping[float, int | None]) -> Numbers:
    """Each number of a fixed list has its outcome."""
    return lambda number: meanings.get(number, _UNKNOWN)


position = codes({0: FIRST, 1: SECOND})
ordinal = codes({1: FIRST, 2: SECOND, 0: TIE})


def sign(number: float) -> int | None:
    """Below zero the first answer is better, above it the second, at zero neither."""
    return FIRST if number < 0 else SECOND if number > 0 else TIE


def graded(number: float) -> int | None:
    """AlpacaEval's scale from 1 to 2: the nearer end won; 1.5 and 0 are ties."""
    if number in (0, 1.5):
        return TIE
    return (FIRST if number < 1.5 else SECOND) if 1 <= number <= 2 else _UNKNOWN


def parse_label(text: str) -> dict[str, int | None]:
    """The outcome of each value in `first=X,second=Y[,tie=Z]` of --label.

    Raises ConvertError (status 2).
    """
    words = [part.partition("=") for part in text.split(",")]
    parts = {name.strip(): value.strip() for name, _, value in words}
    known = {"first", "second"} <= set(parts) <= {"first", "second", "tie"}
    if not known or len(parts) < len(words) or not all(parts.values()):
        raise ConvertError(
            f"--label {text}: write --label first=X,second=Y or first=X,second=Y,tie=Z, where X, Y "
            "and Z are values of the label column"
        )
    if len({value.casefold() for value in parts.values()}) < len(parts):
        raise ConvertError(f"--label {text}: one value cannot mean two outcomes")
    outcomes = {"first": FIRST, "second": SECOND, "tie": TIE}
    return {parts[name]: won for name, won in outcomes.items() if name in parts}


def as_number(value: object) -> float | None:
    """The number that a value or text is; None for anything else, such as a boolean or NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


class BareLabel(BadRecord):
    """The fault of a label that is a number or boolean, whose meaning only --label can define."""

    def __init__(self, value: object):
        detail = f"the label {clip(value)} is a bare number or boolean"
        super().__init__("unknown_label", f"{detail}; define its meaning with --label")
        self.value = value


def is_null(value: object) -> bool:
    """Whether there is no judgement: null, NaN, or a word such as `none` or `skipped`."""
    return _word(value) in _NULLS


def annotator(who: object, otherwise: str = "") -> str:
    """The annotator's name or number as text; `otherwise` where there is none.

    An account (an object) is named by its email, user name or id, several by all their names.
    """
    if isinstance(who, dict):
        who = next((who[key] for key in ("email", "username", "id") if who.get(key)), None)
    if isinstance(who, list):
        return ", ".join(annotator(part) for part in who if part is not None) or otherwise
    number = as_number(who)
    has_point = isinstance(who, float) or "." in str(who)  # 7.0, in a column with a gap
    if number is not None and number.is_integer() and has_point:
        who = int(number)
    return str(who).strip() or otherwise if isinstance(who, str | int | float) else otherwise


def outcome(
    value: object,
    names: tuple[str, ...],
    label: Mapping[str, int | None] | None = None,
    numbers: Numbers | None = None,
) -> int | None:
    """The position in `names` (the answers' fields) of the winner, None for a tie.

    `label` is what --label defines, `numbers` what the format does. Raises BadRecord: `null_label`
    where there is no judgement, `unknown_label` otherwise.
    """
    number, word = as_number(value), _word(value)
    if label is not None:
        found = {_key(name): won for name, won in label.items()}.get(_key(value), _UNKNOWN)
        known = ", ".join(label)
    elif numbers is not None and number is not None:
        found, known = numbers(number), "those of the format (see --list-formats)"
    elif numbers is None and (number is not None or word in ("true", "false")):
        raise BareLabel(value)
    else:
        found = TIE if word in _TIES else _words(names).get(word, _UNKNOWN)
        known = f"{names[0]}, {names[1]}, A, B, first, second, tie"
    if value is None or (found is _UNKNOWN and word in _NULLS):
        raise BadRecord("null_label", NO_JUDGEMENT)
    if found is _UNKNOWN:
        raise BadRecord(
            "unknown_label",
            f"the label {clip(value)} names no answer; known are {known}; define it with --label",
        )
    return found


def _key(value: object) -> float | str:
    """What a label is compared by: `1.0` and `1` are the same number."""
    number = as_number(value)
    return str(value).strip().casefold() if number is None else number


def tied(value: object) -> BadRecord:
    """The fault of a single judgement that is a tie."""
    return BadRecord("tie", f"the label {clip(value)} means that neither answer is better")


def score(value: object, where: str) -> float:
    """A rating as a number, the higher the better. Raises BadRecord."""
    number = as_number(value)
    if number is not None:
        return number
    if is_null(value):
        raise BadRecord("null_label", f"{where} is missing or null; give it a number")
    raise BadRecord("unknown_label", f"{where} is {clip(value)}; it must be a number")


def rank(value: object, where: str) -> float:
    """A rank, of which the lowest is the best, as a score. Raises BadRecord."""
    return -score(value, where)


def good_or_bad(value: object, where: str) -> float:
    """The score 1 of a good answer (true), 0 of a bad one (false). Raises BadRecord."""
    word = _word(value)
    if word in ("true", "false"):
        return float(word == "true")
    if word in _NULLS:
        raise BadRecord("null_label", f"{where} is missing or null; label the record or remove it")
    detail = f"{where} is {clip(value)}; it must be true (a good answer) or false (a bad one)"
    raise BadRecord("unknown_label", detail)


def _words(names: tuple[str, ...]) -> dict[str, int]:
    """Every word that names an answer: its field, letter, ordinal or side.

    Where fields are mapped in another order than their own names suggest, only these names are
    words; where two field names read the same, there are none, since a word could mean either.
    """
    own = {_word(name): position for position, name in enumerate(names)}
    if len(own) < len(names):
        return {}
    words = {}
    for position, name in enumerate(names):
        letter, number = "abcd"[position], str(position + 1)
        words |= {word: position for word in (letter, *_ORDINALS[position])}
        ends = (letter, number) if name[-1:].isdigit() else (letter,)
        words |= {f"{noun}_{end}": position for noun in _NOUNS for end in ends}
    if any(words.get(word, position) != position for word, position in own.items()):
        return own
    return words | own


def _word(value: object) -> str:
    """A value as words are compared: in small letters, with underscores between its parts."""
    return re.sub(r"[\s_-]+", "_", str(value).strip().casefold())

"""Which answer a label names: by --label, by the format's own numbers, or by a known word."""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from data_tools.record import BadRecord, ConvertError, clip

FIRST, SECOND, TIE = 0, 1, None  # outcomes; a third or fourth answer is 2 or 3

_TIES = frozenset(
    {"tie", "tied", "draw", "equal", "same", "about_the_same", "both", "neither", "no_preference"}
    | {"bothbad", "both_bad", "both_good", "tie_bothbad", "tie_(bothbad)"}
)
_NULLS = frozenset({"", "none", "null", "nan", "na", "n/a", "skip", "skipped"})
_ORDINALS = (("first", "left"), ("second", "right"), ("third",), ("fourth",))
_NOUNS = ("response", "answer", "output", "model", "option", "assistant")
_DEGREE = "much|slightly|significantly|clearly|somewhat|far|strongly|marginally|moderately"
_BETTER = re.compile(  # "response_a_is_slightly_better_than_b", of words that name answers
    r"(?P<won>\w+?)_(?:wins?|won|(?:(?:is|was)_)?"
    rf"(?:(?:{_DEGREE})_)?(?:better|best|preferred)(?:_than_(?P<lost>\w+))?)"
)
_COMPARED = re.compile(r"(?P<one>\w+?)_?(?P<sign>>{1,3}|<{1,3}|={1,2})_?(?P<other>\w+)")
_EQUAL = re.compile(r"(?:\w+_and_\w+_are_)?equally_(?:good|bad)|\w+_and_\w+_are_(?:equal|the_same)")
_GOOD = {"true": 1.0, "preferred": 1.0, "false": 0.0, "non_preferred": 0.0}
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

    A value is one of the label, several `1|2`, or a range of numbers `1..3`. Raises ConvertError
    (status 2).
    """
    words = [part.partition("=") for part in text.split(",")]
    parts = {name.strip(): [v.strip() for v in value.split("|")] for name, _, value in words}
    known = {"first", "second"} <= set(parts) <= {"first", "second", "tie"}
    if not known or len(parts) < len(words) or not all(map(all, parts.values())):
        raise ConvertError(
            f"--label {text}: write --label first=X,second=Y or first=X,second=Y,tie=Z, where X, Y "
            "and Z are values of the label column, several as 1|2|3, or a range of numbers as 1..3"
        )
    values = [value for given in parts.values() for value in given]
    spans = [_span(value) for value in values]
    if any(span is None and ".." in value for value, span in zip(values, spans, strict=True)):
        raise ConvertError(f"--label {text}: write a range as its lowest and highest number, 1..3")
    overlap = any(one[1] >= other[0] for one, other in pairwise(sorted(filter(None, spans))))
    if overlap or len({_key(value) for value in values}) < len(values):
        raise ConvertError(f"--label {text}: one value cannot mean two outcomes")
    outcomes = {"first": FIRST, "second": SECOND, "tie": TIE}
    return {value: won for name, won in outcomes.items() for value in parts.get(name, ())}


def _span(text: str) -> tuple[float, float] | None:
    """The lowest and highest number that a value of --label stands for; None for a word."""
    low, dots, high = text.partition("..")
    ends = as_number(low), as_number(high if dots else low)
    return None if None in ends or ends[0] > ends[1] else ends


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
        found = _defined(value, label)
        known = ", ".join(label)
    elif numbers is not None and number is not None:
        found, known = numbers(number), "those of the format (see --list-formats)"
    elif numbers is None and (number is not None or word in ("true", "false")):
        raise BareLabel(value)
    else:
        found = _named(word, _words(names))
        known = f"{names[0]}, {names[1]}, A, B, first, second, tie"
    if value is None or (found is _UNKNOWN and word in _NULLS):
        raise BadRecord("null_label", NO_JUDGEMENT)
    if found is _UNKNOWN:
        raise BadRecord(
            "unknown_label",
            f"the label {clip(value)} names no answer; known are {known}; define it with --label",
        )
    return found


def _defined(value: object, label: Mapping[str, int | None]) -> object:
    """The outcome that --label gives a value."""
    number = as_number(value)
    for name, won in label.items():
        span = _span(name)
        if _key(name) == _key(value) or (
            span and number is not None and span[0] <= number <= span[1]
        ):
            return won
    return _UNKNOWN


def _named(word: str, words: Mapping[str, int]) -> object:
    """The outcome of a word, perhaps in brackets or in a phrase such as `A is better`."""
    inside = word.strip(".[]()").strip("_")
    if {word, inside} & _TIES or _EQUAL.fullmatch(inside) or (word == "[[c]]" and "c" not in words):
        return TIE
    if inside in words:
        return words[inside]
    if found := _BETTER.fullmatch(inside):
        won, lost = words.get(found["won"], _UNKNOWN), words.get(found["lost"], _UNKNOWN)
        return _UNKNOWN if won == lost or (found["lost"] and lost is _UNKNOWN) else won
    found = _COMPARED.fullmatch(inside)
    one, other = (words.get(found[side], _UNKNOWN) if found else None for side in ("one", "other"))
    if one == other or _UNKNOWN in (one, other):
        return _UNKNOWN
    return {">": one, "<": other, "=": TIE}[found["sign"][0]]


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


def order(value: object, answers: Mapping[int, object]) -> list[float]:
    """A score of each answer from an order, the best first.

    An order is `B>A=C`, or a list of positions or texts. Positions count from 1, or from 0 where
    there is a 0. Raises BadRecord.
    """
    if is_null(value) or value == []:
        raise BadRecord("null_label", NO_JUDGEMENT)
    places = value if isinstance(value, list) else re.split("[>,]", str(value))
    tied = [[place] if isinstance(value, list) else place.split("=") for place in places]
    letters = dict(zip("abcd", answers, strict=False))
    texts = {answer: at for at, answer in answers.items() if isinstance(answer, str)}
    words = letters | texts if isinstance(value, list) else texts | letters
    base = 0 if any(as_number(item) == 0 for items in tied for item in items) else 1
    scores: list[tuple[object, float]] = []
    for place, items in enumerate(tied):
        for item in items:
            number = as_number(item)
            at = words.get(str(item), letters.get(_word(item).removeprefix("response_")))
            scores.append((at if number is None else number - base, -place))
    if sorted(at for at, _ in scores if at is not None) != [*answers] or len(scores) > len(answers):
        detail = (
            f"the ranking is {clip(value)}; it must name each of the {len(answers)} answers once"
        )
        raise BadRecord("unknown_label", detail)
    return [score for _, score in sorted(scores)]


_FLAGS = {"true": True, "1": True, "yes": True, "ba": True, "b_a": True}
_FLAGS |= {"false": False, "0": False, "no": False, "ab": False, "a_b": False}


def swapped(value: object) -> bool:
    """Whether a column says that the answers were shown the other way round. Raises BadRecord."""
    number = as_number(value)
    if (found := _FLAGS.get(_word(value if number is None else f"{number:g}"))) is None:
        detail = f"the order of the answers is {clip(value)}; it must be true or false"
        raise BadRecord("unknown_label", detail)
    return found


def good_or_bad(value: object, where: str) -> float:
    """The score 1 of a good answer (true, preferred), 0 of a bad one. Raises BadRecord."""
    word = _word(value)
    if word in _GOOD:
        return _GOOD[word]
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

"""Which answer a label names: by --label, by the format's own numbers, or by a known word."""

import re
from collections.abc import Callable, Mapping
from itertools import permutations

from data_tools.record import BadRecord, ConvertError, clip

FIRST, SECOND, TIE = 0, 1, None  # outcomes; a third or fourth answer is 2 or 3

_TIES = (
    *("tie", "tied", "draw", "equal", "same", "about_the_same", "both", "neither", "no_preference"),
    *("bothbad", "both_bad", "both_good", "tie_bothbad", "tie_(bothbad)", "[[c]]"),
)
_NULLS = frozenset({"", "none", "null", "nan", "na", "n/a", "skip", "skipped"})
_ORDINALS = (("first", "left"), ("second", "right"), ("third",), ("fourth",))
SIDES = tuple(words[0] for words in _ORDINALS)
"""What --label calls the answers."""
_NOUNS = ("response", "answer", "output", "model", "option", "assistant")
_DEGREE = "much|slightly|significantly|clearly|somewhat|far|strongly|marginally|moderately"
_BETTER = re.compile(  # "response_a_is_slightly_better_than_b", of words that name answers
    r"(?P<won>\w+?)_(?:wins?|won|(?:(?:is|was)_)?"
    rf"(?:(?:{_DEGREE})_)?(?:better|best|preferred)(?:_than_(?P<lost>\w+))?)"
)
_COMPARED = re.compile(r"(?P<one>\w+?)_?(?P<sign>>{1,3}|<{1,3}|={1,2})_?(?P<other>\w+)")
_EQUAL = re.compile(r"(?:\w+_and_\w+_are_)?equally_(?:good|bad)|\w+_and_\w+_are_(?:equal|the_same)")
_FLAGS = {"true": True, "false": False}
_GOOD = _FLAGS | {"preferred": True, "non_preferred": False}
_ORDER_WORDS = {  # whether the answers were shown the other way round
    True: "true 1 yes y t ba b_a b,a b_first swapped flipped reversed",
    False: "false 0 no n f ab a_b a,b a_first original normal none null",
}
_SWAPPED = {"": False} | {
    word: turned for turned, words in _ORDER_WORDS.items() for word in words.split()
}
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
    """The outcome of each value in `first=X,second=Y[,third=V,fourth=W][,tie=Z]` of --label.

    A value is one of the label, several `1|2`, or a range of numbers `1..3`. Raises ConvertError
    (status 2).
    """
    words = [part.partition("=") for part in text.split(",")]
    parts = {name.strip(): [v.strip() for v in value.split("|")] for name, _, value in words}
    known = {*SIDES[:2]} <= set(parts) <= {*SIDES, "tie"}
    if not known or len(parts) < len(words) or not all(map(all, parts.values())):
        raise ConvertError(
            f"--label {text}: write --label first=X,second=Y or first=X,second=Y,tie=Z, where X, Y "
            "and Z are values of the label column, several as 1|2|3, or a range of numbers as "
            "1..3; third= and fourth= are further answers"
        )
    values = [value for given in parts.values() for value in given]
    if any(".." in value and not _means(value, _lowest(value)) for value in values):
        raise ConvertError(f"--label {text}: write a range as its lowest and highest number, 1..3")
    if any(_means(one, _lowest(other)) for one, other in permutations(values, 2)):
        raise ConvertError(f"--label {text}: one value cannot mean two outcomes")
    outcomes = dict(zip(SIDES, range(4), strict=True)) | {"tie": TIE}
    return {value: won for name, won in outcomes.items() for value in parts.get(name, ())}


def _means(given: str, value: object) -> bool:
    """Whether a value of --label is this value of the label, as number or text, or its range."""
    number = as_number(value)
    if number is None:
        return given.casefold() == str(value).strip().casefold()
    low, dots, high = given.partition("..")
    ends = as_number(low), as_number(high if dots else low)
    return None not in ends and ends[0] <= number <= ends[1]


def _lowest(given: str) -> str:
    """The first number of a range of --label; another value as it is."""
    return given.partition("..")[0]


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
    """The fault of a label that is a number or boolean, whose meaning only --label can define.

    `answers` is how many answers it may name.
    """

    def __init__(self, value: object):
        detail = f"the label {clip(value)} is a bare number or boolean"
        super().__init__("unknown_label", f"{detail}; define its meaning with --label")
        self.value, self.answers = value, 2


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
    number, word, more = as_number(value), _word(value), ""
    if label is not None:
        more = " (third= and fourth= are further answers)" if len(names) > 2 else ""
        found = next((won for given, won in label.items() if _means(given, value)), _UNKNOWN)
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
            f"the label {clip(value)} names no answer; known are {known}; "
            f"define it with --label{more}",
        )
    return found


def _named(word: str, words: Mapping[str, int | None]) -> object:
    """The outcome of a word, perhaps in brackets or in a phrase such as `A is better`."""
    inside = _inside(word)
    for form in (word, inside):
        if form in words:
            return words[form]
    if _EQUAL.fullmatch(inside):
        return TIE
    won, lost, are_equal = _compared(inside)
    won = words.get(won, _UNKNOWN)
    if lost and words.get(lost, _UNKNOWN) in (won, _UNKNOWN):
        return _UNKNOWN
    return TIE if are_equal and won is not _UNKNOWN else won


def _compared(phrase: str) -> tuple[str | None, str | None, bool]:
    """The words for the better and the other answer in a phrase, and whether they are equal."""
    if found := _BETTER.fullmatch(phrase):
        return found["won"], found["lost"], False
    if not (found := _COMPARED.fullmatch(phrase)):
        return None, None, False
    sides = found["one"], found["other"]
    won, lost = sides[::-1] if found["sign"][0] == "<" else sides
    return won, lost, found["sign"][0] == "="


def loser(value: object, names: tuple[str, ...]) -> int | None:
    """The position of the answer that a label such as `A>B` names as the worse one, if any."""
    return _words(names).get(_compared(_inside(_word(value)))[1])


def _inside(word: str) -> str:
    return word.strip(".[]()").strip("_")


def tied(value: object) -> BadRecord:
    """The fault of a single judgement that is a tie."""
    detail = f"the label {clip(value)} means that neither answer is better"
    return BadRecord("tie", f"{detail}; remove the record, or label the better one")


def score(value: object, where: str) -> float:
    """A rating as a number, the higher the better. Raises BadRecord."""
    if (number := as_number(value)) is None:
        raise _unusable(value, where, "a number")
    return number


def rank(value: object, where: str) -> float:
    """A rank, of which the lowest is the best, as a score. Raises BadRecord."""
    return -score(value, where)


def good_or_bad(value: object, where: str) -> float:
    """The score 1 of a good answer (true, preferred), 0 of a bad one. Raises BadRecord."""
    if (word := _word(value)) not in _GOOD:
        raise _unusable(value, where, "true (a good answer) or false (a bad one)")
    return float(_GOOD[word])


def swapped(value: object, where: str) -> bool:
    """Whether a column says that the answers were shown the other way round. Raises BadRecord."""
    number = as_number(value)
    if (word := _word(value if number is None else f"{number:g}")) not in _SWAPPED:
        raise _unusable(value, where, "true (the answers were shown the other way round) or false")
    return _SWAPPED[word]


def _unusable(value: object, where: str, wanted: str) -> BadRecord:
    if is_null(value):
        return BadRecord("null_label", f"{where} is missing or null; it must be {wanted}")
    return BadRecord("unknown_label", f"{where} is {clip(value)}; it must be {wanted}")


def order(value: object, answers: Mapping[int, object], names: tuple[str, ...]) -> list[float]:
    """A score of each answer from an order, the best first.

    An order is `B>A=C`, of words for the `names` of the answers' fields, or a list of such words,
    of texts or of positions. These count from 1, or from 0 where there is a 0. Raises BadRecord.
    """
    if is_null(value) or value == []:
        raise BadRecord("null_label", NO_JUDGEMENT)
    if isinstance(value, list):
        places = [[item] for item in value]
    else:
        places = [place.split("=") for place in re.split("[>,]", str(value))]
    texts = {answer: at for at, answer in answers.items() if isinstance(answer, str)}
    words, base = _words(names), 1
    if any(as_number(item) == 0 for items in places for item in items):
        base = 0
    scores: dict[object, int] = {}
    for place, items in enumerate(places):
        for item in items:
            number = as_number(item)
            at = words.get(_word(item)) if number is None else number - base
            scores[texts.get(str(item), at)] = -place
    if scores.keys() != answers.keys() or sum(map(len, places)) > len(answers):
        detail = f"it must name each of the {len(answers)} answers once"
        raise BadRecord("unknown_label", f"the ranking is {clip(value)}; {detail}")
    return [scores[at] for at in answers]


def _words(names: tuple[str, ...]) -> dict[str, int | None]:
    """Every word for a tie, and every one that names an answer: its field, letter, ordinal or side.

    Where the ends of the names suggest another order, as in `out_b` before `out_a`, only these
    names are words; where two names read the same, there are none, since a word could mean either.
    Numbers are words where the names do not count from 0.
    """
    ties = dict.fromkeys(_TIES, TIE)
    own = {_word(name): position for position, name in enumerate(names)}
    if len(own) < len(names):
        return ties
    words, from_zero = {}, any(re.search(r"(?<!\d)0$", word) for word in own)
    for position, name in enumerate(own):
        letter, number = "abcd"[position], str(position + 1)
        words |= {word: position for word in (letter, f"[[{letter}]]", *_ORDINALS[position])}
        end = re.search(r"(?:(?:^|_)[abcd]|\d+|)$", name)[0].strip("_")
        if end not in ("", letter, str(position) if from_zero else number):
            return ties | own
        ends = (letter, number) if end == number and not from_zero else (letter,)
        words |= {f"{noun}_{end}": position for noun in _NOUNS for end in ends}
    if any(words.get(word, position) != position for word, position in own.items()):
        return ties | own
    return ties | words | own


def _word(value: object) -> str:
    """A value as words are compared: in small letters, with underscores between its parts."""
    return re.sub(r"[\s_-]+", "_", str(value).strip().casefold())

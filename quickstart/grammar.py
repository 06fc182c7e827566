"""The quickstart's world: short reviews whose true reward and well-formedness are computable.

A review is a prompt that names a thing ('On Monday the soup at the harbour inn was') and an
answer that judges it (' really tasty and good; sadly the service was poor.'). One structure of
nested choices is read two ways: `sample` walks it with dice, `ends` walks it along a text; so what
is accepted is exactly what can be generated. Three rules make it more than a bag of words: some
words fit only one kind of thing (soups are bland, films are not), pronouns agree in number ('order
them again'), and what is announced must follow: 'and' joins two words of one sign, 'luckily'
brings praise, 'sadly' blame. A model pushed too hard towards praise writes 'sadly the service was
superb', and is caught.

The task is that of Rafailov et al. 2023, section 6.1 (controlled sentiment generation), in small.
"""

import re
from dataclasses import dataclass
from random import Random

# Valence of every judging word, in [-1, 1]; no word has two valences.
GENERAL = {
    1.0: ("wonderful", "superb", "excellent", "perfect"),
    0.5: ("pleasant", "good", "charming"),
    0.0: ("ordinary", "average", "typical", "standard"),
    -0.5: ("poor", "mediocre", "tiresome"),
    -1.0: ("awful", "terrible", "dreadful", "hopeless"),
}
REPEAT = {
    1.0: ("gladly", "eagerly"),
    0.5: ("willingly",),
    0.0: ("perhaps", "possibly"),
    -0.5: ("hardly", "reluctantly"),
    -1.0: ("never",),
}
FEELINGS = {
    1.0: ("delighted", "thrilled"),
    0.5: ("pleased", "amused"),
    0.0: ("unsurprised", "calm"),
    -0.5: ("bored", "disappointed"),
    -1.0: ("appalled", "furious"),
}


@dataclass(frozen=True)
class Domain:
    """A kind of thing that is reviewed; `singular` and `plural` are its nouns."""

    singular: tuple[str, ...]
    plural: tuple[str, ...]
    places: tuple[str, ...]
    words: dict[float, tuple[str, ...]]
    aspects: tuple[str, ...]
    verb: str


DOMAINS = (
    Domain(
        singular=("soup", "fish pie", "lamb curry", "apple tart", "cheese board", "vegetable stew"),
        plural=("dumplings", "pancakes", "oysters", "noodles"),
        places=(
            "at the harbour inn",
            "at Café Lumière",
            'at "The Copper Pot"',
            "at the night market",
            "on the island ferry",
            "by the old mill",
            "at the corner bistro",
            "in the museum café",
        ),
        words={
            1.0: ("delicious", "heavenly"),
            0.5: ("tasty", "fresh"),
            0.0: ("mild", "plain"),
            -0.5: ("bland", "greasy"),
            -1.0: ("inedible", "disgusting"),
        },
        aspects=("the service was", "the sauce was", "the portions were", "the waiters were"),
        verb="order",
    ),
    Domain(
        singular=("room", "lobby", "balcony", "garden suite", "breakfast hall", "guest house"),
        plural=("rooms", "beds", "bathrooms", "cabins"),
        places=(
            "at the Hôtel Beauséjour",
            'at "The Painted Gate"',
            "near the station",
            "above the valley",
            "at the lake resort",
            "behind the old town hall",
            "at the Mirador",
            "beside the canal",
        ),
        words={
            1.0: ("spotless", "luxurious"),
            0.5: ("cosy", "airy"),
            0.0: ("modern", "rustic"),
            -0.5: ("noisy", "cramped"),
            -1.0: ("filthy", "squalid"),
        },
        aspects=("the view was", "the welcome was", "the porters were", "the towels were"),
        verb="book",
    ),
    Domain(
        singular=("film", "documentary", "thriller", "comedy", "cartoon", "sequel"),
        plural=("short films", "episodes", "trailers", "westerns"),
        places=(
            'called "Salt Road"',
            "about the lighthouse keeper",
            "set in Zürich",
            "about two chess players",
            'called "A Winter, Twice"',
            "from the new studio",
            "about the lost orchestra",
            "shot in black and white",
        ),
        words={
            1.0: ("gripping", "unforgettable"),
            0.5: ("clever", "funny"),
            0.0: ("long", "familiar"),
            -0.5: ("slow", "predictable"),
            -1.0: ("unwatchable", "lifeless"),
        },
        aspects=("the plot was", "the music was", "the actors were", "the dialogues were"),
        verb="watch",
    ),
    Domain(
        singular=("novel", "biography", "memoir", "travel diary", "cookbook", "ghost story"),
        plural=("poems", "essays", "letters", "fables"),
        places=(
            "by Zoë Brandt",
            'called "The Ninth Ferry"',
            "about the salt mines",
            "from my uncle",
            "by the late Tomás Ibarra",
            "about a family of clockmakers",
            "from the village library",
            'called "Ash, Oak, Thorn"',
        ),
        words={
            1.0: ("masterful", "spellbinding"),
            0.5: ("witty", "thoughtful"),
            0.0: ("brief", "detailed"),
            -0.5: ("wordy", "confusing"),
            -1.0: ("unreadable", "worthless"),
        },
        aspects=("the prose was", "the ending was", "the characters were", "the first pages were"),
        verb="read",
    ),
    Domain(
        singular=("concert", "opera", "recital", "jazz evening", "puppet play", "rehearsal"),
        plural=("carols", "songs", "dances", "string quartets"),
        places=(
            "in the old chapel",
            "at the summer festival",
            'under the title "Northern Lights"',
            "in the town square",
            "by the Café Ålund trio",
            "at the academy",
            "for the mayor's birthday",
            "on the open stage",
        ),
        words={
            1.0: ("electrifying", "breathtaking"),
            0.5: ("lively", "graceful"),
            0.0: ("traditional", "formal"),
            -0.5: ("uneven", "clumsy"),
            -1.0: ("unbearable", "shambolic"),
        },
        aspects=("the sound was", "the lighting was", "the singers were", "the seats were"),
        verb="hear",
    ),
)

OPENERS = ("The ", "On Monday the ", "Last summer, the ", "This time the ", "Yesterday the ")
ADVERBS = ("", "", "", "really ", "quite ", "rather ")  # the empty ones make adverbs rarer
COMPANIONS = ("sister", "father", "neighbour", "daughter", "colleague", "old friend")

# Words that announce what the next clause is about to say; they do not judge themselves.
LEADS = {
    1: ("luckily", "happily"),
    0: ("as usual", "naturally"),
    -1: ("sadly", "alas"),
}

# How often a judgement praises (1), is neutral (0) or blames (-1). Praise and blame are equally
# likely, so the mean reward of sampled texts is about zero.
SIGNS = {1: 2, 0: 1, -1: 2}

VALENCE = {
    word: valence
    for table in (GENERAL, REPEAT, FEELINGS, *(domain.words for domain in DOMAINS))
    for valence, words in table.items()
    for word in words
}


@dataclass(frozen=True)
class Choice:
    """Any one of `options`, drawn in proportion to `weights`."""

    options: tuple["Node", ...]
    weights: tuple[int, ...]


# A string is itself, a tuple is its parts in order.
Node = str | tuple["Node", ...] | Choice


def one_of(options) -> Choice:
    """A choice among equally likely options."""
    options = tuple(options)
    return Choice(options, (1,) * len(options))


def by_sign(node_of_sign) -> Choice:
    """A choice among what `node_of_sign` gives for praise, neutral and blame."""
    return Choice(tuple(node_of_sign(sign) for sign in SIGNS), tuple(SIGNS.values()))


def of_sign(table: dict[float, tuple[str, ...]], sign: int) -> tuple[str, ...]:
    """The words of a valence table whose valence has this sign."""
    return tuple(
        word
        for valence, words in table.items()
        for word in words
        if (valence > 0) - (valence < 0) == sign
    )


def answer_node(domain: Domain, plural: bool) -> Node:
    """What may follow a prompt about a thing of this domain and number."""
    pronoun = "them" if plural else "it"
    adverb = one_of(ADVERBS)

    def judgement(first, second):
        """One word on the thing, or two of one sign, from two tables so that none repeats."""
        return by_sign(
            lambda sign: (
                " ",
                adverb,
                one_of(of_sign(first, sign)),
                one_of(("", (" and ", one_of(of_sign(second, sign))))),
            )
        )

    aspect = by_sign(
        lambda sign: (
            "; ",
            one_of(LEADS[sign]),
            " ",
            one_of(domain.aspects),
            " ",
            adverb,
            one_of(of_sign(GENERAL, sign)),
        )
    )
    clauses = (
        one_of((judgement(domain.words, GENERAL), judgement(GENERAL, domain.words))),
        one_of(("", aspect, aspect)),
    )
    closing = one_of(
        (
            "",
            by_sign(
                lambda sign: (
                    " I would ",
                    one_of(of_sign(REPEAT, sign)),
                    f" {domain.verb} {pronoun} again.",
                )
            ),
            by_sign(
                lambda sign: (
                    " My ",
                    one_of(COMPANIONS),
                    " was ",
                    one_of(of_sign(FEELINGS, sign)),
                    ".",
                )
            ),
            by_sign(
                lambda sign: (
                    f" All in all, {'they were' if plural else 'it was'} ",
                    one_of(of_sign(GENERAL, sign)),
                    ".",
                )
            ),
        )
    )
    return (clauses, ".", closing)


def prompt_node(domain: Domain, plural: bool) -> Node:
    """The beginning of a review of a thing of this domain and number, up to its verb."""
    return (
        one_of(OPENERS),
        one_of(domain.plural if plural else domain.singular),
        " ",
        one_of(domain.places),
        one_of((" were", " seemed", " felt") if plural else (" was", " seemed", " felt")),
    )


# One (prompt, answer) pair of nodes for each domain and number; no prompt fits two of them.
KINDS: tuple[tuple[Node, Node], ...] = tuple(
    (prompt_node(domain, plural), answer_node(domain, plural))
    for domain in DOMAINS
    for plural in (False, True)
)


def sample(node: Node, rng: Random) -> str:
    """One text of `node`."""
    if isinstance(node, str):
        return node
    if isinstance(node, Choice):
        return sample(rng.choices(node.options, node.weights)[0], rng)
    return "".join(sample(part, rng) for part in node)


def ends(node: Node, text: str, start: int) -> set[int]:
    """The places in `text` where a reading of `node` that begins at `start` may stop."""
    if isinstance(node, str):
        return {start + len(node)} if text.startswith(node, start) else set()
    if isinstance(node, Choice):
        return set().union(*(ends(option, text, start) for option in node.options))
    places = {start}
    for part in node:
        places = set().union(*(ends(part, text, place) for place in places))
    return places


def sample_prompt(rng: Random) -> str:
    """The beginning of a review, up to its verb and without a space at the end."""
    prompt, _ = rng.choice(KINDS)
    return sample(prompt, rng)


def sample_answer(prompt: str, rng: Random) -> str:
    """A continuation of `prompt`, with a space in front and a full stop at the end.

    Raises ValueError for a prompt that is none of this grammar's.
    """
    for prompt_of_kind, answer in KINDS:
        if len(prompt) in ends(prompt_of_kind, prompt, 0):
            return sample(answer, rng)
    raise ValueError(f"not a prompt of the quickstart's grammar: {prompt!r}")


def sample_text(rng: Random) -> str:
    """A whole review: prompt and answer."""
    prompt = sample_prompt(rng)
    return prompt + sample_answer(prompt, rng)


def true_reward(text: str) -> float:
    """Mean valence of the judging words of `text`, in [-1, 1]; 0 for a text without any.

    Neutral judging words count in the mean, so that a longer text has no higher reward.
    'It was wonderful but mediocre.' is (1 - 0.5) / 2 = 0.25.
    """
    valences = [VALENCE[word] for word in re.findall(r"\w+", text.lower()) if word in VALENCE]
    return sum(valences) / len(valences) if valences else 0.0


def is_well_formed(text: str) -> bool:
    """Whether the grammar can generate `text`, a whole review, to the letter."""
    return any(len(text) in ends(kind, text, 0) for kind in KINDS)

"""The quickstart's grammar: it accepts what it generates and no more, and its reward is by hand."""

import re
from random import Random

import pytest

from quickstart import grammar

SOUP = "On Monday the soup at the harbour inn was"


@pytest.fixture(scope="module")
def texts():
    rng = Random(7)
    return [grammar.sample_text(rng) for _ in range(1000)]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        # words' valences by hand: tasty 0.5, perfect 1, poor -0.5, gladly 1
        (f"{SOUP} tasty.", 0.5),
        (f"{SOUP} really tasty and perfect; sadly the service was poor.", (0.5 + 1 - 0.5) / 3),
        # a neutral word counts in the mean, and 'sadly' announces without judging: plain 0
        (f"{SOUP} plain; sadly the sauce was awful.", -0.5),
        (f"{SOUP} inedible. I would gladly order it again.", 0.0),
        (f"{SOUP} INEDIBLE.", -1.0),  # a word is a word in capitals too
        (f"{SOUP} delicious.\nMy sister was thrilled.", 1.0),
        ("Nothing here judges.", 0.0),
        ("", 0.0),
    ],
)
def test_the_true_reward_is_the_mean_valence_of_the_judging_words(text, reward):
    assert grammar.true_reward(text) == pytest.approx(reward, abs=1e-12)


def test_every_sampled_text_is_well_formed_and_rewarded_within_bounds(texts):
    assert all(grammar.is_well_formed(text) for text in texts)
    assert all(-1 <= grammar.true_reward(text) <= 1 for text in texts)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{SOUP} clever.", "a word of another kind of thing"),
        (f"{SOUP} tasty and poor.", "'and' between words of two signs"),
        (f"{SOUP} bland; sadly the service was superb.", "praise where blame was announced"),
        (f"{SOUP} bland; sadly the plot was poor.", "an aspect of another kind of thing"),
        (f"{SOUP} bland. I would never order them again.", "the plural of a single thing"),
        (f"{SOUP} bland. I would never read it again.", "a verb of another kind of thing"),
        (f"{SOUP} bland", "no full stop"),
        (f"{SOUP} bland. ", "a space at the end"),
        (f"{SOUP}  bland.", "two spaces"),
        (f"{SOUP} bland.\nMy sister was bored.", "a line break for a space"),
        (SOUP, "a prompt alone"),
        ("", "nothing"),
    ],
)
def test_a_text_that_breaks_one_rule_is_refused(text, why):
    assert grammar.is_well_formed(f"{SOUP} bland. I would never order it again.")
    assert not grammar.is_well_formed(text), why


def test_a_text_with_a_word_taken_out_or_two_swapped_is_nearly_always_refused(texts):
    rng, mutants = Random(3), []
    for text in texts:
        words = text.split(" ")
        place = rng.randrange(len(words) - 1)
        mutants.append(words[:place] + words[place + 1 :])
        words[place : place + 2] = reversed(words[place : place + 2])
        mutants.append(words)
    refused = [not grammar.is_well_formed(" ".join(mutant)) for mutant in mutants]
    # An adverb may go unmissed, and two adjectives change places in peace.
    assert sum(refused) / len(refused) > 0.9


def test_prompts_are_many_and_judge_nothing():
    rng = Random(1)
    prompts = {grammar.sample_prompt(rng) for _ in range(5000)}
    assert len(prompts) > 1000
    assert not [prompt for prompt in prompts if grammar.true_reward(prompt)]
    words = {word for prompt in prompts for word in re.findall(r"\w+", prompt.lower())}
    assert not words & grammar.VALENCE.keys()


def test_a_word_has_one_valence_wherever_it_stands():
    tables = (
        grammar.GENERAL,
        grammar.REPEAT,
        grammar.FEELINGS,
        *(domain.words for domain in grammar.DOMAINS),
    )
    for table in tables:
        for valence, words in table.items():
            assert {grammar.VALENCE[word] for word in words} == {valence}


def test_an_answer_fits_its_prompt_and_differs_from_draw_to_draw():
    rng = Random(5)
    answers = {grammar.sample_answer(SOUP, rng) for _ in range(200)}
    assert len(answers) > 150
    for answer in answers:
        assert answer.startswith(" ") and answer.endswith(".")
        assert grammar.is_well_formed(SOUP + answer)


def test_an_answer_to_a_prompt_of_no_kind_is_an_error_that_quotes_it():
    with pytest.raises(ValueError, match="not a prompt of the quickstart's grammar: 'The weather'"):
        grammar.sample_answer("The weather", Random(0))


def test_praise_and_blame_are_in_balance(texts):
    rewards = [grammar.true_reward(text) for text in texts]
    assert abs(sum(rewards) / len(rewards)) < 0.05
    assert 0.3 < sum(reward > 0 for reward in rewards) / len(rewards) < 0.6


def test_the_same_seed_gives_the_same_texts(texts):
    rng = Random(7)
    assert [grammar.sample_text(rng) for _ in range(10)] == texts[:10]

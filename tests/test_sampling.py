"""Prompts that both models answer: distinct, within the room, by the seed alone."""

from dpo_wrap.evaluation.sampling import choose_prompts


def test_prompts_are_distinct_fit_the_room_and_hang_on_the_seed_alone():
    prompts = [[n % 30, 1] for n in range(60)] + [[0] * 9]
    rows = range(61)
    drawn = choose_prompts(prompts, rows, 10, seed=3, room=5)
    assert len({tuple(prompt) for prompt in drawn.values()}) == len(drawn) == 10
    assert all(prompts[row] == prompt for row, prompt in drawn.items())
    assert drawn == choose_prompts(prompts, rows, 10, seed=3, room=5)
    assert drawn != choose_prompts(prompts, rows, 10, seed=4, room=5)
    assert len(choose_prompts(prompts, rows, 1000, seed=0, room=5)) == 30
    assert len(choose_prompts(prompts, rows, 1000, seed=0, room=None)) == 31


def test_two_runs_that_keep_other_rows_are_asked_the_same_prompts():
    prompts = [[n] for n in range(200)]
    whole = choose_prompts(prompts, range(200), 40, seed=1, room=None)
    names = [n for n in range(200) if n % 20]  # every twentieth was dropped
    rest = choose_prompts([prompts[n] for n in names], names, 40, seed=1, room=None)
    assert len(whole.keys() & rest.keys()) >= 36
    assert all(rest[row] == prompts[row] for row in rest)


def test_every_prompt_is_as_likely_to_be_drawn():
    counts = [0] * 10
    for seed in range(2000):
        for place in choose_prompts([[n] for n in range(10)], range(10), 3, seed, None):
            counts[place] += 1
    assert all(500 < count < 700 for count in counts)

"""Prompts that both models answer: distinct, within the room, by the seed alone."""

from dpo_wrap.judging.sampling import choose_prompts


def test_prompts_are_distinct_fit_the_room_and_hang_on_the_seed_alone():
    prompts = [[n % 30, 1] for n in range(60)] + [[0] * 9]
    drawn = choose_prompts(prompts, 10, seed=3, room=5)
    assert len({tuple(prompt) for prompt in drawn.values()}) == len(drawn) == 10
    assert all(prompts[row] == prompt for row, prompt in drawn.items())
    assert drawn == choose_prompts(prompts, 10, seed=3, room=5)
    assert drawn != choose_prompts(prompts, 10, seed=4, room=5)
    assert len(choose_prompts(prompts, 1000, seed=0, room=5)) == 30
    assert len(choose_prompts(prompts, 1000, seed=0, room=None)) == 31

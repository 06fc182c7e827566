"""keys held against the installed libraries."""

import inspect
import re

from dpo_wrap.config import own_fields
from dpo_wrap.config_keys import (
    CHECKPOINT_NAMES,
    ELSEWHERE,
    FILES,
    INNER_NAMES,
    RANGES,
    REMOVED,
    SHORT_NAMES,
    WORDS,
)
from dpo_wrap.library_fields import lora_fields, trl_fields


def test_no_removed_key_is_a_field_now_and_every_mend_names_one():
    now = {*trl_fields(), *own_fields()[0], *SHORT_NAMES, "lora"}
    assert not {*REMOVED, *ELSEWHERE} & now
    now |= lora_fields().keys()
    for key, mend in (REMOVED | ELSEWHERE).items():
        words = set(re.findall(r"[a-z0-9_]+", mend))
        # "remove it" needs no other key; a command or an option is no key.
        assert words & now or "remove it" in mend or "--" in mend or "python -m" in mend, key


def test_every_key_with_a_range_words_or_a_short_name_is_a_field():
    known = {*trl_fields(), *own_fields()[0], *(f"lora.{name}" for name in lora_fields())}
    named = {*RANGES, *WORDS, *FILES, *INNER_NAMES, *(full for full, _ in SHORT_NAMES.values())}
    assert named <= known


def test_the_names_in_a_mapping_for_checkpointing_are_torchs_and_transformers():
    from torch.utils.checkpoint import checkpoint
    from transformers import PreTrainedModel

    ours = inspect.signature(checkpoint).parameters
    wrapped = inspect.signature(PreTrainedModel.activation_checkpointing_enable).parameters
    names = [n for n, p in ours.items() if p.kind is p.KEYWORD_ONLY and n != "context_fn"]
    outer = [n for n in wrapped if n not in ("self", "activation_checkpointing_kwargs")]
    # preserve_rng_state is taken from checkpoint's **kwargs.
    assert set(CHECKPOINT_NAMES) == {*names, *outer, "preserve_rng_state"}

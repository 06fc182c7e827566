"""Attention over the shared row: each sequence attends to its own tokens only.

Attention functions are registered with transformers that call the model's own function for each
sequence: its queries against the keys and values of its prefix and itself, under the mask that the
model makes for these positions. Positions count from the start of a sequence, so sliding windows
and chunks are those of the padded batch.
"""

import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dpo_wrap.prefix_sharing.layout import Layout
from dpo_wrap.prefix_sharing.support import UnsupportedModelError

Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(query, key, value, mask) -> output; (B, heads, length, dim) in, (B, length, heads, dim) out."""

active_layout: ContextVar[Layout | None] = ContextVar("active_layout", default=None)
"""Set during a forward pass over a shared row; the registered functions attend by it."""


def register_attention(kind: str) -> str:
    """Register `kind` of attention with shared prefixes; returns its name in transformers.

    Without an active layout it is `kind` itself.
    """
    name = f"shared_prefix_{kind}"
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _attention_function(kind))
        AttentionMaskInterface.register(name, _mask_function(kind))
    return name


@dataclass(frozen=True)
class LayoutMasks:
    """What the model hands to its attention layers in place of a mask."""

    layout: Layout
    make: Callable[[int, int, int], Tensor | None]
    """(q_length, kv_length, q_offset) -> the model's mask, with its window or chunks; cached, as
    the layers of a model share it."""


def _mask_function(kind: str) -> Callable[..., Any]:
    original = ALL_MASK_ATTENTION_FUNCTIONS[kind]

    def mask(**kwargs: Any) -> LayoutMasks | Tensor | None:
        layout = active_layout.get()
        if layout is None:
            return original(**kwargs)
        if kwargs.get("use_vmap"):
            raise UnsupportedModelError("its attention masks depend on more than positions")

        @cache
        def make(q_length: int, kv_length: int, q_offset: int) -> Tensor | None:
            size = {"batch_size": 1, "q_length": q_length, "kv_length": kv_length}
            offsets = {"q_offset": q_offset, "kv_offset": 0}
            return original(**kwargs | size | offsets | {"attention_mask": None})

        return LayoutMasks(layout, make)

    return mask


def _attention_function(kind: str) -> Callable[..., Any]:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: LayoutMasks | Tensor | None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        # Each modeling file of transformers has an eager function of its own.
        original = ALL_ATTENTION_FUNCTIONS.get(kind) or (
            sys.modules[type(module).__module__].eager_attention_forward
        )
        if not isinstance(attention_mask, LayoutMasks):
            if active_layout.get() is not None:
                raise UnsupportedModelError("it builds its attention masks itself")
            return original(module, query, key, value, attention_mask, **kwargs)

        def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            return original(module, query, key, value, mask, **kwargs)[0]

        # A CPU gains most by skipping padding, a GPU by few large calls.
        function = attend_by_sequence if query.device.type == "cpu" else attend_padded
        return function(attend, query, key, value, attention_mask), None

    return attention


def attend_by_sequence(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, masks: LayoutMasks
) -> Tensor:
    """Attention in a call for each sequence, without padding.

    query, key, value: (1, heads, N, dim). Returns (1, N, heads, dim).
    """
    sequences, outputs = masks.layout.sequences, []
    sizes = [length - prefix for length, prefix in sequences]
    queries, keys, values = (tensor.split(sizes, dim=2) for tensor in (query, key, value))
    for number, (length, prefix) in enumerate(sequences):
        own_key, own_value = keys[number], values[number]
        if prefix:
            # The prefix is the start of the chosen sequence, which comes just before.
            own_key = torch.cat([keys[number - 1][:, :, :prefix], own_key], dim=2)
            own_value = torch.cat([values[number - 1][:, :, :prefix], own_value], dim=2)
        if sizes[number]:
            mask = masks.make(sizes[number], length, prefix)
            outputs.append(attend(queries[number], own_key, own_value, mask))
    return torch.cat(outputs, dim=1)


def attend_padded(
    attend: Attend, query: Tensor, key: Tensor, value: Tensor, masks: LayoutMasks
) -> Tensor:
    """Attention in one call for the padded batch; shapes as for `attend_by_sequence`."""
    layout = masks.layout
    rows, width = layout.gather_index.shape

    def pad(tensor: Tensor) -> Tensor:
        batch = tensor[0].index_select(1, layout.gather_index.flatten())
        return batch.unflatten(1, (rows, width)).transpose(0, 1)

    # One mask for all rows: padding is to the right of all real tokens, so none attends to it.
    output = attend(pad(query), pad(key), pad(value), masks.make(width, width, 0))
    return output.flatten(0, 1).index_select(0, layout.scatter_index)[None]

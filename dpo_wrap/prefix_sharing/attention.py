"""Attention over a row of shared prompts: each side of a pair sees itself alone, as if by itself.

The model's own attention and its own masks are used, side by side of a pair: what is registered
here with transformers only hands each side its queries, keys and values. Positions count from the
start of a side, so that windows and chunks are those that the model would have without sharing.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dpo_wrap.prefix_sharing.layout import Layout

KINDS = ("sdpa", "eager")
"""Implementations of attention that take a mask, and so can be handed a part of a row."""
PREFIX = "shared_prefix_"

_layout: ContextVar[Layout | None] = ContextVar("layout", default=None)


class UnsupportedModelError(Exception):
    """Why a model's own code cannot be given shared prompts."""


@contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    """Within the context the registered masks are those of this layout."""
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def registered(kind: str) -> str:
    """The name under which transformers finds `kind` of attention with shared prompts.

    Without a layout it is `kind` itself.
    """
    name = PREFIX + kind
    if name not in ALL_ATTENTION_FUNCTIONS:
        AttentionInterface.register(name, _attention(kind))
        AttentionMaskInterface.register(name, _mask(kind))
    return name


@dataclass(frozen=True)
class SharedMask:
    """What a model makes its masks from, kept for the sides of each pair."""

    layout: Layout
    make: Callable[..., Tensor | None]
    """The kind's own function with the model's pattern: (q_length, kv_length, q_offset) -> mask."""

    @cached_property
    def sides(self) -> list[tuple[Tensor | None, Tensor | None]]:
        """For each pair the masks of its chosen side and of what is the rejected side's own."""
        return [
            (
                self.make(span.chosen, span.chosen, 0),
                self.make(span.rejected - span.shared, span.rejected, span.shared),
            )
            for span in self.layout.spans
        ]

    @cached_property
    def whole(self) -> Tensor | None:
        """The mask of a row as wide as the batch; padding on the right is seen by nothing real."""
        return self.make(self.layout.width, self.layout.width, 0)


def _mask(kind: str) -> Callable[..., Any]:
    plain = ALL_MASK_ATTENTION_FUNCTIONS[kind]

    def mask(**given: Any) -> SharedMask | Tensor | None:
        layout = _layout.get()
        if layout is None:
            return plain(**given)
        if given.get("use_vmap"):
            raise UnsupportedModelError("its masks hang on more than positions")

        def make(q_length: int, kv_length: int, q_offset: int) -> Tensor | None:
            size = {"batch_size": 1, "q_length": q_length, "kv_length": kv_length}
            offsets = {"q_offset": q_offset, "kv_offset": 0}
            return plain(**given | size | offsets | {"attention_mask": None})

        return SharedMask(layout, make)

    return mask


def _attention(kind: str) -> Callable[..., Any]:
    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: SharedMask | Tensor | None,
        **given: Any,
    ) -> tuple[Tensor, Tensor | None]:
        attend = ALL_ATTENTION_FUNCTIONS.get(kind) or _eager(module)
        if not isinstance(attention_mask, SharedMask):
            if _layout.get() is not None:
                raise UnsupportedModelError("it makes its masks by itself")
            return attend(module, query, key, value, attention_mask, **given)

        def plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
            return attend(module, query, key, value, mask, **given)[0]

        lane = by_side if query.device.type == "cpu" else by_row
        return lane(plain, query, key, value, attention_mask), None

    return attention


def _eager(module: nn.Module) -> Callable[..., Any]:
    """The function that a model's own file has for what is none of transformers'."""
    found = getattr(sys.modules[type(module).__module__], "eager_attention_forward", None)
    if found is None:
        raise UnsupportedModelError("its eager attention is not where transformers has it")
    return found


Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(query, key, value, mask) -> output; (B, heads, length, dim) in, (B, length, heads, dim) out."""


def by_side(attend: Attend, query: Tensor, key: Tensor, value: Tensor, mask: SharedMask) -> Tensor:
    """Attention of each side by itself: no work for padding, and none twice.

    query, key, value: (1, heads, N, dim). Returns (1, N, heads, dim).
    """
    spans = mask.layout.spans
    sizes = [size for span in spans for size in (span.chosen, span.rejected - span.shared)]
    parts = zip(*(tensor.split(sizes, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = []
    for span, (whole, own) in zip(spans, mask.sides, strict=True):
        chosen, rejected = next(parts), next(parts)
        if span.chosen:
            outputs.append(attend(*chosen, whole))
        if span.rejected > span.shared:
            seen = (
                torch.cat([first[:, :, : span.shared], second], dim=2)
                for first, second in zip(chosen[1:], rejected[1:], strict=True)
            )
            outputs.append(attend(rejected[0], *seen, own))
    return torch.cat(outputs, dim=1)


def by_row(attend: Attend, query: Tensor, key: Tensor, value: Tensor, mask: SharedMask) -> Tensor:
    """Attention of the padded batch at once, in few calls and, without a window, without a mask.

    Shapes as for `by_side`. The layers around it still see every token once.
    """
    layout = mask.layout
    places = layout.places.flatten()

    def padded(tensor: Tensor) -> Tensor:
        rows = tensor[0].index_select(1, places).unflatten(1, layout.places.shape)
        return rows.transpose(0, 1)

    output = attend(padded(query), padded(key), padded(value), mask.whole)
    return output.flatten(0, 1).index_select(0, layout.origins)[None]

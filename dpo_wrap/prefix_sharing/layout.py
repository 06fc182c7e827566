"""A padded batch of pairs as one row in which every distinct token stands once.

    layout = layout_of(input_ids, attention_mask, labels)

The row holds pair after pair: the chosen row whole, then what of the rejected one is its own. What
both begin with, the prompt and as much of the answers as is alike, is in it once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100
"""The label of a position that is not scored, as transformers has it."""


@dataclass(frozen=True)
class Span:
    """One pair of the row, in tokens."""

    shared: int
    """What both sides begin with."""
    chosen: int
    """The whole chosen side, `shared` included."""
    rejected: int
    """The whole rejected side, `shared` included."""


@dataclass(frozen=True)
class Layout:
    """Where each token of a padded batch of R rows and width W stands in a row of N tokens."""

    input_ids: Tensor
    """(1, N)"""
    position_ids: Tensor
    """(1, N): the place that each token has in its own side, from 0."""
    places: Tensor
    """(R, W): the place in the row of every token of the batch; padding has that of a neighbour."""
    origins: Tensor
    """(N,): the place in the flattened batch of every token of the row, in its chosen side where
    both have it."""
    spans: tuple[Span, ...]
    scored: Tensor
    """(R, W - 1), bool: where the next token has a label."""
    scored_places: Tensor
    """(M,): where in the row the hidden states stand that are scored, in the order of `scored`; a
    shared one twice."""
    labels: Tensor
    """(1, M): the next token of each."""

    @property
    def rows(self) -> int:
        return self.places.shape[0]

    @property
    def width(self) -> int:
        return self.places.shape[1]


def layout_of(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Layout | None:
    """The layout of TRL's batch: chosen rows, then the rejected ones in the same order, all (R, W).

    None for a batch that is not padded on the right, or not of such pairs.
    """
    rows, width = input_ids.shape
    lengths, positions = attention_mask.sum(1), torch.arange(width, device=input_ids.device)
    real = positions < lengths[:, None]
    if rows % 2 or not torch.equal(real, attention_mask.bool()):
        return None
    alike = (input_ids[: rows // 2] == input_ids[rows // 2 :]) & real[: rows // 2]
    alike &= real[rows // 2 :]
    shared = alike.cumprod(1).sum(1)
    own = by_pair(real).clone()
    own[:, 1] &= positions >= shared[:, None]
    numbers = (own.flatten().cumsum(0) - 1).clamp(min=0).view(own.shape)
    numbers[:, 1] = torch.where(positions < shared[:, None], numbers[:, 0], numbers[:, 1])
    places = torch.cat(numbers.unbind(1))
    origins = by_pair(torch.arange(rows * width, device=input_ids.device).view(rows, width))[own]
    next_labels = labels[:, 1:]
    scored = next_labels != IGNORED
    measures = torch.cat([shared[None], lengths.view(2, -1)]).tolist()
    return Layout(
        input_ids=input_ids.flatten()[origins][None],
        position_ids=(origins % width)[None],
        places=places,
        origins=origins,
        spans=tuple(Span(*measure) for measure in zip(*measures, strict=True)),
        scored=scored,
        scored_places=places[:, :-1][scored],
        labels=next_labels[scored][None],
    )


def by_pair(batch: Tensor) -> Tensor:
    """(R, W), chosen rows first, as (R / 2, 2, W)."""
    return torch.stack(batch.chunk(2), dim=1)

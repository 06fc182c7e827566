"""The layout of a padded batch of pairs as one row in which each distinct token occurs once.

TRL's batch has R rows of width W, padded on the right: the chosen sequences (prompt and answer) of
all pairs, then the rejected ones. The row of N tokens holds, pair after pair, the whole chosen
sequence and what follows the common prefix in the rejected one. The prefix is the prompt and as
much of the answers as is equal. A pair with a prompt of three tokens:

    chosen    p0 p1 p2 c3 c4      row           p0 p1 p2 c3 c4 r3
    rejected  p0 p1 p2 r3 --      position_ids   0  1  2  3  4  3

    gather_index   0  1  2  3  4  scatter_index  0  1  2  3  4  8
                   0  1  2  5  5
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""The label of a position that is not scored, as in transformers."""


class Sequence(NamedTuple):
    """One sequence of a pair, in tokens."""

    length: int
    prefix: int
    """How many of its first tokens are those of the chosen sequence before it; 0 if chosen."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a padded batch (R, W) with M labels are in a row of N tokens."""

    input_ids: Tensor
    """(1, N)"""
    position_ids: Tensor
    """(1, N): the position of each token in its own sequence, from 0."""
    gather_index: Tensor
    """(R, W): the index in the row of each token of the batch; for padding any valid index."""
    scatter_index: Tensor
    """(N,): the index in the flattened batch of each token of the row."""
    sequences: tuple[Sequence, ...]
    """In the row's order: chosen and rejected of the first pair, of the second, and so on."""
    label_mask: Tensor
    """(R, W - 1), bool: where the next token has a label."""
    label_index: Tensor
    """(M,): the index in the row of the hidden state that predicts each label."""
    labels: Tensor
    """(1, M), in the order of `label_mask`."""


def build_layout(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Layout | None:
    """The layout of TRL's batch, three tensors (R, W), chosen rows first.

    None for a batch that is not padded on the right, or has an odd number of rows.
    """
    rows, width = input_ids.shape
    lengths, positions = attention_mask.sum(1), torch.arange(width, device=input_ids.device)
    real = positions < lengths[:, None]
    if rows % 2 or not torch.equal(real, attention_mask.bool()):
        return None
    chosen, rejected = input_ids.chunk(2)
    chosen_real, rejected_real = real.chunk(2)
    equal = (chosen == rejected) & chosen_real & rejected_real
    prefixes = equal.cumprod(1).sum(1)
    in_prefix = positions < prefixes[:, None]
    # By pair, (R / 2, 2, W): the tokens that the row holds, and their indices in it.
    held = torch.stack([chosen_real, rejected_real & ~in_prefix], dim=1)
    index = (held.flatten().cumsum(0) - 1).clamp(min=0).view(held.shape)
    index[:, 1] = torch.where(in_prefix, index[:, 0], index[:, 1])
    gather_index = torch.cat(index.unbind(1))
    batch_index = torch.arange(rows * width, device=input_ids.device)
    scatter_index = batch_index.view(2, -1, width).transpose(0, 1)[held]
    sequences = []
    for chosen_length, rejected_length, prefix in (
        torch.cat([lengths, prefixes]).view(3, -1).T.tolist()
    ):
        sequences += [Sequence(chosen_length, 0), Sequence(rejected_length, prefix)]
    next_labels = labels[:, 1:]
    label_mask = next_labels != IGNORE_INDEX
    return Layout(
        input_ids=input_ids.flatten()[scatter_index][None],
        position_ids=(scatter_index % width)[None],
        gather_index=gather_index,
        scatter_index=scatter_index,
        sequences=tuple(sequences),
        label_mask=label_mask,
        label_index=gather_index[:, :-1][label_mask],
        labels=next_labels[label_mask][None],
    )

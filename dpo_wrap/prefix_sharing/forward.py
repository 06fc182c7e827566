"""TRL's fused forward over the shared row: TRL's padded batch in, TRL's output out.

`add_fused_lm_head` of TRL gives a model a forward that returns the log-probability of each label.
That forward is called with the row in place of the batch, and its output, one value for each of M
labels, is put back into the batch's shape (R, W - 1).
"""

import functools
import types
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo_wrap.prefix_sharing.attention import active_layout, register_attention
from dpo_wrap.prefix_sharing.head import frozen_cpu_head
from dpo_wrap.prefix_sharing.layout import Layout, build_layout
from dpo_wrap.prefix_sharing.support import UnsupportedModelError, attention_reason

BATCH = ("input_ids", "attention_mask", "labels")
ARGUMENTS = {*BATCH, "fused_lm_head", "use_cache"}
"""What TRL calls the model with. A call with any other argument is not changed."""


@dataclass
class PrefixSharing:
    """State shared by a trainer's models (policy, reference), and the tokens saved."""

    off_reason: str | None = None
    difference: float = 0.0
    """Of a token's log-probability with and without sharing, in nats (`proof.compare`)."""
    batch: Tensor | None = None
    """(3, R, W): a copy of the latest batch."""
    layout: Layout | None = None
    """Its layout, built once for the policy and the reference."""
    tokens: int = 0
    """The tokens of all rows that were run."""
    padded_tokens: int = 0
    """The tokens, padding included, of the batches that these rows replaced."""
    restore: ExitStack = field(default_factory=ExitStack)
    """Its `close` gives the models their own forward and attention back."""

    def layout_of(self, *batch: Tensor) -> Layout | None:
        """The layout of (input_ids, attention_mask, labels), as for `build_layout`."""
        stacked = torch.stack(batch)
        if self.batch is None or not torch.equal(stacked, self.batch):
            self.batch, self.layout = stacked, build_layout(*batch)
        return self.layout

    def last_batch_tokens(self) -> int:
        """The tokens that the latest batch was run as; 0 where prefixes are not shared."""
        return self.layout.input_ids.numel() if self.layout else 0

    def line(self) -> str:
        """One line for the run's log."""
        if self.off_reason is not None:
            return f"prefix sharing: off, because {self.off_reason}; each prompt is computed twice"
        return (
            "prefix sharing: on, each prompt is computed once for both answers; on two pairs this "
            f"changes a token's log-probability by {self.difference:.1g} nats"
        )

    def figures(self) -> dict[str, Any]:
        """For run.json."""
        return {
            "on": self.off_reason is None,
            "reason": self.off_reason,
            "tokens": self.tokens,
            "padded_tokens": self.padded_tokens,
        }


def share_forward(model: PreTrainedModel, sharing: PrefixSharing) -> None:
    """Let the fused forward that TRL has given this model share prefixes.

    Raises UnsupportedModelError for its kind of attention.
    """
    original, kind = model.forward, model.config._attn_implementation
    if reason := attention_reason(kind, model.config):
        raise UnsupportedModelError(reason)

    @functools.wraps(original)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        # Bound to `self`, so that a copy of the model runs its own weights.
        fused = types.MethodType(original.__func__, self)
        given = {name for name, value in kwargs.items() if value is not None}
        layout = None
        if kwargs.get("fused_lm_head") and not args and {*BATCH} <= given <= ARGUMENTS:
            layout = sharing.layout_of(*(kwargs[name] for name in BATCH))
        if layout is None:
            return fused(*args, **kwargs)
        sharing.tokens += layout.input_ids.numel()
        sharing.padded_tokens += layout.gather_index.numel()
        output = _run_row(self, fused, layout)
        for name, value in list(output.items()):
            # All but the losses, which are scalars, have one value for each label.
            if value.dim():
                # Unlike an indexed assignment this has a gradient even where there are no labels.
                zeros = value.new_zeros(layout.label_mask.shape)
                output[name] = zeros.masked_scatter(layout.label_mask, value)
        return output

    model.set_attn_implementation(register_attention(kind))
    sharing.restore.callback(model.set_attn_implementation, kind)
    model.forward = types.MethodType(forward, model)
    sharing.restore.callback(setattr, model, "forward", original)


def _run_row(model: PreTrainedModel, fused: Any, layout: Layout) -> Any:
    """TRL's output for the row; what it has for each label is (1, M)."""

    def select(module: Any, args: Any, output: Any) -> Any:
        """Leave the head the hidden states that predict a label, (1, M, H)."""
        output.last_hidden_state = output.last_hidden_state.index_select(1, layout.label_index)
        return output

    hook = model.base_model.register_forward_hook(select)
    token = active_layout.set(layout)
    try:
        with frozen_cpu_head():
            return fused(
                input_ids=layout.input_ids,
                attention_mask=torch.ones_like(layout.input_ids),
                position_ids=layout.position_ids,
                shift_labels=layout.labels,
                fused_lm_head=True,
                use_cache=False,
            )
    finally:
        active_layout.reset(token)
        hook.remove()

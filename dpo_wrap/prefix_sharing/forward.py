"""TRL's fused forward over shared prompts: its batch of 2 B padded rows in, its figures out.

TRL's loss is not touched: it asks the model for the log-probabilities of a padded batch and gets
them, laid out as ever.
"""

import functools
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from dpo_wrap.prefix_sharing.attention import PREFIX, UnsupportedModelError, laid_out, registered
from dpo_wrap.prefix_sharing.head import answer_head
from dpo_wrap.prefix_sharing.layout import Layout, layout_of

PER_TOKEN = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1", "label_mask")
"""What TRL's output has for each position; the rest of it is None or a scalar."""
BATCH = ("input_ids", "attention_mask", "labels")
READ = {*BATCH, "fused_lm_head", "use_cache"}
"""What TRL asks the model with; a call with anything else goes through as it is."""


class Layouts:
    """The layout of the newest batch, worked out once for the policy and its reference."""

    def __init__(self):
        self.batch: tuple[Tensor, ...] = ()
        self.versions: list[int] = []
        self.newest: Layout | None = None

    def of(self, *batch: Tensor) -> Layout | None:
        """Of input_ids, attention_mask and labels, as for `layout_of`."""
        # Tensors of inference mode have no version, so nothing is known of them.
        tracked = not any(tensor.is_inference() for tensor in batch)
        versions = [tensor._version for tensor in batch] if tracked else []
        known = tracked and len(self.batch) == len(batch) and versions == self.versions
        if not known or any(a is not b for a, b in zip(self.batch, batch, strict=True)):
            self.batch, self.versions, self.newest = batch, versions, layout_of(*batch)
        return self.newest


@dataclass
class Sharing:
    """A model whose fused forward shares prompts, until `undo`."""

    undo: Callable[[], None]
    calls: int = 0
    """Forward passes that shared."""
    tokens: int = 0
    """Tokens that these passes ran over."""
    padded: int = 0
    """Tokens, padding included, that they would have run over without."""


def share(model: PreTrainedModel, layouts: Layouts | None = None) -> Sharing:
    """Let the fused forward that TRL has given this model share prompts.

    Models that are asked about the same batches take the same `layouts`.
    """
    layouts, kind = layouts or Layouts(), model.config._attn_implementation
    if kind.startswith(PREFIX):
        raise UnsupportedModelError("it shares prompts already")
    plain, keep = model.forward, KeepScored()
    fused = getattr(plain, "__func__", None)
    model.set_attn_implementation(registered(kind))

    # Bound like TRL's own forward, so that a copy of the model runs its own weights.
    @functools.wraps(plain)
    def forward(self: PreTrainedModel, *args: Any, **kwargs: Any) -> Any:
        ask = fused.__get__(self) if fused else plain
        given = {name for name, value in kwargs.items() if value is not None}
        layout = None
        if kwargs.get("fused_lm_head") and not args and {*BATCH} <= given <= READ:
            layout = layouts.of(*(kwargs[name] for name in BATCH))
        if layout is None:
            return ask(*args, **kwargs)
        sharing.calls += 1
        sharing.tokens += layout.input_ids.numel()
        sharing.padded += layout.places.numel()
        with laid_out(layout), answer_head(), keep.at(layout.scored_places):
            output = ask(
                input_ids=layout.input_ids,
                attention_mask=torch.ones_like(layout.input_ids),
                position_ids=layout.position_ids,
                shift_labels=layout.labels,
                fused_lm_head=True,
                use_cache=False,
            )
        for name in PER_TOKEN:
            if (value := getattr(output, name)) is not None:
                setattr(output, name, _padded(value, layout))
        return output

    model.forward = types.MethodType(forward, model)
    hook = model.base_model.register_forward_hook(keep)

    def undo() -> None:
        hook.remove()
        model.forward = plain
        model.set_attn_implementation(kind)

    sharing = Sharing(undo)
    return sharing


class KeepScored:
    """A hook that hands the head the hidden states that are scored and no others."""

    def __init__(self):
        self.places: Tensor | None = None

    def __deepcopy__(self, memo: Any) -> "KeepScored":
        # A copy of the model takes its forward along, which speaks to this one.
        return self

    @contextmanager
    def at(self, places: Tensor) -> Iterator[None]:
        self.places = places
        try:
            yield
        finally:
            self.places = None

    def __call__(self, module: Any, args: Any, output: Any) -> Any:
        if self.places is not None:
            output.last_hidden_state = output.last_hidden_state.index_select(1, self.places)
        return output


def _padded(values: Tensor, layout: Layout) -> Tensor:
    """(1, M) as TRL has it: (R, W - 1), zero where nothing is scored."""
    # Unlike an indexed assignment this stays connected to the model where nothing is scored.
    return values.new_zeros(layout.scored.shape).masked_scatter(layout.scored, values)

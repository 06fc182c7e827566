"""Dropout: that of the base model is off while its adapter's acts; measurements without any."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig


def disable_base_dropout(model: nn.Module) -> list[tuple[PretrainedConfig, str, float]]:
    """Set every dropout to 0 except that of the adapter that is trained.

    Dropout is a module, or a number of a module or of its config that the model's code reads. TRL's
    disable_dropout knows only the modules and would disable the adapter's too. It stays off in the
    frozen copy ("ref"). Returns the configs' values, (config, name, value).
    """
    changed = []
    for name, module in model.named_modules():
        if name.endswith("lora_dropout.default"):
            continue
        for attribute in _dropouts(module):
            setattr(module, attribute, 0.0)
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            for key, value in _dropouts(config).items():
                changed.append((config, key, value))
                setattr(config, key, type(value)(0))  # some configs check the type
    return changed


def _dropouts(holder: Any) -> dict[str, float]:
    """The positive numbers of a module or config that are dropout by its name or by theirs."""
    own = {"p"} if "dropout" in type(holder).__name__.lower() else set()
    # Noise on the inputs of a router, in Mixtral and others.
    own |= set() if isinstance(holder, PretrainedConfig) else {"jitter_noise"}
    return {
        name: value
        for name, value in vars(holder).items()
        if type(value) in (int, float) and value > 0 and ("drop" in name or name in own)
    }


@contextlib.contextmanager
def measuring(model: nn.Module, training: bool) -> Iterator[None]:
    """Evaluate the model without gradients; no random number is drawn and no mode changes.

    With `training` its modules are in training mode, as in a step, except for the adapter's
    dropout. The model itself is not, so that TRL logs and counts nothing.
    """
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    for name, module in model.named_modules():
        if not name or "lora_dropout" in name:
            module.training = False
    device = next(model.parameters()).device
    devices = [] if device.type == "cpu" else [device]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode

"""Which modules and parameters a LoRA adapter is put on, decided before any weight is read."""

import copy
import functools
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from peft import LoraConfig, NoMatchingPeftModuleError, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from peft.utils.other import get_pattern_key
from torch import nn
from transformers import Conv1D, PretrainedConfig, PreTrainedModel

from dpo_wrap.config import Settings
from dpo_wrap.errors import ConfigError, ModelError, one_line
from dpo_wrap.model.load import (
    CONFIG_ERRORS,
    adapter_shapes,
    fit_embeddings,
    make_scorable,
    module_name,
)

ALL_LINEAR = "all-linear"
LINEAR = (nn.Linear, Conv1D)
"""What it adapts."""
ROUTER = re.compile(r"(^|\.)([^.]*router[^.]*|gate|shared_expert_gate)(\.|$)")
"""The name of a router, or of a part of one, in transformers' mixtures of experts."""
BY_WEIGHT = re.compile(r".*\.(mamba|mixer)\.(out_proj|dt_proj)")
"""Layers of state-space models whose weight is read without the adapter, at least by kernels."""


@dataclass(frozen=True)
class Matches:
    """What peft adapts in a model without weights."""

    modules: dict[str, nn.Module]
    """All modules as they were before, by name."""
    language: str
    """What the names in the language model start with; empty if there is nothing else."""
    converted: LoraConfig
    """The config after peft has turned names of experts into those of their fused weights."""
    adapted: PeftModel
    names: list[str]
    """The adapted modules, as `parameters` are the adapted parameters."""
    parameters: list[str]

    def weights(self, *dimensions: int) -> list[str]:
        """The parameters of the language model with this many dimensions, without convolutions."""
        return [
            f"{name}.{parameter}"
            for name, module in self.modules.items()
            if name.startswith(self.language) and not isinstance(module, nn.Conv1d)
            for parameter, weight in module.named_parameters(recurse=False)
            if weight.dim() in dimensions
        ]

    def taken(self, lora: LoraConfig) -> set[str]:
        """The names of `lora` that peft takes for experts' fused weights."""
        if not isinstance(lora.target_modules, set | list):
            return set()
        ours, converted = set(lora.target_parameters or ()), self.converted
        more = set(converted.target_parameters or ()) - ours
        return set(lora.target_modules) - set(converted.target_modules) if more else set()

    def outside(self, names: Iterable[str]) -> list[str]:
        """The parts of the model next to the language model that these modules are in."""
        depth = self.language.count(".")
        others = (name for name in names if not name.startswith(self.language))
        return sorted({".".join(name.split(".")[:depth]) for name in others})


def check_targets(
    settings: Settings,
    config: PretrainedConfig,
    lora: LoraConfig | None,
    chosen: dict[str, Any],
    notes: list[str],
) -> None:
    """Choose what `lora` adapts where the config does not, and check it.

    The default is peft's choice for the architecture, else all linear modules; of either, those of
    the language model that are not routers. Builds the model on torch's meta device, where tensors
    have shapes and no data; a model that cannot be built so is checked once it is loaded. Raises
    ConfigError for targets that match nothing or cannot be trained, ModelError for a model that
    TRL cannot score and for an adapter in adapter_path that does not fit the model.
    """
    given = settings.lora or {}
    by_default = lora is not None and settings.adapter_path is None
    by_default &= not (given.get("target_modules") or given.get("target_parameters"))
    if by_default:
        # Named here, since peft ignores its own choice for Mixtral.
        own = LORA_TARGETS.get(config.model_type, ALL_LINEAR)
        lora.target_modules = set(own) if isinstance(own, list) else own
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = _without_weights(settings, config)
            fit_embeddings(settings, model)
        except ModelError:
            raise
        except Exception as error:  # a model's own code may raise anything
            if lora is not None:
                notes.append(
                    f"{settings.where('model_path')}: the model cannot be built without its "
                    f"weights ({one_line(error)}), so LoRA's targets are checked after loading them"
                )
            return
        make_scorable(model)
        if model.base_model is model:
            raise ModelError(
                f"{settings.where('model_path')} {settings.model_path!r} is a "
                f"{type(model).__name__}, whose output layer is inside its language model, where "
                "TRL does not find it; save the language model alone, and give that"
            )
        if lora is None:
            return
        _check_parameters(settings, lora, model)
        try:
            everything = lora.target_modules == ALL_LINEAR
            if by_default or everything:
                everything = _restrict(lora, model, by_default)
            found = _matches(model, lora)
        except CONFIG_ERRORS as error:
            raise _refusal(settings, model, error) from None
    _check_names(settings, lora, found)
    _check_layers(settings, found)
    if settings.adapter_path is not None:
        _check_shapes(settings, found.adapted)
    if by_default:
        notes += _default_notes(config, lora, found, chosen)
    notes += _notes(lora, found, by_default, everything)


def _without_weights(settings: Settings, config: PretrainedConfig) -> PreTrainedModel:
    """The model of the class that TRL loads: the config's own architecture, else a causal LM."""
    architecture = getattr(transformers, (config.architectures or [""])[0], None)
    if architecture is not None:
        return architecture(config)
    trust = settings.option("trust_remote_code")
    return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust)


def _matches(model: PreTrainedModel, lora: LoraConfig) -> Matches:
    """Put the adapter on the model. Raises what peft raises."""
    modules, language = dict(model.named_modules()), ""
    if model.config.get_text_config() is not model.config:
        name = module_name(model, model.get_decoder())
        language = f"{name}." if name else ""
    converted = copy.deepcopy(lora)
    # Initializations that read the weights find none here; the matching is the same without them.
    converted.init_lora_weights, converted.inference_mode = False, False
    adapted = get_peft_model(model, converted)
    names, parameters = adapted.targeted_module_names, adapted.targeted_parameter_names
    return Matches(modules, language, converted, adapted, names, parameters)


def _refusal(settings: Settings, model: PreTrainedModel, error: Exception) -> ConfigError:
    """peft's exception with the place of the key that it names."""
    text, fix = one_line(error), ""
    words = text.lower().replace("_", " ")
    named = [name for name in settings.lora or () if name.replace("_", " ") in words]
    place = settings.where(f"lora.{named[0]}" if named else "adapter_path")
    if isinstance(error, NoMatchingPeftModuleError):
        linear = (name for name, module in model.named_modules() if isinstance(module, LINEAR))
        fix = f"; the model's linear modules are {', '.join(_leaves(linear))}"
    elif "ParamWrapper" in text:
        fix = "; experts' fused weights are adapted here: remove it, or name other modules alone"
    return ConfigError(f"{place}: peft refuses it: {text}{fix}")


def _check_parameters(settings: Settings, lora: LoraConfig, model: PreTrainedModel) -> None:
    """Raise ConfigError for names of parameters without a match."""
    weights = {name for name, weight in model.named_parameters() if weight.dim() > 1}
    targets = lora.target_parameters or ()
    if unmatched := [t for t in targets if not any(f".{w}".endswith(f".{t}") for w in weights)]:
        raise ConfigError(
            f"{settings.where('lora.target_parameters')}: {', '.join(sorted(unmatched))} match no "
            f"parameter of this model; it has {', '.join(_short(weights))}"
        )


def _check_names(settings: Settings, lora: LoraConfig, found: Matches) -> None:
    """Raise ConfigError for names without a match, which peft ignores if another name has one."""
    adapted, fused = found.names + found.parameters, _short(found.weights(3))
    fix = f"remove them (adapted are {', '.join(_leaves(adapted))})"
    if fused:
        fix += f"; experts' weights are parameters: target_parameters: [{', '.join(fused)}]"
    for key, within in (("modules_to_save", found.modules), ("target_modules", found.names)):
        names = getattr(lora, key)
        names = set(names) if isinstance(names, set | list | tuple) else set()
        if key == "target_modules":
            names -= found.taken(lora)
        if unmatched := [n for n in names if not any(f".{m}".endswith(f".{n}") for m in within)]:
            raise ConfigError(
                f"{settings.where(f'lora.{key}')}: {', '.join(sorted(unmatched))} match no module "
                f"of this model; {fix}"
            )
    for key in ("rank_pattern", "alpha_pattern"):
        for pattern in getattr(lora, key) or {}:
            if not any(get_pattern_key([pattern], name) == pattern for name in adapted):
                raise ConfigError(
                    f"{settings.where(f'lora.{key}')}: {pattern!r} matches nothing that is "
                    "adapted; remove it"
                )


def _check_layers(settings: Settings, found: Matches) -> None:
    """Raise ConfigError for an adapter on the output layer, or on a router that is not linear."""
    output = found.adapted.get_output_embeddings()
    for name in found.names:
        layer, problem = found.modules[name], None
        if isinstance(output, BaseTunerLayer) and layer is output.get_base_layer():
            problem = "is the output layer, whose weight TRL reads without the adapter"
        elif ROUTER.search(name) and type(layer).forward is not nn.Linear.forward:
            problem = "is a router with an output of its own kind, which peft cannot adapt"
        if problem:
            leaf = name.rpartition(".")[2]
            raise ConfigError(
                f"{settings.where('lora.target_modules')}: {name} {problem}; remove it, or write "
                f"modules_to_save: [{leaf}] to train the whole layer"
            )


def _check_shapes(settings: Settings, adapted: PeftModel) -> None:
    """Raise ModelError if a tensor of the adapter's file has another shape in the model."""
    # As peft names them in the file.
    expected = {
        name.replace(".modules_to_save.default", "").replace(".default", ""): list(tensor.shape)
        for name, tensor in adapted.named_parameters()
    }
    for name, shape in adapter_shapes(settings).items():
        if shape != expected.get(name, shape):
            raise ModelError(
                f"{settings.where('adapter_path')} {settings.adapter_path!r} does not fit "
                f"{settings.model_path!r}: {name} is {shape} in the adapter and {expected[name]} "
                "in the model; set model_path to the model that the adapter was trained on"
            )


def _restrict(lora: LoraConfig, model: PreTrainedModel, by_default: bool) -> bool:
    """Restrict `lora` to what is no router; returns whether all linear modules were considered.

    By default also to the language model, and to modules: peft has no dropout on parameters, and
    vLLM does not load an adapter on them.
    """
    everything, general = lora.target_modules == ALL_LINEAR, copy.deepcopy(lora)
    by_weight = by_default and any(map(BY_WEIGHT.fullmatch, dict(model.named_modules())))
    if by_weight:
        general.exclude_modules = lora.exclude_modules or BY_WEIGHT.pattern
    if by_default:
        # Experts' weights, which refuse these, are left out below.
        general.lora_dropout, general.use_dora, general.lora_bias = 0.0, False, False
    build = functools.partial(copy.deepcopy, model)
    try:
        found = _matches(build(), general)
    except NoMatchingPeftModuleError:
        if everything or not by_default or lora.layers_to_transform is not None:
            raise
        everything, general.target_modules, lora.target_modules = True, ALL_LINEAR, ALL_LINEAR
        found = _matches(build(), general)
    layers = everything and lora.layers_to_transform is not None
    if layers:
        # Which peft ignores for names in full, as all-linear becomes.
        general.target_modules = set(_leaves(found.names))
        found = _matches(build(), general)
    names = [name for name in found.names if not ROUTER.search(name)]
    parameters = [name for name in found.parameters if not ROUTER.search(name)]
    if by_default:
        names, parameters = [n for n in names if n.startswith(found.language)], []
    if layers or by_weight or names != found.names or parameters != found.parameters:
        leaves = set(_leaves(names))
        exact = leaves.isdisjoint(_leaves(found.modules.keys() - set(names)))
        lora.target_modules = leaves if exact else set(names)
        if parameters:
            converted = found.converted
            lora.rank_pattern, lora.alpha_pattern = converted.rank_pattern, converted.alpha_pattern
            lora.target_parameters = {
                target
                for target in converted.target_parameters
                if any(f".{name}".endswith(f".{target}") for name in parameters)
            }
    return everything


def _default_notes(
    config: PretrainedConfig, lora: LoraConfig, found: Matches, chosen: dict[str, Any]
) -> list[str]:
    """A note on default targets that are not peft's own, which are added to `chosen`."""
    own, targets = LORA_TARGETS.get(config.model_type), lora.target_modules
    if targets == own or (isinstance(own, list) and targets == set(own)):
        return []
    chosen["lora.target_modules"] = targets if targets == ALL_LINEAR else sorted(targets)
    what = ALL_LINEAR if targets == ALL_LINEAR else ", ".join(_leaves(found.names))
    why = "has no default" if own is None else "has a default that does not fit"
    return [f"lora.target_modules: {what} by default, peft {why} for {config.model_type}"]


def _notes(lora: LoraConfig, found: Matches, by_default: bool, everything: bool) -> list[str]:
    """What the default, all-linear, or a name taken for experts leaves out, and what follows."""
    output, taken = found.adapted.get_output_embeddings(), found.taken(lora)
    linear = [n for n, m in found.modules.items() if isinstance(m, LINEAR) and m is not output]
    leaves, left = _leaves(found.names), {}
    left["linear modules"] = _short(
        name
        for name in linear
        if name.startswith(found.language) and not ROUTER.search(name)
        if name.rpartition(".")[2] not in leaves
        if everything or any(f".{name}".endswith(f".{target}") for target in taken)
    )
    if by_default or everything:
        left["routers"] = _short(filter(ROUTER.search, found.weights(2)))
        left["experts' weights"] = _short(set(found.weights(3)) - set(found.parameters))
    if by_default:
        left["parts outside the language model"] = found.outside(linear)
    parts = [f"{kind} ({', '.join(names)})" for kind, names in left.items() if names]
    notes = [f"not adapted: {'; '.join(parts)}"] if parts else []
    if outside := found.outside(found.names):
        count = sum(not name.startswith(found.language) for name in found.names)
        notes.append(
            f"{count} of {len(found.names)} adapted modules are in {', '.join(outside)}, outside "
            "the language model: pairs of texts do not train them"
        )
    if found.parameters:
        notes.append(
            f"the adapter is on parameters ({', '.join(_short(found.parameters))}), which vLLM "
            "does not load from an adapter: merge it before serving"
        )
    bare = [n for n in found.names if getattr(found.modules[n], "bias", None) is None]
    if lora.lora_bias and bare:
        bias = f"{', '.join(_leaves(bare))} have no bias"
        notes.append(f"lora_bias: the adapter cannot be merged, since {bias}")
    return notes


def _leaves(names: Iterable[str]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in names})


def _short(names: Iterable[str]) -> list[str]:
    """The last two parts of each name: `experts.down_proj`."""
    return sorted({".".join(name.split(".")[-2:]) for name in names})

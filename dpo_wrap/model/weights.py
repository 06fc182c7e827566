"""The weights of a checkpoint, loaded into a model: all of them, or the checkpoint is not used."""

from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from dpo_wrap.errors import RunError, one_line


def load_full_weights(model: PreTrainedModel, folder: Path) -> None:
    """Load the full weights in a directory. Raises RunError unless all of them load.

    transformers converts names and shapes when it saves and when it loads a model: a mixture of
    experts is saved as a tensor for each expert and trained as one for all. Its trainer loads the
    tensors whose names match, without the conversion.
    """
    try:
        loaded, info = type(model).from_pretrained(
            folder, dtype=model.dtype, output_loading_info=True
        )
        problem = [
            f"{kind.removesuffix('_keys')} {min(map(str, keys))}"
            for kind, keys in info.items()
            if keys
        ]
        if not problem:
            model.load_state_dict(loaded.state_dict())
    except torch.OutOfMemoryError:
        raise
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        problem = [one_line(error)]
    if problem:
        raise _incomplete(folder, problem)


def check_adapter_names(model: PeftModel, folder: Path) -> None:
    """Raise RunError unless a checkpoint has all tensors of the model's adapters and no others."""
    for name in model.peft_config:
        file = (folder if name == "default" else folder / name) / "adapter_model.safetensors"
        try:
            with safe_open(file, framework="pt") as tensors:
                found = set(tensors.keys())
        except (OSError, SafetensorError) as error:
            raise _incomplete(folder, [one_line(error)]) from None
        expected = get_peft_model_state_dict(model, adapter_name=name).keys()
        missing, unexpected = sorted(expected - found), sorted(found - expected)
        problem = [f"missing {key}" for key in missing[:1]]
        problem += [f"unexpected {key}" for key in unexpected[:1]]
        if problem:
            raise _incomplete(folder, problem)


def _incomplete(folder: Path, problem: list[str]) -> RunError:
    return RunError(
        f"{folder}: its weights do not all load ({', '.join(problem)}), so they are not used; "
        "remove this checkpoint, and the same command resumes from an older one"
    )

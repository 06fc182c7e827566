"""DPO training on TRL with checked data, checked configs and a run that explains itself.

from dpo_wrap import evaluate, merge, train
run = train("configs/dpo_config.yaml", {"beta": 0.2})
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:  # otherwise the modules of the commands, which can be called like the functions
    from dpo_wrap.errors import DpoWrapError as DpoWrapError
    from dpo_wrap.eval import evaluate as evaluate
    from dpo_wrap.merge import merge as merge
    from dpo_wrap.train import train as train


def __getattr__(name: str) -> Any:
    """Import on first use, since torch takes seconds."""
    if name == "evaluate":
        from dpo_wrap.eval import evaluate

        return evaluate
    if name == "DpoWrapError":
        from dpo_wrap.errors import DpoWrapError

        return DpoWrapError
    raise AttributeError(f"module 'dpo_wrap' has no attribute {name!r}")

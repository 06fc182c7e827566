"""Which loss, optimizer, schedule or tracker reads an option: by the names in its installed code.

    "label_smoothing" in readers("loss_type")["robust"]
    "adam_kwargs" not in readers("optim")["sgd"]

Read with ast as in schema.py. Code that is no longer laid out as expected gives no readers, and
then nothing is held against an option.
"""

import ast
from collections.abc import Iterator
from functools import cache

from dpo_wrap.library_fields import enum_words, literal, loss_branches, tree

OPTIMIZERS = ("transformers", "trainer_optimizer.py")
SCHEDULES = ("transformers", "optimization.py")
TRACKERS = ("transformers", "integrations/integration_utils.py")
DPO_TRAINER = ("trl", "trainer/dpo_trainer.py")
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, StopIteration)
# What get_scheduler itself hands to each schedule.
HANDED = {"optimizer", "num_warmup_steps", "num_training_steps"}


@cache
def readers(chooser: str) -> dict[str, frozenset[str]]:
    """Each word that loss_type, optim, lr_scheduler_type or report_to may be, and what it reads."""
    find = {
        "loss_type": _losses,
        "optim": _optimizers,
        "lr_scheduler_type": _schedules,
        "report_to": _trackers,
    }[chooser]
    try:
        return find()
    except UNREADABLE:
        return {}


@cache
def schedule_arguments(word: str) -> tuple[frozenset[str], frozenset[str]] | None:
    """The names that a schedule takes in lr_scheduler_kwargs, and those of them that it needs.

    None where it takes any.
    """
    try:
        table = _assigned(tree(*SCHEDULES), "TYPE_TO_SCHEDULER_FUNCTION")
        words = enum_words("SchedulerType")
        key = next(n for n, k in enumerate(table.keys) if words[k.attr] == word)
        arguments = _functions(tree(*SCHEDULES))[table.values[key].id].args
    except UNREADABLE:
        return None
    names = [argument.arg for argument in arguments.args]
    needed = names[: len(names) - len(arguments.defaults)]
    return None if arguments.kwarg else (frozenset(names) - HANDED, frozenset(needed) - HANDED)


@cache
def divergence_losses() -> frozenset[str]:
    """The losses that DPOTrainer takes with an f-divergence other than reverse_kl."""
    for node in ast.walk(tree(*DPO_TRAINER)):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("loss_types"):
            found = literal(node.value)
            if isinstance(found, set):
                return frozenset(found)
    return frozenset(readers("loss_type"))


def _losses() -> dict[str, frozenset[str]]:
    return {loss: _names(body) for loss, body in loss_branches().items()}


def _optimizers() -> dict[str, frozenset[str]]:
    module = tree(*OPTIMIZERS)
    words, functions = enum_words("OptimizerNames"), _functions(module)
    found = {}
    for key, value in _entries(_assigned(module, "_OPTIMIZER_HANDLERS")):
        listed = [key] if key is not None else _assigned(module, value.args[0].id).elts
        handler = functions[value.id if key is not None else value.args[1].id]
        read = _names(handler.body)
        for called in read & functions.keys():
            read |= _names(functions[called].body)
        found |= {words[one.attr]: read for one in listed}
    return found


def _schedules() -> dict[str, frozenset[str]]:
    body = _functions(tree(*SCHEDULES))["get_scheduler"].body
    words = enum_words("SchedulerType")
    # The last return serves every schedule that none of the branches before it is for.
    found = dict.fromkeys(words.values(), _names(body[-1:]))
    for node in body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Compare):
            against = node.test.comparators[0]
            if isinstance(against, ast.Attribute) and against.attr in words:
                found[words[against.attr]] = _names(node.body)
    return found


def _trackers() -> dict[str, frozenset[str]]:
    module = tree(*TRACKERS)
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    return {
        literal(key): _names(classes[value.id].body)
        for key, value in _entries(_assigned(module, "INTEGRATION_TO_CALLBACK"))
    }


def _names(lines: list[ast.stmt]) -> frozenset[str]:
    """Every name and attribute in some lines of code."""
    return frozenset(
        part.attr if isinstance(part, ast.Attribute) else part.id
        for line in lines
        for part in ast.walk(line)
        if isinstance(part, ast.Attribute | ast.Name)
    )


def _entries(table: ast.Dict) -> Iterator[tuple[ast.expr | None, ast.expr]]:
    return zip(table.keys, table.values, strict=True)


def _functions(module: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}


def _assigned(module: ast.Module, name: str) -> ast.expr:
    return next(
        node.value
        for node in module.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and getattr(getattr(node, "target", None) or node.targets[0], "id", None) == name
    )

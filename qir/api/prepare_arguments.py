"""What `prepare_model` and `ModelValidator` are given: checked, and in one form."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

from qir.api.same_outputs import Examples
from qir.errors import QirError

if TYPE_CHECKING:
    from torch import nn


def examples_of(
    inputs: Any, keywords: Mapping[str, Any] | None = None, concrete: Mapping[str, Any] | None = None
) -> Examples:
    """One call of a model: `inputs` are its positional arguments, or a tensor that is the only one, or are named."""
    for name, given in (("example_keywords", keywords), ("concrete_args", concrete)):
        if given is not None and not isinstance(given, Mapping):
            raise QirError(f"{name} is a {type(given).__name__}", help="give a dict of arguments by name")
    if isinstance(inputs, Mapping):
        inputs, keywords = None, {**inputs, **(keywords or {})}
    if inputs is not None and not isinstance(inputs, list | tuple):
        inputs = [inputs]
    return Examples(inputs, dict(keywords or {}), dict(concrete or {}))


def excluded_of(modules: Sequence[nn.Module] | None, classes: Sequence[type] | None) -> list[Any]:
    """The modules and classes that stay whole. Raises QirError for what is neither."""
    from torch import nn

    for module in modules or ():
        if not isinstance(module, nn.Module):
            raise QirError(f"modules_to_exclude has {_shown(module)}, which is no module",
                           help="give the module itself; classes go to module_classes_to_exclude")  # fmt: skip
    for kind in classes or ():
        if not isinstance(kind, type):
            raise QirError(f"module_classes_to_exclude has {_shown(kind)}, which is no class",
                           help="give the class itself; modules go to modules_to_exclude")  # fmt: skip
    return [*(modules or ()), *(classes or ())]


def _shown(given: Any) -> str:
    return repr(given) if isinstance(given, str | type) else f"a {type(given).__name__}"


def checked_model(model: Any, examples: Examples) -> Any:
    """The module inside of DistributedDataParallel, DataParallel and torch.compile, or the exported program.

    Raises QirError when it is no model, or when no prepared module can have its state or be called like that.
    """
    import torch
    from torch import nn

    inner = unwrapped(model)
    if isinstance(inner, torch.export.ExportedProgram):
        return inner
    if not isinstance(inner, nn.Module):
        what = f"the class {inner.__name__}" if isinstance(inner, type) else f"a {type(inner).__name__}"
        raise QirError(f"qir prepares modules, and was given {what}", stage="import",
                       help="give a torch.nn.Module, a torch.export.ExportedProgram or a keras.Model")  # fmt: skip
    _check_names(inner)
    parameters = inspect.signature(inner.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in (*examples.keywords, *examples.concrete):
        if name not in parameters and not takes_any:
            raise QirError(f"forward of {type(inner).__name__} has no argument {name!r}", stage="import",
                           help=f"it has: {', '.join(parameters) or 'none'}")  # fmt: skip
    return inner


def unwrapped(model: Any) -> Any:
    """The module inside of DistributedDataParallel, DataParallel and torch.compile."""
    from torch import nn

    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _check_names(model: nn.Module) -> None:
    """Raise QirError when no prepared module can have the model's state."""
    import torch
    from torch import nn

    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            message = f"{path or 'the model'} is compiled by torch.jit, and can not be looked into"
            raise QirError(message, stage="import", help="give the module that it was made from")
        for name, what in (*module._modules.items(), *module._parameters.items(), *module._buffers.items()):
            within = f"{path}.{name}" if path else name
            if iskeyword(name):
                message = f"{within!r} holds a keyword of Python, which torch.fx can not write"
                raise QirError(message, stage="import", help="give it another name")
            if isinstance(what, nn.UninitializedParameter | nn.UninitializedBuffer):
                raise QirError(f"{within} has no shape yet", stage="import", help="run the model once before")

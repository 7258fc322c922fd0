"""Whether a prepared module returns what its model returns, and where they part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

from qir.errors import QirError

if TYPE_CHECKING:
    from torch import fx, nn


@dataclass(frozen=True)
class Examples:
    """The arguments of one call of a model; those in `concrete` have the same value in every call."""

    inputs: Sequence[Any] | None = None
    keywords: dict[str, Any] = field(default_factory=dict)
    concrete: dict[str, Any] = field(default_factory=dict)

    @property
    def given(self) -> bool:
        """Whether there are any."""
        return self.inputs is not None or bool(self.keywords)

    def named(self, model: Any) -> dict[str, Any]:
        """The keywords of the call, those in `concrete` included that are no positional arguments."""
        names = list(signature(model.forward).parameters)[: len(self.inputs or ())] if self.concrete else []
        return {**self.keywords, **{name: value for name, value in self.concrete.items() if name not in names}}


def check_equal(
    model: Any, prepared: fx.GraphModule, importer: str, examples: Examples, same: Callable[[Any, Any], bool]
) -> None:
    """Raise QirError, naming the first call that differs, unless both return the same in evaluation mode."""
    from torch import nn

    from qir.backends.torch_difference import first_difference

    original = model if isinstance(model, nn.Module) else model.module()
    keywords = examples.named(original)
    given = keywords if importer == "torch.export" else examples.keywords
    run = partial(outputs, "the model", original, examples.inputs or (), keywords)
    run_prepared = partial(outputs, "the prepared model", inputs=examples.inputs or (), keywords=given)
    (expected, shape), (actual, prepared_shape) = run(), run_prepared(prepared)
    message = None
    if len(expected) != len(actual):
        message = f"the prepared model returns {len(actual)} values and the model {len(expected)}"
    elif shape != prepared_shape:
        message = f"the prepared model returns its values as {prepared_shape} and the model as {shape}"
    for number, (a, b) in enumerate(zip(expected, actual, strict=False)):
        if message is None and not same(a, b):
            message = f"output {number} of the prepared model differs from the model's on the example inputs"
    if message is None:
        return
    snippet = first_difference(original, prepared, run, run_prepared, same)
    if importer == "torch.export":
        help = "the model computes otherwise while torch.export looks on; give importer='fx', or exclude that module"
    else:
        help = "its forward asks Python for what torch.fx does not know; give importer='export', or exclude that module"
    raise QirError(message, stage="prepare", snippet=snippet, help=help)


def outputs(who: str, module: nn.Module, inputs: Sequence[Any], keywords: Mapping[str, Any]) -> tuple[list[Any], Any]:
    """The leaves of what a module returns in evaluation mode, and how it arranges them.

    Raises QirError, naming it as `who`, where it fails, or returns something else in its second call.
    """
    import torch
    from torch.utils import _pytree as pytree

    from qir.frontends.torch_state import untouched, with_parameters_kept

    try:
        with (
            untouched(module) as changed,
            with_parameters_kept(module),
            torch.no_grad(),
            torch.random.fork_rng(devices=[]),
        ):
            for part in module.modules():
                part.training = False
            runs: list[tuple[list[Any], Any]] = []
            while not runs or (changed() and len(runs) < 2):
                torch.manual_seed(0)
                runs.append(pytree.tree_flatten(module(*deepcopy(list(inputs)), **deepcopy(dict(keywords)))))
            if not all(map(same, runs[0][0], runs[-1][0])):
                message = f"{who} returns something else in its second call: forward changes {changed()[0]}"
                raise QirError(message, stage="prepare", help="keep that module whole: modules_to_exclude=[…]")
            return runs[0]
    except QirError:
        raise
    except Exception as error:  # whatever the model's own code raises
        message = f"{who} fails on the example inputs: {type(error).__name__}: {error}"
        raise QirError(message, stage="prepare") from error


def same(a: Any, b: Any) -> bool:
    """Whether two outputs are equal, bit for bit but for the sign of zero."""
    import torch

    if is_dataclass(a) and type(a) is type(b):
        return all(same(getattr(a, part.name), getattr(b, part.name)) for part in fields(a))
    if not isinstance(a, torch.Tensor) or not isinstance(b, torch.Tensor):
        return type(a) is type(b) and bool(a == b)
    if not _alike(a, b):
        return False
    return torch.equal(a, b) or bool(torch.all((a == b) | (a.isnan() & b.isnan())))


def close(a: Any, b: Any) -> bool:
    """Whether two outputs are equal, floats within a thousandth of the largest."""
    import torch

    if not isinstance(a, torch.Tensor) or not a.is_floating_point() or a.numel() == 0 or not _alike(a, b):
        return same(a, b)
    finite = a[a.isfinite()].abs()
    slack = 1e-3 * float(finite.max()) if finite.numel() else 0.0
    return torch.allclose(a, b, rtol=1e-3, atol=slack, equal_nan=True)


def _alike(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype)

"""Running torch.export on a module, quietly, and with training flags that can be told."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from qir.frontends.torch_autograd import recorded_functions
from qir.frontends.torch_errors import untraceable
from qir.frontends.torch_flags import FlagRecorder, Given, rates_in_training, recording_flags
from qir.frontends.torch_lowerings import DTYPES
from qir.frontends.torch_spans import Span, recording_spans, stays_whole
from qir.frontends.torch_trace import nothing_whole
from qir.frontends.torch_whole import Whole, kept_whole, observed
from qir.types import UNKNOWN, ScalarType, TensorType, Type


@dataclass(frozen=True)
class Recording:
    """An exported program, what the calls were given that compute otherwise in training, and the whole calls.

    `regularizers` are modules that return their argument, unless they are training; `inference_only` says why the calls
    are others in training.
    """

    program: torch.export.ExportedProgram
    given: Sequence[Given] = ()
    spans: Mapping[str, Span] = field(default_factory=dict)
    calls: Mapping[str, Whole] = field(default_factory=dict)
    regularizers: Collection[nn.Module] = ()
    inference_only: str = ""


def export(
    model: nn.Module,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    whole: Callable[[nn.Module], bool] = nothing_whole,
    dynamic: bool = True,
    layers: tuple[type[nn.Module], ...] = (),
) -> Recording:
    """What torch.export records of the model, in which modules of which `whole` is true are called and not looked into.

    Nor are those of the classes `layers`, which are lowered as the layers that they are.
    With `dynamic`, the sizes that the model lets be any number are symbols: of all axes, up to rank 3, or of axis 0.
    """
    calls = observed(model, whole, layers, args, keywords)
    kept = {part for call in calls.values() for part in call.module.modules()}
    still = {part for module in model.modules() if whole(module) or stays_whole(module) for part in module.modules()}
    given = _apart((args, keywords))
    twice = pytree.tree_map(_twice, given) if dynamic and _is_one(given) and not calls else given
    failures: list[Exception] = []
    for axes in (all_axes, _first_axis, None) if dynamic else (None,):
        args, keywords = given if axes is None else twice
        shapes = None if axes is None else dynamic_shapes(model, args, keywords, axes)
        try:
            with (
                kept_whole(calls), recording_flags(model, still) as recorder, recording_spans(model, kept) as spans,
                quiet(), _remembering(shapes is None), recorded_functions() as functions,
            ):  # fmt: skip
                program = torch.export.export(model, args, keywords, dynamic_shapes=shapes, strict=False)
            if axes is not None and not _takes(program, given):
                return export(model, given[0], given[1], whole, False, layers)
            followed, reason = _in_training(model, recorder, args, keywords, still)
            return Recording(program, followed, spans, {**calls, **functions}, recorder.regularizers, reason)
        except Exception as error:  # torch.export raises whatever the model's own code raises, and much of its own
            failures.append(error)
    raise untraceable("torch.export can not follow this model", model, failures[-1]) from failures[-1]


def _in_training(
    model: nn.Module, recorder: FlagRecorder, args: Any, keywords: Any, still: Collection[nn.Module]
) -> tuple[Sequence[Given], str]:
    """What calls were given, and why others are made in training, if they are."""
    if not recorder.asked:
        return recorder.given, ""
    still = {*still, *(part for module in recorder.regularizers for part in module.modules())}
    given = None
    with quiet(), torch.random.fork_rng(devices=[]), suppress(Exception):  # in training it takes other arguments, say
        given = rates_in_training(model, args, keywords, still, recorder.given)
    return (recorder.given, str(recorder.asked[0])) if given is None else (given, "")


def dynamic_shapes(model: nn.Module, args: Any, keywords: Any, axes: Callable[[Any], Any]) -> Any:
    """What torch.export is told of the arguments' sizes: `axes` says it of one argument."""
    bound = inspect.signature(model.forward).bind(*args, **keywords)
    return {name: pytree.tree_map(axes, value) for name, value in bound.arguments.items()}


def all_axes(leaf: Any) -> Any:
    """Every axis of sequences is of any size; images and videos keep theirs."""
    if not isinstance(leaf, torch.Tensor) or leaf.ndim > 3:
        return _first_axis(leaf)
    return {axis: torch.export.Dim.AUTO for axis, size in enumerate(leaf.shape) if size > 1} or None


def _first_axis(leaf: Any) -> Any:
    if isinstance(leaf, torch.Tensor) and leaf.ndim and leaf.shape[0] > 1:
        return {0: torch.export.Dim.AUTO}
    return None


def _is_one(given: Any) -> bool:
    """Whether the batch is a single item, a size of which torch.export makes no symbol."""
    return all(leaf.shape[:1] == (1,) for leaf in pytree.tree_leaves(given) if isinstance(leaf, torch.Tensor))


def _apart(given: Any) -> Any:
    """The arguments, no tensor of which is at two places: torch.export takes such places for one."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor) and id(leaf) in seen:
            return leaf.detach().clone().requires_grad_(leaf.requires_grad)
        seen.add(id(leaf))
        return leaf

    return pytree.tree_map(own, given)


def _takes(program: torch.export.ExportedProgram, given: Any) -> bool:
    """Whether the sizes of the arguments may be those of `given`, of which the recorded ones have twice as many."""
    names = {spec.arg.name for spec in program.graph_signature.input_specs if spec.kind.name == "USER_INPUT"}
    recorded = [node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    return all(
        not isinstance(_size(wanted), int) or wanted == size
        for example, leaf in zip(recorded, pytree.tree_leaves(given), strict=True)
        if isinstance(example, torch.Tensor) and isinstance(leaf, torch.Tensor)
        for wanted, size in zip(example.shape, leaf.shape, strict=True)
    )


def _twice(leaf: Any) -> Any:
    return torch.cat([leaf, leaf]) if isinstance(leaf, torch.Tensor) else leaf


def _remembering(types: bool) -> AbstractContextManager[None]:
    """Inside, torch remembers the `types` of calls, or does not: keys of symbolic sizes cost more than they spare."""
    return torch._dynamo.config.patch(fake_tensor_cache_enabled=types)  # type: ignore[no-any-return]


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, torch neither prints, warns nor logs."""
    log = logging.getLogger("torch")
    level = log.level
    try:
        log.setLevel(logging.CRITICAL)
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def state_at(program: torch.export.ExportedProgram, model: Any, path: str) -> torch.Tensor:
    """The parameter, buffer or constant at a path: the model's own, where it is a module that has it."""
    found: Any = program.state_dict.get(path)
    if found is None:
        found = program.constants[path]
    if isinstance(model, nn.Module):
        owner, _, name = path.rpartition(".")
        with suppress(AttributeError):
            found = getattr(model.get_submodule(owner), name)
    return torch.as_tensor(found) if not isinstance(found, torch.Tensor) else found


def type_of_example(value: Any) -> Type:
    """The type of a value that torch.export kept: a fake tensor, or a number that may be symbolic."""
    if isinstance(value, torch.Tensor):
        shape = tuple(_size(size) for size in value.shape)
        return TensorType(DTYPES.get(value.dtype), shape)
    if isinstance(value, torch.SymInt | int) and not isinstance(value, bool):
        return ScalarType("int")
    if isinstance(value, torch.SymFloat | float):
        return ScalarType("float")
    if isinstance(value, torch.SymBool | bool):
        return ScalarType("bool")
    return UNKNOWN


def _size(size: Any) -> int | str | None:
    text = str(size)
    if text.isdigit():  # a symbol may turn out to be one number
        return int(text)
    return text if re.fullmatch(r"[A-Za-z]\w*", text) else None

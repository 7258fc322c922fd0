"""`prepare_model`: a torch module rewritten so that every computation is a layer called once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

from qir.errors import QirError
from qir.graph import Graph
from qir.pipeline import Pipeline

if TYPE_CHECKING:
    from torch import fx, nn

PREPARE = "lift-functionals,unroll-modules"
"""The pipeline of `prepare_model`."""

Importer = Literal["auto", "fx", "export"]


def prepare_model(
    model: nn.Module,
    modules_to_exclude: Sequence[nn.Module] | None = None,
    module_classes_to_exclude: Sequence[type] | None = None,
    concrete_args: Mapping[str, Any] | None = None,
    *,
    example_inputs: Sequence[Any] | None = None,
    importer: Importer = "auto",
    in_place: bool = False,
) -> fx.GraphModule:
    """A module with the outputs of `model`, bit for bit, in which every computation is a layer called once.

    Functional calls become layers `module_<call>` of the module whose forward makes them; the second and later calls of
    a layer become `module_<layer>_<n>`, sharing its weights. State has the keys of the model's. The model is not
    changed, and shares no memory with the result unless `in_place`.

    `modules_to_exclude` and `module_classes_to_exclude` (exact classes) stay whole; `concrete_args` fixes arguments of
    forward by name. With `example_inputs` (positional arguments) the result is run on them and must return what the
    model returns, bit for bit; a model that `torch.fx` can not trace is then imported by `torch.export`. `importer`
    chooses one of the two. `meta["new_layers"]` of the result maps each new layer to the user's line of the call.

    Raises QirError, showing the user's line, when no importer can take the model.
    """
    model = unwrapped(model)
    excluded, classes = list(modules_to_exclude or ()), tuple(module_classes_to_exclude or ())

    def whole(module: nn.Module) -> bool:
        return any(module is other for other in excluded) or type(module) in classes

    failures: list[QirError] = []
    for read in _importers(model, example_inputs, importer, whole, concrete_args):
        try:
            return _prepared(model, read(), example_inputs, in_place)
        except QirError as error:
            failures.append(error)
    if len(failures) > 1:
        failures[0].help = f"torch.export fails too: {failures[1].message}"
    elif example_inputs is None and importer == "auto":
        failures[0].help = "give example_inputs=(…), and torch.export is tried too; " + (failures[0].help or "")
    raise failures[0]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside of DistributedDataParallel, DataParallel and torch.compile."""
    from torch import nn

    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def _importers(
    model: nn.Module,
    example_inputs: Sequence[Any] | None,
    importer: Importer,
    whole: Callable[[nn.Module], bool],
    concrete_args: Mapping[str, Any] | None,
) -> list[Callable[[], Graph]]:
    """The ways to import the model, first choice first."""
    from qir.frontends.torch_export import import_exported
    from qir.frontends.torch_fx import import_torch

    if importer not in ("auto", "fx", "export"):
        raise QirError(f"there is no importer {importer!r}", help="importers are 'auto', 'fx' and 'export'")
    ways: list[Callable[[], Graph]] = []
    if importer != "export":
        ways.append(lambda: import_torch(model, example_inputs, whole=whole, concrete=concrete_args))
    if importer == "export" and example_inputs is None:
        raise QirError("torch.export needs example inputs", help="give example_inputs=(…)")
    keeps = any(whole(module) for module in model.modules())
    if importer == "export" or (importer == "auto" and example_inputs is not None and not keeps):
        ways.append(lambda: import_exported(model, list(example_inputs or ()), concrete_args))
    return ways


def _prepared(model: nn.Module, graph: Graph, example_inputs: Sequence[Any] | None, in_place: bool) -> fx.GraphModule:
    from qir.backends.torch_module import emit_torch

    before = {node.module for node in graph.nodes()}
    prepared = emit_torch(Pipeline.parse(PREPARE).run(graph), share=in_place)
    prepared.meta["new_layers"] = {
        node.module: str(node.loc or "") for node in graph.nodes() if node.module and node.module not in before
    }
    if example_inputs is not None:
        _check_equal(model, prepared, example_inputs)
    return _with_training_flags(prepared, model)


def _with_training_flags(prepared: fx.GraphModule, model: nn.Module) -> fx.GraphModule:
    """`prepared` with the flags of the model's modules; new modules have their parent's."""
    flags = {path: module.training for path, module in model.named_modules(remove_duplicate=False)}
    for path, module in prepared.named_modules():
        while path not in flags:
            path = path.rpartition(".")[0]
        module.training = flags[path]
    return prepared


def _check_equal(model: nn.Module, prepared: nn.Module, example_inputs: Sequence[Any]) -> None:
    """Raise QirError unless both return the same for the inputs, bit for bit, in evaluation mode."""
    expected, actual = (_run(module, example_inputs) for module in (model, prepared))
    if len(expected) != len(actual):
        message = f"the prepared model returns {len(actual)} values and the model {len(expected)}"
        help = "its forward asks Python for the type of a tensor; give importer='export'"
        raise QirError(message, stage="prepare", help=help)
    for number, (a, b) in enumerate(zip(expected, actual, strict=True)):
        if not _same(a, b):
            message = f"output {number} of the prepared model differs from the model's on the example inputs"
            help = "keep the module that differs whole: modules_to_exclude=[…]"
            raise QirError(message, stage="prepare", help=help)


def _run(module: nn.Module, example_inputs: Sequence[Any]) -> list[Any]:
    import torch
    from torch.utils import _pytree as pytree

    flags = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return pytree.tree_leaves(module(*deepcopy(list(example_inputs))))
    finally:
        for part, flag in flags:
            part.training = flag


def _same(a: Any, b: Any) -> bool:
    import torch

    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same_kind = a.shape == b.shape and a.dtype == b.dtype
        return same_kind and bool(torch.equal(a, b) or torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))
    return type(a) is type(b) and bool(a == b)

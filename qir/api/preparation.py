"""`prepare_model`: a torch module rewritten so that every computation is a layer called once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, Literal

from qir.api.keras import is_keras, prepare_keras
from qir.api.opaque_report import opaque_calls
from qir.api.prepare_arguments import checked_model, examples_of, excluded_of
from qir.api.recorded_sizes import settled, without_conditions
from qir.api.same_outputs import Examples, check_equal, close, same
from qir.errors import QirError
from qir.graph import Graph, Node
from qir.ops import composed_families
from qir.pipeline import Pipeline
from qir.rewrite import Note
from qir.types import UNKNOWN
from qir.watch import Outcomes

if TYPE_CHECKING:
    import keras
    import torch
    from torch import Tensor, fx, nn

    from qir.passes.decompose import Decompose

PREPARE = "lift-functionals,unroll-modules"
"""The pipeline of `prepare_model`."""

Importer = Literal["auto", "fx", "export"]


@dataclass(frozen=True)
class Preparation:
    """A prepared module, the importer that took its model, and what became layers."""

    module: fx.GraphModule
    graph: Graph
    importer: str
    lifted: list[Note]
    unrolled: list[Note]


def prepare_model(
    model: nn.Module | torch.export.ExportedProgram | keras.Model,
    modules_to_exclude: Sequence[nn.Module] | None = None,
    module_classes_to_exclude: Sequence[type] | None = None,
    concrete_args: Mapping[str, Any] | None = None,
    *,
    example_inputs: Sequence[Any] | Mapping[str, Any] | Tensor | None = None,
    example_keywords: Mapping[str, Any] | None = None,
    importer: Importer = "auto",
    in_place: bool = False,
    decompose: bool | Sequence[str] | None = None,
    input_layer: Any = None,
) -> fx.GraphModule | keras.Model:
    """A module with the outputs of `model`, bit for bit, in which every computation is a layer called once.

    Functional calls become layers `module_<call>` of the module whose forward makes them; the second and later calls of
    a layer become `module_<layer>_<n>`, sharing its weights. State has the keys of the model's. The model is not
    changed, and shares no memory with the result unless `in_place`. An already traced `torch.fx.GraphModule` and a
    `torch.export.ExportedProgram` are models too.

    `modules_to_exclude` and `module_classes_to_exclude` (exact classes) stay whole; `concrete_args` fixes arguments of
    forward by name. With `example_inputs` (positional arguments; a tensor is the only one, and a dict names them) the
    result is run on them and must return what the model returns, bit for bit; a model that `torch.fx` can not trace is
    then imported by `torch.export`. A model with `example_keywords` is always imported by `torch.export`, and the
    result is called with the same keywords. `importer` chooses one of the two. `meta["new_layers"]` of the result maps
    each new layer to the user's line of the call, and `meta["opaque_calls"]` lists the calls that stayed as they are,
    each with its reason.

    `decompose` names the families of operators that come apart, as the pass `decompose` does; True stands for all,
    False for none. Without it those come apart whose parts compute the same bits: recurrent cells, and an einsum of two
    operands. Attention and recurrent layers stay whole, since torch's fused kernels round otherwise than their parts.

    A `keras.Model` becomes a flat Functional model by the same rules; see `qir.api.keras.prepare_keras`. It takes
    `input_layer` (a `keras.Input`, or a list or dict of them) where it is subclassed and was never called.

    Raises QirError, showing the user's line, when no importer can take the model.
    """
    if is_keras(model):
        return prepare_keras(model, input_layer, modules_to_exclude, module_classes_to_exclude, example_inputs)
    examples = examples_of(example_inputs, example_keywords, concrete_args)
    excluded = excluded_of(modules_to_exclude, module_classes_to_exclude)
    return preparation(model, examples, excluded, importer, in_place, decompose).module


def preparation(
    model: nn.Module | torch.export.ExportedProgram,
    examples: Examples,
    excluded: Sequence[nn.Module | type] = (),
    importer: Importer = "auto",
    in_place: bool = False,
    decompose: bool | Sequence[str] | None = None,
) -> Preparation:
    """What `prepare_model` returns and what it did; `excluded` holds modules and exact classes that stay whole."""
    model = checked_model(model, examples)
    apart = decomposition(decompose)
    modes = modes_of(model, excluded)
    failures: dict[str, QirError] = {}
    made: Preparation | None = None
    for name, read in importers(model, examples, excluded, importer):
        if name in failures and failures[name].stage == "import":
            continue
        try:
            graph = imported(name, read)
            graph.inference_only = graph.inference_only or modes
            tried = _prepared(model, graph, apart, name, examples, in_place)
        except QirError as error:
            failures.setdefault(name, error)
            continue
        if made is None or hidden(tried.graph) < hidden(made.graph):
            made = tried
        if not examples.given or not hidden(made.graph):
            break
    if made is not None:
        return made
    first, *others = failures.values()
    for other in others:
        line = None if other.snippet == first.snippet else other.snippet
        first.help = "\n".join(filter(None, [first.help, f"torch.export fails too: {other.message}", line]))
    if not examples.given and importer == "auto":
        first.help = "\n".join(["give example_inputs=(…), and torch.export is tried too", first.help or ""])
    raise first


def modes_of(model: Any, excluded: Sequence[Any]) -> str:
    """Why a prepared model does not follow `train()` as the model does, or nothing."""
    from qir.frontends.torch_modes import own_modes

    return own_modes(model, excluded)


def hidden(graph: Graph) -> int:
    """How many calls only `torch.fx` sees nothing of: functions that it keeps whole, items of inputs that hold tensors.

    Those of an input whose type is not known although there are examples, that is.
    """
    return sum(node.definition.opaque and (_is_python(node.host) or _reads_container(graph, node))
               for node in graph.nodes())  # fmt: skip


def _is_python(function: Any) -> bool:
    return isinstance(function, FunctionType) and function.__module__.partition(".")[0] != "torch"


def _reads_container(graph: Graph, node: Node) -> bool:
    return any(value in graph.inputs and value.type == UNKNOWN for value in node.operands if value is not None)


def decomposition(decompose: bool | Sequence[str] | None) -> Decompose | None:
    """What comes apart with this option of `prepare_model`. Raises QirError for a family that there is not."""
    from qir.passes.decompose import Decompose

    if decompose is None:
        return Decompose(only_exact=True)
    families = composed_families() if decompose is True else decompose or ()
    return Decompose(families=tuple(families)) if families else None


def imported(name: str, read: Callable[[], Graph]) -> Graph:
    """The graph that an importer reads. Raises QirError, whatever the importer stumbles over."""
    try:
        return read()
    except QirError:
        raise
    except Exception as error:  # a call that neither qir nor its author foresaw; another importer may take it
        message = f"the importer {name} stumbles over this model: {type(error).__name__}: {error}"
        raise QirError(message, stage="import") from error


def importers(
    model: nn.Module | torch.export.ExportedProgram,
    examples: Examples,
    excluded: Sequence[nn.Module | type] = (),
    importer: Importer = "auto",
) -> list[tuple[str, Callable[[], Graph]]]:
    """The ways to import the model by name, first choice first."""
    import torch

    from qir.frontends.torch_export import import_exported
    from qir.frontends.torch_fx import import_torch
    from qir.frontends.torch_transformer import ATTENTION_LAYERS
    from qir.frontends.torch_unnoticed import unnoticed

    def whole(module: nn.Module) -> bool:
        return any(module is other or type(module) is other for other in excluded)

    export = partial(import_exported, model, list(examples.inputs or ()), examples.named(model), whole=whole)

    if importer not in ("auto", "fx", "export"):
        raise QirError(f"there is no importer {importer!r}", help="importers are 'auto', 'fx' and 'export'")
    if isinstance(model, torch.export.ExportedProgram):
        return [("torch.export", export)]
    if importer == "export" and not examples.given:
        raise QirError("torch.export needs example inputs", help="give example_inputs=(…)")
    if importer == "fx" and examples.keywords:
        raise QirError("torch.fx takes no keyword examples", help="give importer='export', or example_inputs=(…)")
    ways: list[tuple[str, Callable[[], Graph]]] = []
    if importer != "export" and not examples.keywords:
        traced = partial(import_torch, model, examples.inputs, whole=whole, concrete=examples.concrete)
        ways.append(("torch.fx", traced))
    if importer == "export" or (examples.given and importer == "auto"):
        readings = (export, partial(unnoticed, export), partial(export, dynamic=False))
        ways += [("torch.export", read) for read in readings]
        if any(isinstance(module, ATTENTION_LAYERS) for module in model.modules()):
            ways.append(("torch.export", partial(export, dynamic=False, layers=ATTENTION_LAYERS)))
    return ways


def _prepared(
    model: Any, graph: Graph, apart: Decompose | None, importer: str, examples: Examples, in_place: bool
) -> Preparation:
    from torch import nn

    from qir.backends.torch_module import emit_torch

    outcomes = Outcomes()
    pipeline = Pipeline.of(*([] if apart is None else [apart]), *Pipeline.parse(PREPARE).passes)
    signature = graph.signature
    if examples.given:
        graph.signature = without_conditions(signature)
    module = emit_torch(pipeline.run(graph, [outcomes]), share=in_place)
    if examples.given:
        check_equal(model, module, importer, examples, same if apart is None or apart.only_exact else close)
        original = model if isinstance(model, nn.Module) else model.module()
        signature = settled(original, module, signature, examples)
        if signature != graph.signature:
            graph.signature = signature
            module = emit_torch(graph, share=in_place)
    *_, lifted, unrolled = (outcome.done for outcome in outcomes.kept)
    module.meta["opaque_calls"] = opaque_calls(graph)
    module.meta["new_layers"] = {note.module: str(note.loc or "") for note in (*lifted, *unrolled)}
    if isinstance(model, nn.Module):
        copy_training_flags(module, model)
        copy_versions(module, model)
        copy_order(module, model)
    return Preparation(module, graph, importer, lifted, unrolled)


def copy_training_flags(prepared: fx.GraphModule, model: nn.Module) -> None:
    """Give `prepared` the flags of the model's modules; new modules get their parent's."""
    flags = {path: module.training for path, module in model.named_modules(remove_duplicate=False)}
    for path, module in prepared.named_modules():
        while path not in flags:
            path = path.rpartition(".")[0]
        vars(module)["training"] = flags[path]


def copy_versions(prepared: fx.GraphModule, model: nn.Module) -> None:
    """Let the state of `prepared` say which version of each module of the model it is of."""
    versions = {path: module._version for path, module in model.named_modules(remove_duplicate=False)}
    for path, module in prepared.named_modules(remove_duplicate=False):
        if versions.get(path, module._version) != module._version:
            module._version = versions[path]


def copy_order(prepared: fx.GraphModule, model: nn.Module) -> None:
    """Let the parameters, buffers and layers of `prepared` come in the order of the model's; new layers come last."""
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for path, module in model.named_modules(remove_duplicate=False):
        if (other := modules.get(path)) is not None:
            for kind in ("_parameters", "_buffers", "_modules"):
                held = getattr(other, kind)
                names = [name for name in getattr(module, kind) if name in held]
                for name in (*names, *(name for name in list(held) if name not in names)):
                    held[name] = held.pop(name)

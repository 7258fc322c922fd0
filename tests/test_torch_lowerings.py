"""Every spelling in the table of torch lowerings, against torch and against ONNX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import qir
import qir.frontends.torch_fx
from qir.backends.onnx_qdq import executor
from qir.frontends.torch_table import lowers
from qir.verify import verify
from tests import (
    lowered_calls,
    lowered_functions,
    lowered_products,
    lowered_scatter,
    lowered_sizes,
    lowered_sorting,
    lowered_windows,
)
from tests.comparing import same
from tests.composed import SPELLINGS
from tests.lowered_calls import Call

Model = tuple[nn.Module, list[Tensor]]

CALLS = {**lowered_calls.CALLS, **lowered_functions.FUNCTION_CALLS, **lowered_sorting.SORTING_CALLS,
         **lowered_scatter.SCATTER_CALLS, **lowered_products.PRODUCT_CALLS,
         **lowered_windows.WINDOW_CALLS, **lowered_sizes.SIZE_CALLS}  # fmt: skip
SPELLED = {**lowered_calls.SPELLED, **lowered_functions.FUNCTIONS_SPELLED, **lowered_sorting.SORTING_SPELLED,
           **lowered_scatter.SCATTER_SPELLED, **lowered_products.PRODUCT_SPELLED,
           **lowered_windows.WINDOW_SPELLED}  # fmt: skip
LAYERS = {**lowered_calls.LAYERS, **lowered_functions.FUNCTION_LAYERS, **lowered_products.PRODUCT_LAYERS,
          **lowered_windows.WINDOW_LAYERS}  # fmt: skip
OTHER_ARGUMENTS = (*lowered_calls.OTHER_ARGUMENTS, *lowered_functions.OTHER_FUNCTION_ARGUMENTS,
                   *lowered_windows.OTHER_WINDOW_ARGUMENTS, *lowered_scatter.OTHER_SCATTER_ARGUMENTS)  # fmt: skip
ANSWERS = {"dim", "ndimension", "numel", "nelement", "element_size", "is_floating_point", "is_complex", "is_signed"}
"""Questions about a tensor, whose answers are numbers: `tests.test_torch_completeness` asks them."""
ELSEWHERE = {f"Tensor.{name}" for name in ANSWERS} | {getattr(torch, name) for name in ANSWERS if hasattr(torch, name)}
ELSEWHERE |= lowered_calls.ELSEWHERE | lowered_functions.PAIRED_LAYERS | SPELLINGS
ELSEWHERE |= {"torch.ops.transformers.grouped_mm_fallback"}


def traced(kind: str, target: Any, given: Call, in_place: bool) -> Model:
    """One call as a model, which also returns what an in-place call changed."""
    graph, inputs = fx.Graph(), []

    def placed(argument: Any) -> Any:
        if isinstance(argument, Tensor):
            inputs.append(argument)
            return graph.placeholder(f"x{len(inputs)}")
        if isinstance(argument, list | tuple) and any(isinstance(item, Tensor) for item in argument):
            return type(argument)(placed(item) for item in argument)
        return argument

    args = tuple(map(placed, given.args))
    kwargs = {key: placed(value) for key, value in given.kwargs.items()}
    made = graph.create_node(kind, target, args, kwargs)
    graph.output((made, args[0]) if in_place else made)
    return fx.GraphModule(nn.Module(), graph), inputs


def spellings() -> Iterator[tuple[str, str, Any, list[Call], bool]]:
    """Name, kind, target and calls of every function and method, in-place twins included."""
    for spelling, lowering in lowers.table.items():
        if isinstance(spelling, type) or spelling in ELSEWHERE:
            continue
        calls = [] if spelling in OTHER_ARGUMENTS else CALLS.get(lowering.__name__, [])
        calls = [*calls, *SPELLED.get(spelling, [])]
        if isinstance(spelling, str):
            method = spelling.removeprefix("Tensor.")
            yield spelling, "call_method", method, calls, spelling.endswith("_") and not spelling.endswith("__")
            if hasattr(Tensor, f"{method}_") and f"{spelling}_" not in lowers.table:
                yield f"{spelling}_", "call_method", f"{method}_", calls, True
        else:
            name = f"{spelling.__module__}.{spelling.__name__}"
            yield name, "call_function", spelling, calls, spelling.__module__ == "_operator" and name[10] == "i"
            if isinstance(spelling, type(pytest.fixture)) and "inplace" in spelling.__code__.co_varnames:
                twins = [Call(given.args, {**given.kwargs, "inplace": True}) for given in calls]
                yield f"{name}(inplace)", "call_function", spelling, twins, True


def models(with_twins: bool) -> Iterator[Any]:
    for name, kind, target, calls, in_place in spellings():
        for number, given in enumerate(calls if with_twins or not in_place else ()):
            model, inputs = traced(kind, target, given, in_place)
            if runs(model, inputs) or not in_place:  # torch refuses in place what would change the dtype or the shape
                yield pytest.param(model, inputs, id=f"{name}-{number}")
    for kind, cases in LAYERS.items():
        for number, (options, value) in enumerate(cases):
            torch.manual_seed(0)
            yield pytest.param(nn.Sequential(kind(**options)).eval(), [value], id=f"nn.{kind.__name__}-{number}")


def runs(model: nn.Module, inputs: list[Tensor]) -> bool:
    try:
        model(*cloned(inputs))
    except RuntimeError:
        return False
    return True


def cloned(inputs: list[Tensor]) -> list[Tensor]:
    return [value.clone() for value in inputs]


def each(with_twins: bool) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("model", "inputs"), list(models(with_twins)))


def test_every_spelling_is_called() -> None:
    assert not [name for name, _, _, calls, _ in spellings() if not calls]
    assert not {spelling for spelling in lowers.table if isinstance(spelling, type)} - set(LAYERS) - ELSEWHERE


@each(with_twins=True)
@pytest.mark.parametrize(
    "typed", [pytest.param(False, marks=pytest.mark.slow, id="symbolic"), pytest.param(True, id="typed")]
)
def test_emitted_call_is_torchs(model: nn.Module, inputs: list[Tensor], typed: bool) -> None:
    module = qir.prepare_model(model, example_inputs=inputs if typed else None, importer="fx")
    assert same(module(*cloned(inputs)), model(*cloned(inputs)))


@pytest.mark.slow
@each(with_twins=False)
def test_call_means_the_same_in_onnx(model: nn.Module, inputs: list[Tensor]) -> None:
    graph = qir.import_model(model, inputs)
    if any(node.op == "GroupNormalization" for node in graph.nodes()):
        pytest.skip("ONNX infers no shape for GroupNormalization")
    verify(graph)
    assert not [node.op for node in graph.nodes() if node.definition.opaque]
    qir.Pipeline.parse("legalize-onnx").run(graph)
    returned = model(*cloned(inputs))
    results = returned if isinstance(returned, tuple) else (returned,)
    if any(result.dtype == torch.bfloat16 for result in results):
        pytest.skip("onnxruntime hands out no numpy array of bf16")
    for found, result in zip(executor(graph)([value.numpy() for value in inputs]), results, strict=True):
        expected = result.detach().numpy()
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6, strict=True)

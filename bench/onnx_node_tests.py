"""ONNX's own backend node tests, through the frontend and each of the two backends.

    python -m bench.onnx_node_tests [part of a test's name …]

A test passes through torch when the emitted module returns what the test expects. It passes through ONNX when the
emitted model, run by onnxruntime, does, and has the inputs' and outputs' names of the test's model; what onnxruntime
does not pass with the test's own model is not counted there.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

import qir
from qir.backends.onnx_qdq import emit_onnx
from qir.backends.torch_module import emit_torch
from qir.backends.torch_onnx_arrays import to_numpy, to_torch
from qir.backends.torch_onnx_runtime import OnnxOperator
from qir.frontends.onnx_model import import_onnx
from qir.graph import Graph
from qir.verify import verify

RANDOM = ("bernoulli", "training_dropout")
"""What the names of tests begin with that expect the random numbers of numpy."""


@dataclass(frozen=True)
class Result:
    """What became of one test: for each backend None, or why it did not pass."""

    name: str
    torch: str | None
    onnx: str | None
    passed_by_runtime: bool
    in_runtime: tuple[str, ...] = ()


def cases(parts: Sequence[str] = ()) -> list[Any]:
    """The tests whose names hold one of `parts`, or all."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = load_model_tests(kind="node")
    return [case for case in found if not parts or any(part in case.name for part in parts)]


def run(case: Any) -> Result:
    """One test, through the frontend and both backends."""
    try:
        graph = import_onnx(case.model)
        verify(graph)
        if qir.parse(str(graph)) != graph:
            raise AssertionError("the text reads as another graph")
    except Exception as error:
        reason = f"import: {_reason(error)}"
        return Result(case.name, reason, reason, _passes(case, case.model) is None)
    through_torch, in_runtime = _through_torch(case, graph)
    passed = _passes(case, case.model) is None
    return Result(case.name, through_torch, _through_onnx(case, graph) if passed else None, passed, in_runtime)


def _through_torch(case: Any, graph: Graph) -> tuple[str | None, tuple[str, ...]]:
    in_runtime: tuple[str, ...] = ()
    try:
        module = emit_torch(graph)
        calls = [getattr(layer, "function", None) for layer in module.modules()]
        in_runtime = tuple(call.op for call in calls if isinstance(call, OnnxOperator))
        for inputs, outputs in case.data_sets:
            with torch.no_grad():
                returned = module(*(to_torch(_plain(value, copy=True)) for value in inputs))
            _compare(case, outputs, returned if isinstance(returned, tuple) else [returned])
    except Exception as error:
        return _reason(error), in_runtime
    return None, in_runtime


def _compare(case: Any, expected: Sequence[Any], got: Sequence[Any]) -> None:
    Runner.assert_similar_outputs(
        [_plain(value) for value in expected], [to_numpy(value) for value in got], case.rtol, case.atol
    )


def _through_onnx(case: Any, graph: Graph) -> str | None:
    try:
        model = emit_onnx(graph)
    except Exception as error:
        return _reason(error)
    for ours, theirs in ((model.graph.input, case.model.graph.input), (model.graph.output, case.model.graph.output)):
        if [value.name for value in ours] != [value.name for value in theirs]:
            return "the names of inputs or outputs changed"
    return _passes(case, model)


def _passes(case: Any, model: onnx.ModelProto) -> str | None:
    """Why onnxruntime does not pass the test with `model`; None when it does."""
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        for inputs, outputs in case.data_sets:
            got = session.run(None, dict(zip(names, inputs, strict=True)))
            Runner.assert_similar_outputs(outputs, got, case.rtol, case.atol)
    except Exception as error:
        return _reason(error)
    return None


def _plain(value: Any, copy: bool = False) -> Any:
    if isinstance(value, list):
        return [_plain(item, copy) for item in value]
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else value
    return array.copy() if copy and isinstance(array, np.ndarray) else array


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:140]}"


def is_random(name: str) -> bool:
    """Whether the test expects the random numbers of numpy, which no other generator draws."""
    return name.removeprefix("test_").startswith(RANDOM)


def report(results: Sequence[Result]) -> Iterator[str]:
    """The pass rates, and the rest with reasons."""
    by_torch = [result for result in results if result.torch is None]
    of_runtime = [result for result in results if result.passed_by_runtime]
    by_onnx = [result for result in of_runtime if result.onnx is None]
    native = [result for result in by_torch if not result.in_runtime]
    yield f"through torch: {len(by_torch)} of {len(results)} ({len(by_torch) / len(results):.1%})"
    yield f"  {len(native)} of them in torch alone, the others with an operator in onnxruntime or onnx.reference"
    rate = len(by_onnx) / len(of_runtime) if of_runtime else 1.0
    yield f"through ONNX:  {len(by_onnx)} of {len(of_runtime)} that onnxruntime passes ({rate:.1%})"
    for result in results:
        if result.torch is not None:
            yield f"torch  {result.name}: {'random numbers' if is_random(result.name) else result.torch}"
        if result.passed_by_runtime and result.onnx is not None:
            yield f"onnx   {result.name}: {result.onnx}"
    counts = Counter(op for result in results for op in set(result.in_runtime))
    yield "in onnxruntime or onnx.reference: " + ", ".join(f"{op} {count}" for op, count in sorted(counts.items()))


def main() -> None:
    onnxruntime.set_default_logger_severity(4)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    for line in report([run(case) for case in cases(sys.argv[1:])]):
        print(line)


if __name__ == "__main__":
    main()

"""Whether a prepared Keras model computes what its model computes, in inference and in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from re import sub
from typing import Any

import keras
import numpy as np

from qir.errors import QirError
from qir.graph import Graph, Value
from qir.keras_signature import KerasSignature
from qir.nests import map_nested

TOLERANCE = 1e-6
"""The largest difference, in parts of the largest value, between outputs that count as equal."""


def check_equal(
    model: keras.Model,
    prepared: keras.Model,
    graph: Graph,
    samples: Any = None,
    seeded: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Raise QirError unless both return the same for the samples, and in training change their state alike.

    The samples are a nest like the inputs; those of `samples_for` where none are given. Both models keep their state.
    Inside of `seeded()`, a backend that has one state for all random draws begins with the same.
    """
    given = samples is not None
    nest = samples if given else samples_for(graph)

    def run(model: keras.Model, training: bool, spread: bool = False) -> list[np.ndarray]:
        with seeded():
            return _run(model, nest, training, spread)

    for training in (False, True):
        try:
            expected = run(model, training, graph.signature.spread)
        except Exception as error:  # whatever the model's own code raises
            what = f"the model fails on sample inputs: {type(error).__name__}: {_reason(error)}"
            advice = None if given else "give example_inputs=…, arranged as the model takes them"
            raise QirError(what, stage="prepare", help=advice) from error
        if training and not _alike(expected, run(model, training, graph.signature.spread)):
            return  # it draws from a generator that is not its own
        actual = run(prepared, training)
        if not _alike(expected, actual):
            mode = "training" if training else "inference"
            raise QirError(f"the prepared model computes something else in {mode}: {_difference(expected, actual)}",
                           stage="prepare", help="keep the layers whole that you wrote: modules_to_exclude=[…]"
                           )  # fmt: skip


def _reason(error: Exception) -> str:
    """What an error says, without what Keras adds to it."""
    lines = sub(r"\x1b\[\d*m", "", str(error)).splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.startswith("Exception encountered")]
    return said[0] if said else ""


def samples_for(graph: Graph) -> Any:
    """A batch of two for each input, arranged as they are: normal numbers; indices that every embedding has."""
    signature: KerasSignature = graph.signature
    random = np.random.default_rng(0)
    arrays = [_sample(value, keywords, random) for value, keywords in zip(graph.inputs, signature.inputs, strict=True)]
    return map_nested(signature.structure, lambda port: arrays[port.index])


def _sample(value: Value, keywords: Any, random: np.random.Generator) -> np.ndarray:
    sizes = keywords["batch_shape"]
    shape = tuple(size or (2 if axis == 0 else 32) for axis, size in enumerate(sizes))
    dtype = np.dtype(keywords["dtype"]) if keywords["dtype"] != "bfloat16" else np.dtype("float32")
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, _limit(value), shape).astype(dtype)


def _limit(value: Value) -> int:
    """One more than the largest index that all embeddings have which read the value, also through functions."""
    seen, stack, limits = {value}, [value], list[int]()
    while stack:
        for node in {use.node for use in stack.pop().uses}:
            if isinstance(node.host, keras.layers.Embedding):
                limits.append(node.host.input_dim)
            elif not isinstance(node.host, keras.Layer):
                fresh = [result for result in node.results if result not in seen]
                seen.update(fresh)
                stack += fresh
    return min(limits, default=2)


def _run(model: keras.Model, nest: Any, training: bool, spread: bool) -> list[np.ndarray]:
    """The outputs, the sum of the losses of layers, and the state as the run leaves it, which is then put back."""
    tensors = keras.tree.map_structure(keras.ops.convert_to_tensor, nest)
    with _state_kept(model):
        if not spread:
            outputs = model(tensors, training=training)
        elif isinstance(tensors, dict):
            outputs = model(**tensors, training=training)
        else:
            outputs = model(*tensors, training=training)
        flat = [np.asarray(keras.ops.convert_to_numpy(tensor)) for tensor in keras.tree.flatten(outputs)]
        flat.append(np.float32(sum(float(keras.ops.convert_to_numpy(loss)) for loss in model.losses)).reshape(1))
        sums = [np.sort(array, axis=None) for array in map(_array, model.non_trainable_variables)]
        return flat + sorted(sums, key=lambda array: (array.shape, array.tolist()))


@contextmanager
def _state_kept(model: keras.Model) -> Iterator[None]:
    before = [(variable, _array(variable).copy()) for variable in model.variables if not variable.trainable]
    try:
        yield
    finally:
        for variable, array in before:
            variable.assign(array)


def _array(variable: keras.Variable) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(variable.value))


def _alike(expected: list[np.ndarray], actual: list[np.ndarray]) -> bool:
    return len(expected) == len(actual) and all(map(_close, expected, actual))


def _close(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind not in "fc":
        return bool(np.array_equal(one, other))
    finite = np.abs(one[np.isfinite(one)])
    slack = TOLERANCE * max(1.0, float(finite.max())) if finite.size else 0.0
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=slack, equal_nan=True))


def _difference(expected: list[np.ndarray], actual: list[np.ndarray]) -> str:
    if len(expected) != len(actual):
        return f"{len(actual)} outputs and states where there were {len(expected)}"
    number = next(number for number, pair in enumerate(zip(expected, actual, strict=True)) if not _close(*pair))
    one, other = expected[number], actual[number]
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"output {number} is {other.dtype}{other.shape} and was {one.dtype}{one.shape}"
    return f"output {number} differs by up to {np.max(np.abs(one.astype(np.float64) - other)):.3g}"

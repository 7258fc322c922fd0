"""A quantizer means the same in numpy, in ONNX's reference and in onnxruntime, whatever the kind of its grid."""

from __future__ import annotations

import numpy as np
import pytest

import qir
from qir.backends.onnx_qdq import executor
from qir.encodings.encoding import Encoding
from qir.errors import QirError
from qir.evaluate import reference
from qir.graph import Graph
from qir.passes.legalize_onnx import LegalizeOnnx
from qir.types import TensorType
from qir.weights import Weight
from tests.grids import BLOCKS, KINDS, NAMES, X


def graph(encoding: Encoding, weight: bool) -> Graph:
    """Quantizes a (4, 6) matrix that is an input, or a weight."""
    made = Graph("g")
    x = made.input("x", TensorType("f32", (4, 6)))
    value = made.weight(Weight(X, ("w",))) if weight else x
    quantized = made.add("qir.Quantize", [value], {"encoding": encoding})
    made.outputs = [made.add("Add", [quantized.result, x]).result if weight else quantized.result]
    return made


@pytest.mark.parametrize("weight", [False, True], ids=["activation", "weight"])
@pytest.mark.parametrize("empty", KINDS, ids=NAMES)
def test_onnx_computes_what_the_encoding_does(empty: Encoding, weight: bool) -> None:
    encoding = empty.with_range(*empty.ranges(X))
    made = graph(encoding, weight)
    assert qir.parse(str(made)) == made
    x = 2 * X if not weight else np.zeros_like(X)
    expected = encoding.dequantize(encoding.quantize(X if weight else x))
    np.testing.assert_array_equal(reference(made)([x])[0], expected)
    LegalizeOnnx().run(made)
    np.testing.assert_array_equal(reference(made)([x])[0], expected)
    np.testing.assert_array_equal(executor(made)([x])[0], expected)


def test_blocks_of_a_tensor_of_unknown_shape_have_no_onnx() -> None:
    encoding = Encoding("i4", True, None, **BLOCKS).with_range(-np.ones((1, 3)), np.ones((1, 3)))
    made = Graph("g")
    x = made.input("x", TensorType("f32", ("N", 6)))
    made.outputs = [made.add("qir.Quantize", [x], {"encoding": encoding}).result]
    with pytest.raises(QirError, match="known shape"):
        LegalizeOnnx().run(made)

"""ONNX's own node tests pass through both backends: a sample here, all of them in `bench.onnx_node_tests`."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from onnx import parser

from bench.onnx_node_tests import Result, cases, is_random, report, run
from qir import QirError
from qir.backends.torch_module import emit_torch
from qir.backends.torch_onnx_runtime import OnnxOperator
from qir.frontends.onnx_model import import_onnx
from tests.test_onnx_bodies import LOOP

KNOWN = {
    "test_attention_4d_causal_fp16", "test_attention_4d_causal_fp16_expanded", "test_dft_inverse",
    "test_dft_inverse_opset19", "test_gather_elements_negative_indices", "test_loop16_seq_none",
}  # fmt: skip
"""The tests that do not pass through torch: rounding of other kernels, indices that torch refuses, None as sequence."""


@pytest.fixture(scope="module")
def sample() -> list[Result]:
    return [run(case) for case in cases()[::40]]


def test_a_sample_of_the_node_tests_passes_through_torch(sample: list[Result]):
    failed = {result.name for result in sample if result.torch is not None and not is_random(result.name)}
    assert failed <= KNOWN


def test_a_sample_of_the_node_tests_passes_through_onnx(sample: list[Result]):
    assert sum(result.passed_by_runtime for result in sample) > len(sample) / 2
    assert [(r.name, r.onnx) for r in sample if r.passed_by_runtime and r.onnx is not None] == []


@pytest.mark.slow
def test_all_node_tests_pass_as_often_as_they_did():
    results = [run(case) for case in cases()]
    print("\n".join(report(results)))
    assert {r.name for r in results if r.torch is not None and not is_random(r.name)} <= KNOWN
    assert [(r.name, r.onnx) for r in results if r.passed_by_runtime and r.onnx is not None] == []


HEAD = '<ir_version: 8, opset_import: ["": 17]> g '
IMAGE = HEAD + "(float[1,2,5,5] x) => (float[?,?,?,?] y) "
DIFFERENTIABLE = [
    IMAGE + '{ y = MaxPool<kernel_shape = [3, 3], auto_pad = "SAME_LOWER", strides = [2, 2]>(x) }',
    IMAGE + "{ y = AveragePool<kernel_shape = [3, 3], ceil_mode = 1, strides = [2, 2], pads = [1, 0, 0, 1]>(x) }",
    IMAGE + "{ y = LpPool<kernel_shape = [2, 2]>(x) }",
    IMAGE + '<float[4] s = {1.0, 1.0, 2.0, 1.5}> { y = Resize<mode = "cubic">(x, , s) }',
    IMAGE + '<float[4] s = {1.0, 1.0, 0.6, 0.6}> { y = Resize<mode = "linear", '
    'coordinate_transformation_mode = "align_corners">(x, , s) }',
    IMAGE + '<int64[8] p = {0, 0, 1, 2, 0, 0, 1, 0}> { y = Pad<mode = "reflect">(x, p) }',
    IMAGE + "<float[2,3,3,3] w = {" + ", ".join(f"{n % 7}.5" for n in range(54)) + "}> "
    '{ y = ConvTranspose<strides = [2, 2], auto_pad = "SAME_UPPER">(x, w) }',
    IMAGE + "<float[5] v = {1.0, 2.0, 3.0, 4.0, 5.0}> { y = LayerNormalization<axis = -1>(x, v) }",
    HEAD + "(float[2,3] x) => (float[?,?] y) <int64[2,1] i = {-1, 0}, int64[1] a = {0}, int64[2] s = {-1, 2}> "
    "{ p = Tile(x, s2) q = GatherND(p, i) y = CumSum<exclusive = 1, reverse = 1>(q, a) s2 = Abs(s) }",
    LOOP,
]


@pytest.mark.parametrize("text", DIFFERENTIABLE, ids=[f"{n}" for n in range(len(DIFFERENTIABLE))])
def test_operators_of_floats_have_the_gradient_of_their_result(text: str):
    module = emit_torch(import_onnx(parser.parse_model(text)))
    assert not any(isinstance(getattr(layer, "function", None), OnnxOperator) for layer in module.modules())
    shapes = [[dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in parser.parse_model(text).graph.input]
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.rand(shape, generator=generator, dtype=torch.float64).float() for shape in shapes]
    for tensor in inputs:
        tensor.requires_grad_()

    def total() -> torch.Tensor:
        returned = module(*inputs)
        outputs = returned if isinstance(returned, tuple) else (returned,)
        return sum((tensor * tensor).sum() for tensor in outputs if tensor.is_floating_point())

    (gradient, *_) = torch.autograd.grad(total(), inputs, allow_unused=True)
    at = (0,) * (inputs[0].ndim - 1) + (1,)
    with torch.no_grad():
        values = []
        for step in (1e-2, -1e-2):
            inputs[0][at] += step
            values.append(float(total()))
            inputs[0][at] -= step
    assert float(gradient[at]) == pytest.approx((values[0] - values[1]) / 2e-2, rel=0.05, abs=1e-2)


DEFORM = (
    HEAD.replace("17", "19") + "(float[1,1,3,3] x, float[1,1,2,2] w, float[1,8,2,2] o) => (float[1,1,2,2] y)"
    "{ h = Relu(x) [deform] y = DeformConv<kernel_shape = [2, 2]>(h, w, o) }"
)


@pytest.fixture
def deform() -> tuple[torch.nn.Module, list[torch.Tensor]]:
    module = emit_torch(import_onnx(parser.parse_model(DEFORM)))
    return module, [torch.rand(1, 1, 3, 3), torch.rand(1, 1, 2, 2), torch.zeros(1, 8, 2, 2)]


def test_an_operator_that_torch_lacks_runs_in_onnxruntime_and_says_so(deform):
    module, (x, w, offset) = deform
    torch.testing.assert_close(module(x, w, offset), torch.nn.functional.conv2d(x, w))
    assert "DeformConv(in onnxruntime, without a gradient)" in repr(module)


def test_it_says_that_it_has_no_gradient_when_one_is_asked_for(deform):
    module, (x, w, offset) = deform
    x.requires_grad_()
    with pytest.raises(QirError, match="DeformConv runs in onnxruntime, as one node of this module, and has no grad"):
        module(x, w, offset).sum().backward()
    with torch.no_grad():
        assert not module(x, w, offset).requires_grad


def test_it_is_copied_and_pickled_without_its_session(deform):
    module, inputs = deform
    expected = module(*inputs)
    operator = next(x.function for x in module.modules() if isinstance(getattr(x, "function", None), OnnxOperator))
    for other in (deepcopy(operator), pickle.loads(pickle.dumps(operator))):
        np.testing.assert_array_equal(other(*inputs).numpy(), expected.numpy())


def test_strings_and_small_integers_pass_through_a_module_as_arrays():
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[3] x, string[3] s) => (float[3] y, string[3] t)'
        "<float scale = {0.5}, int4 zero = {0}> "
        "{ q = QuantizeLinear(x, scale, zero) y = DequantizeLinear(q, scale, zero)"
        '  t = StringNormalizer<case_change_action = "UPPER">(s) }'
    )
    values, text = emit_torch(import_onnx(model))(torch.tensor([0.3, 9.0, -0.8]), np.array(["a", "b", "c"], object))
    assert values.tolist() == [0.5, 3.5, -1.0]
    assert text.tolist() == ["A", "B", "C"]

"""Each formula of the integer simulator against onnxruntime's kernel, on random grids."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.qdq import OneOperator, compared

CASES: dict[str, tuple[str, Callable[[OneOperator], None]]] = {}


def case(operator: str) -> Callable[[Callable[[OneOperator], None]], Callable[[OneOperator], None]]:
    """Register a graph that onnxruntime runs as `operator`."""

    def register(build: Callable[[OneOperator], None]) -> Callable[[OneOperator], None]:
        CASES[build.__name__] = operator, build
        return build

    return register


def conv(
    one: OneOperator, x: tuple[int, ...], weight: tuple[int, ...], zero: int | None = None, **attrs: object
) -> None:
    """A convolution, with a bias and a scale per channel where the draw says so."""
    value = one.input(*x)
    u8 = one.random.random() < 0.3
    kernel = one.weight(*weight, axis=None if u8 or one.random.random() < 0.3 else 0, dtype=np.uint8 if u8 else np.int8)
    bias = [one.bias(value, kernel, weight[0])] if one.random.random() < 0.6 else []
    made = one.graph.add("Conv", [value, kernel, *bias], {"kernel_shape": weight[2:], **attrs})
    one.write_in_range(made.result)


@case("QLinearConv")
def conv_1d(one: OneOperator) -> None:
    conv(one, (2, 8, 15), (6, 4, 3), group=2, strides=(2,), pads=(1, 0), dilations=(2,))


@case("QLinearConv")
def conv_2d(one: OneOperator) -> None:
    conv(one, (2, 6, 9, 8), (10, 6, 3, 2), pads=(1, 1, 1, 0), strides=(1, 2))


@case("QLinearConv")
def conv_2d_dilated(one: OneOperator) -> None:
    conv(one, (1, 4, 9, 9), (5, 4, 3, 3), pads=(2, 2, 2, 2), dilations=(2, 2))


@case("QLinearConv")
def conv_depthwise(one: OneOperator) -> None:
    conv(one, (2, 16, 7, 7), (16, 1, 3, 3), group=16, pads=(1, 1, 1, 1))


@case("QLinearConv")
def conv_pointwise(one: OneOperator) -> None:
    conv(one, (1, 64, 6, 6), (24, 64, 1, 1))


@case("QLinearConv")
def conv_3d(one: OneOperator) -> None:
    conv(one, (1, 3, 5, 6, 5), (4, 3, 2, 3, 3), pads=(0, 1, 1, 1, 1, 1))


@case("QLinearConv")
def conv_relu(one: OneOperator) -> None:
    value, kernel = one.input(1, 6, 8, 8), one.weight(8, 6, 3, 3)
    made = one.graph.add("Conv", [value, kernel, one.bias(value, kernel, 8)], {"kernel_shape": (3, 3)})
    one.write_in_range(one.graph.add("Relu", [made.result]).result, 0)


def gemm(one: OneOperator, transposed: int) -> None:
    x = one.input(5, 40)
    weight = one.weight(*((12, 40) if transposed else (40, 12)), axis=1 - transposed)
    bias = [one.bias(x, weight, 12)] if one.random.random() < 0.6 else []
    made = one.graph.add("Gemm", [x, weight, *bias], {"transB": transposed}).result
    if one.random.random() < 0.5:
        one.write_in_range(made)
    else:
        one.graph.outputs.append(made)


@case("QGemm")
def gemm_of_rows(one: OneOperator) -> None:
    gemm(one, 1)


@case("QGemm")
def gemm_of_columns(one: OneOperator) -> None:
    gemm(one, 0)


@case("QGemm")
def gemm_scaled(one: OneOperator) -> None:
    attrs = {"alpha": float(one.random.uniform(0.1, 3)), "beta": 0.5}
    made = one.graph.add("Gemm", [one.input(5, 40), one.weight(40, 12, axis=1)], attrs).result
    if one.random.random() < 0.5:
        one.write_in_range(made)
    else:
        one.graph.outputs.append(made)


@case("QLinearMatMul")
def matmul_with_weight(one: OneOperator) -> None:
    x = one.input(3, 5, 30)
    one.write_in_range(one.graph.add("MatMul", [x, one.weight(30, 8, axis=1)]).result)


@case("QLinearMatMul")
def matmul_of_two(one: OneOperator) -> None:
    one.write_in_range(one.graph.add("MatMul", [one.input(2, 5, 30), one.input(2, 30, 8)]).result)


@case("MatMulIntegerToFloat")
def matmul_to_float(one: OneOperator) -> None:
    operands = [one.input(2, 5, 30), one.input(2, 30, 8) if one.random.random() < 0.5 else one.weight(30, 8, axis=1)]
    one.graph.outputs.append(one.graph.add("MatMul", operands).result)


@case("QLinearAdd")
def add(one: OneOperator) -> None:
    one.write_in_range(one.graph.add("Add", [one.input(2, 4, 5, 33), one.input(2, 4, 5, 33)]).result)


@case("QLinearAdd")
def add_broadcast_relu(one: OneOperator) -> None:
    total = one.graph.add("Add", [one.input(2, 4, 5, 33), one.input(4, 1, 1)]).result
    one.write_in_range(one.graph.add("Relu", [total]).result, 0)


@case("QLinearMul")
def mul(one: OneOperator) -> None:
    one.write_in_range(one.graph.add("Mul", [one.input(2, 4, 5, 33), one.input(2, 4, 5, 33)]).result)


@case("QLinearMul")
def mul_broadcast(one: OneOperator) -> None:
    one.write_in_range(one.graph.add("Mul", [one.input(2, 4, 1, 1), one.input(2, 4, 5, 33)]).result)


@case("QLinearConcat")
def concat(one: OneOperator) -> None:
    parts = [one.input(2, size, 5, 5) for size in (3, 4, 2)]
    one.write_in_range(one.graph.add("Concat", parts, {"axis": 1}).result)


@case("QLinearSigmoid")
def sigmoid(one: OneOperator) -> None:
    one.write_in_range(one.graph.add("Sigmoid", [one.input(4, 300)]).result)


@case("QLinearLeakyRelu")
def leaky_relu(one: OneOperator) -> None:
    alpha = float(one.random.uniform(0.01, 0.3))
    one.write_in_range(one.graph.add("LeakyRelu", [one.input(4, 300)], {"alpha": alpha}).result)


@case("QLinearAveragePool")
def average_pool(one: OneOperator) -> None:
    counts = int(one.random.integers(2))
    attrs = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 1, 1, 0), "count_include_pad": counts}
    one.write_in_range(one.graph.add("AveragePool", [one.input(2, 5, 9, 8)], attrs).result)


@case("QLinearGlobalAveragePool")
def global_average_pool(one: OneOperator) -> None:
    one.write_in_range(one.graph.add("GlobalAveragePool", [one.input(3, 16, 7, 5)]).result)


@pytest.mark.parametrize("ties", [False, True], ids=["any", "ties"])
@pytest.mark.parametrize("name", CASES)
def test_formula_is_the_kernels(name: str, ties: bool) -> None:
    operator, build = CASES[name]
    seen = 0
    for seed in range(12):
        one = OneOperator(np.random.default_rng(seed), ties)
        build(one)
        operators, wrong, values = compared(one)
        assert operators == {operator}
        assert wrong == 0, f"{wrong} of {values.size} values differ for seed {seed}"
        seen += len(np.unique(values))
    assert seen > 12 * 20

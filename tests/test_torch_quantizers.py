"""Quantizer modules compute what their encodings do, and pass gradients through."""

from __future__ import annotations

from copy import deepcopy
from shutil import which

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qir.backends.torch_grids import Grid
from qir.backends.torch_module import emit_torch
from qir.backends.torch_quantizers import Quantizer, freeze_ranges, learn_ranges
from qir.encodings.encoding import Encoding, FloatEncoding, ProductEncoding
from qir.errors import QirError
from qir.graph import Graph
from qir.types import TensorType
from tests.grids import KINDS, NAMES, X

SPREAD = np.concatenate([X * 3, np.float32(-1e-6) + 0 * X])[[0, 1, 2, 4]]


def calibrated(empty: Encoding) -> Encoding:
    return empty.with_range(*empty.ranges(X))


def plain(x: Tensor, encoding: Encoding) -> Tensor:
    """The same by autograd: the rounding's gradient is the identity's, and the clamp's its own."""
    scale, zero = (torch.from_numpy(np.array(each, np.float32)) for each in encoding.broadcast(x.ndim))
    steps = x / scale
    steps = steps + (steps.round() - steps).detach()
    return (torch.clamp(steps + zero, encoding.low, encoding.high) - zero) * scale


@pytest.mark.parametrize("empty", KINDS, ids=NAMES)
def test_a_quantizer_computes_what_its_encoding_does_bit_for_bit(empty: Encoding) -> None:
    encoding = calibrated(empty)
    expected = encoding.dequantize(encoding.quantize(SPREAD))
    quantizer = Quantizer(encoding)
    for x in (torch.from_numpy(SPREAD), torch.from_numpy(SPREAD).requires_grad_()):
        assert quantizer(x).detach().numpy().tobytes() == expected.tobytes()
    back = quantizer.encoding
    assert (back.dtype, back.low if encoding.zero_point is not None else 0) == (
        encoding.dtype,
        encoding.low if encoding.zero_point is not None else 0,
    )
    np.testing.assert_array_equal(back.quantize(SPREAD), encoding.quantize(SPREAD))


@pytest.mark.parametrize(
    "empty", [e for e in KINDS if not isinstance(e, FloatEncoding)], ids=lambda e: str(KINDS.index(e))
)
def test_the_gradient_is_that_of_the_plain_expression(empty: Encoding) -> None:
    encoding = calibrated(empty)
    x, same = (torch.from_numpy(SPREAD).requires_grad_() for _ in range(2))
    weight = torch.from_numpy(X)
    (Quantizer(encoding)(x) * weight).sum().backward()
    (plain(same, encoding) * weight).sum().backward()
    assert x.grad is not None
    assert same.grad is not None
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-6, atol=0)
    assert 0 < int((x.grad == 0).sum()) < x.numel()


def test_the_gradient_of_a_float_format_is_zero_past_its_largest_number() -> None:
    encoding = FloatEncoding("f8e4m3").with_range(np.array(-1.0), np.array(1.0))
    x = torch.tensor([-1.5, -1.0, 0.3, 1.0, 1.5], requires_grad=True)
    Quantizer(encoding)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 0]


@pytest.mark.parametrize("encoding", [calibrated(Encoding("u8")), FloatEncoding("bf16")], ids=["integers", "floats"])
def test_nothing_but_the_input_is_kept_for_the_gradient(encoding: Encoding) -> None:
    kept: list[Tensor] = []
    x = torch.randn(10, 100, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        Quantizer(encoding)(x)
    assert {tensor.data_ptr() for tensor in kept if tensor.numel() > 1} == {x.data_ptr()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_rounding_is_in_float32_and_the_dtype_stays(dtype: torch.dtype) -> None:
    encoding = calibrated(Encoding("u8"))
    x = torch.from_numpy(SPREAD).to(dtype).requires_grad_()
    y = Quantizer(encoding)(x)
    expected = encoding.dequantize(encoding.quantize(x.detach().float().numpy()))
    assert torch.equal(y.detach(), torch.from_numpy(expected).to(dtype))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == dtype


def network(calibrate: bool = True) -> Graph:
    """relu(x @ w + b), every tensor rounded; the first and last share a grid."""
    graph = Graph("net")
    x = graph.input("x", TensorType("f32", (2, 3)))
    rng = np.random.default_rng(0)
    from qir.weights import Weight

    w = graph.weight(Weight(rng.normal(size=(4, 3)).astype(np.float32), ("fc.weight",), trainable=True))
    b = graph.weight(Weight(rng.normal(size=4).astype(np.float32), ("fc.bias",), trainable=True))
    act, weight = Encoding("u8"), Encoding("i8", True, 0)
    if calibrate:
        act, weight = act.with_range(np.array(-3.0), np.array(3.0)), weight.with_range(*weight.ranges(w.array))
    bias = ProductEncoding(input=act, weight=weight)

    def quantized(value: object, encoding: Encoding, path: str) -> object:
        return graph.add("qir.Quantize", [value], {"encoding": encoding}, module=path).result

    operands = [
        quantized(x, act, "x_quantizer"),
        quantized(w, weight, "fc.weight_quantizer"),
        quantized(b, bias, "fc.bias_quantizer"),
    ]
    fc = graph.add("Gemm", operands, {"transB": 1}, module="fc").result
    graph.outputs = [quantized(fc, act, "fc.output_quantizer")]
    return graph


def test_quantizers_of_one_encoding_share_its_tensors() -> None:
    module = emit_torch(network())
    first, last = module.get_submodule("x_quantizer"), module.get_submodule("fc.output_quantizer")
    bias = module.get_submodule("fc.bias_quantizer")
    for each in (module, deepcopy(module)):
        first, last = each.get_submodule("x_quantizer"), each.get_submodule("fc.output_quantizer")
        bias = each.get_submodule("fc.bias_quantizer")
        before = bias.encoding.scale
        first.set_encoding(Encoding("u8").with_range(np.array(0.0), np.array(1.0)))
        assert last.encoding.scale == np.float32(1 / 255)
        weight = each.get_submodule("fc.weight_quantizer").encoding.scale
        np.testing.assert_array_equal(bias.encoding.scale, np.float32(1 / 255) * weight)
        assert not np.array_equal(bias.encoding.scale, before)
        b = each.get_parameter("fc.bias").detach()
        np.testing.assert_array_equal(bias(b).numpy(), bias.encoding.dequantize(bias.encoding.quantize(b.numpy())))


def test_a_simulator_that_is_not_calibrated_says_so_when_it_runs() -> None:
    module, x = emit_torch(network(calibrate=False)), torch.randn(2, 3)
    with pytest.raises(QirError, match="the quantizer x_quantizer is not calibrated.*\n.*compute_encodings"):
        module(x)
    seen: list[tuple[int, ...]] = []
    for each in module.modules():
        if isinstance(each, Quantizer):
            assert not each.encoding.calibrated
            each.observer = lambda tensor: seen.append(tuple(tensor.shape))
    module(x)
    assert sorted(seen) == [(2, 3), (2, 4), (4,), (4, 3)]
    with pytest.raises(QirError, match="run compute_encodings first"):
        learn_ranges(module)


def test_a_quantizer_that_is_not_enabled_changes_nothing() -> None:
    quantizer = Quantizer(Encoding("u8"))
    quantizer.enabled = False
    x = torch.randn(3)
    assert quantizer(x) is x


def test_a_grid_keeps_its_kind() -> None:
    quantizer = Quantizer(Encoding("u8"), "here")
    with pytest.raises(QirError, match="here holds a grid of another kind"):
        quantizer.set_encoding(FloatEncoding("f16"))
    quantizer.set_encoding(calibrated(Encoding("i4", True, 0)))
    assert quantizer.encoding.dtype == "i4"


def test_a_state_dict_calibrates() -> None:
    whole, empty = emit_torch(network()), emit_torch(network(calibrate=False))
    empty.load_state_dict(whole.state_dict())
    x = torch.randn(2, 3)
    assert torch.equal(whole(x), empty(x))


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_a_state_dict_tells_whether_an_unsigned_grid_starts_at_zero(low: float) -> None:
    empty = Encoding("i8", True, unsigned=True)
    whole, other = Quantizer(empty.with_range(np.array(low), np.array(1.0))), Quantizer(empty)
    other.load_state_dict(whole.state_dict())
    assert other.encoding.dtype == ("i8" if low else "u8")
    x = torch.linspace(-2, 2, 99)
    assert torch.equal(whole(x), other(x))


@pytest.mark.parametrize("learned", [False, True])
def test_a_compiled_simulator_has_no_graph_break_and_computes_the_same(learned: bool) -> None:
    module = emit_torch(network()).train()
    if learned:
        learn_ranges(module)
    compiled = torch.compile(deepcopy(module), fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3)
    expected, y = module(x), compiled(x)
    assert torch.equal(expected, y)
    expected.sum().backward()
    y.sum().backward()
    for (name, mine), other in zip(module.named_parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad, msg=name)


@pytest.mark.slow
@pytest.mark.skipif(which("g++") is None, reason="torch.compile has no compiler here")
@pytest.mark.parametrize(
    "empty", [Encoding("u8"), Encoding("i4", True, 0), FloatEncoding("f8e4m3"), FloatEncoding("f16")]
)
def test_compiled_code_computes_the_same_bits(empty: Encoding) -> None:
    quantizer = Quantizer(calibrated(empty))
    compiled = torch.compile(quantizer, fullgraph=True)
    x = torch.from_numpy(np.tile(SPREAD, (1, 100))).requires_grad_()
    y, expected = compiled(x), quantizer(x)
    assert torch.equal(y, expected)
    gradients = (torch.autograd.grad(each, x, torch.ones_like(x))[0] for each in (y, expected))
    assert torch.equal(*gradients)


# -- learned ranges -------------------------------------------------------------------------------------------------

LEARNABLE = [Encoding("i4", True, 0), Encoding("u8"), Encoding("i8"), Encoding("u4", axis=1),
             Encoding("i4", True, 0, block_axis=1, block_size=2), Encoding("u3", True)]  # fmt: skip


@pytest.mark.parametrize("empty", LEARNABLE, ids=range(len(LEARNABLE)))
def test_learning_starts_from_the_calibrated_grid(empty: Encoding) -> None:
    encoding = calibrated(empty)
    quantizer = Quantizer(encoding)
    x = torch.from_numpy(SPREAD)
    expected = quantizer(x)
    parameters = learn_ranges(quantizer)
    assert len(parameters) == (1 if encoding.symmetric else 2)
    assert torch.equal(quantizer(x), expected)
    freeze_ranges(quantizer)
    assert not list(quantizer.parameters())
    assert torch.equal(quantizer(x), expected)
    np.testing.assert_array_equal(quantizer.encoding.scale, encoding.scale)
    np.testing.assert_array_equal(quantizer.encoding.zero_point, encoding.zero_point)


def smooth(x: Tensor, scale: Tensor, lower: Tensor | None, encoding: Encoding, around: tuple[Tensor, Tensor]) -> Tensor:
    """The quantizer in float64 without its jumps: roundings move by as much as what they round, from `around` on."""
    base_steps, base_zero = around
    low, high = encoding.low, encoding.high
    zero = base_zero if lower is None else base_zero - (lower / scale - (lower / scale).detach())
    steps = base_steps + (x / scale - (x / scale).detach())
    return (torch.clamp(steps + zero, low, high) - zero) * scale


@pytest.mark.parametrize("empty", LEARNABLE, ids=range(len(LEARNABLE)))
def test_gradients_of_ranges_are_those_of_the_plain_expression(empty: Encoding) -> None:
    encoding = calibrated(empty)
    quantizer = Quantizer(encoding)
    learn_ranges(quantizer)
    grid = quantizer.grid
    assert isinstance(grid, Grid)
    x = torch.from_numpy(SPREAD).requires_grad_()
    weight = torch.from_numpy(X)
    (quantizer(x) * weight).sum().backward()

    parts = grid._in_blocks(x.detach()).double().requires_grad_()
    scale = grid.scale.detach().double().requires_grad_()
    lower = None if grid.lower is None else grid.lower.detach().double().requires_grad_()
    spread = grid._spread(scale, parts.ndim)
    zero = torch.from_numpy(np.array(encoding.zero_point, np.float64)).reshape(grid.scale.shape)
    around = (parts.detach() / spread.detach()).round(), grid._spread(zero, parts.ndim)
    y = smooth(parts, spread, None if lower is None else grid._spread(lower, parts.ndim), encoding, around)
    (y * weight.reshape(parts.shape)).sum().backward()

    factor = (x.numel() / grid.scale.numel() * encoding.high) ** -0.5
    assert x.grad is not None
    assert parts.grad is not None
    assert scale.grad is not None
    torch.testing.assert_close(x.grad, parts.grad.reshape(x.shape).float())
    torch.testing.assert_close(grid.scale.grad, (scale.grad * factor).float(), rtol=1e-4, atol=1e-5)
    if lower is not None and grid.lower is not None:
        torch.testing.assert_close(grid.lower.grad, (lower.grad * factor).float(), rtol=1e-4, atol=1e-5)


def test_the_gradient_of_a_scale_is_its_finite_difference_where_nothing_jumps() -> None:
    encoding = Encoding("i4", True).with_range(np.array(-0.7), np.array(0.7))
    quantizer = Quantizer(encoding)
    learn_ranges(quantizer)
    outside = torch.tensor([2.0, -3.0, 5.0])  # there the output is the end of the grid, which is linear in the scale
    quantizer(outside).sum().backward()
    grid = quantizer.grid
    assert isinstance(grid, Grid)
    difference = []
    for step in (1e-3, -1e-3):
        moved = deepcopy(quantizer)
        with torch.no_grad():
            moved.grid.scale += step
            difference.append(float(moved(outside).sum()))
    slope = (difference[0] - difference[1]) / 2e-3
    assert grid.scale.grad is not None
    assert float(grid.scale.grad) == pytest.approx(slope * (3 * 7) ** -0.5, rel=1e-3)


def test_a_scale_stays_positive_whatever_a_step_does() -> None:
    quantizer = Quantizer(calibrated(Encoding("i8", True)))
    (scale,) = learn_ranges(quantizer)
    with torch.no_grad():
        scale.neg_()
    assert quantizer.encoding.scale is not None
    assert quantizer.encoding.scale > 0
    quantizer(torch.randn(3)).sum().backward()
    with torch.no_grad():
        scale.zero_()
    assert quantizer.encoding.scale > 0
    assert torch.isfinite(quantizer(torch.randn(3))).all()


def test_training_ranges_lowers_the_error() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 256)
    quantizer = Quantizer(Encoding("i3", True).with_range(np.array(-4.0), np.array(4.0)))
    optimizer = torch.optim.SGD(learn_ranges(quantizer), lr=0.02)
    errors = []
    for _ in range(60):
        error = (quantizer(x) - x).square().sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert errors[-1] < 0.5 * errors[0]
    after = quantizer.encoding
    freeze_ranges(quantizer)
    np.testing.assert_array_equal(quantizer.encoding.scale, after.scale)


def test_float_formats_and_kept_quantizers_are_not_learned() -> None:
    layers = nn.Sequential(
        Quantizer(FloatEncoding("bf16")), Quantizer(calibrated(Encoding("u8"))), Quantizer(calibrated(Encoding("u8")))
    )
    assert len(learn_ranges(layers, keep={"1"})) == 2
    assert not list(layers[0].parameters())
    assert not list(layers[1].parameters())


def test_learned_ranges_reach_the_bias() -> None:
    module = emit_torch(network())
    learn_ranges(module)
    with torch.no_grad():
        module.get_parameter("x_quantizer.grid.scale").mul_(2)
    x, weight, bias = (module.get_submodule(f"{path}_quantizer").encoding for path in ("x", "fc.weight", "fc.bias"))
    assert isinstance(bias, ProductEncoding)
    np.testing.assert_array_equal(bias.scale, x.scale * weight.scale)

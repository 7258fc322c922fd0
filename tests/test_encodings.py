"""One arithmetic: a grid of qir is that of ONNX's QuantizeLinear and DequantizeLinear, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding, ProductEncoding
from qir.errors import QirError
from qir.types import DTYPES, storage

ONNX_GRIDS = ["u8", "i8", "u16", "i16", "u4", "i4"]
FLOATS = st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 0.5, 1.5, -0.5, -2.5, 3e38, -3e38, 1e-40])


def reference(op: str, encoding: Encoding, array: np.ndarray) -> np.ndarray:
    """What onnx.reference makes of `array`."""
    node = helper.make_node(op, ["x", "s", "z"], ["y"], **({} if encoding.axis is None else {"axis": encoding.axis}))
    assert encoding.scale is not None
    types = [TensorProto.FLOAT if op == "QuantizeLinear" else DTYPES[encoding.dtype], 1, DTYPES[encoding.dtype]]
    inputs = [helper.make_tensor_value_info(name, type, None) for name, type in zip("xsz", types, strict=True)]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    feeds = {"x": array, "s": encoding.scale, "z": encoding.zero_point}
    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])


@st.composite
def grids(draw: st.DrawFn, dtypes: list[str] = ONNX_GRIDS, narrow: bool = False) -> Encoding:
    axis = draw(st.none() | st.integers(0, 1))
    empty = Encoding(draw(st.sampled_from(dtypes)), draw(st.booleans()), axis, narrow and draw(st.booleans()))
    ends = [draw(FLOATS if axis is None else st.lists(FLOATS, min_size=3, max_size=3)) for _ in range(2)]
    return empty.with_range(np.minimum(*map(np.array, ends)), np.maximum(*map(np.array, ends)))


def tensors(elements: Any = FLOATS) -> st.SearchStrategy[np.ndarray]:
    return st.lists(elements, min_size=9, max_size=9).map(lambda x: np.array(x, np.float32).reshape(3, 3))


@settings(max_examples=150, deadline=None)
@given(grids(), tensors())
def test_quantize_and_dequantize_are_those_of_onnx_bit_for_bit(encoding: Encoding, x: np.ndarray) -> None:
    scale, _ = encoding.broadcast(2)
    assume(np.all(np.abs(x / np.float64(1) / scale) < 2**30))  # onnx.reference casts to i32 before it saturates
    with np.errstate(over="ignore"):
        q = encoding.quantize(x)
        expected = reference("QuantizeLinear", encoding, x)
    assert q.dtype == expected.dtype
    assert q.tobytes() == expected.tobytes()
    with np.errstate(over="ignore"):
        back = encoding.dequantize(q)
        wanted = reference("DequantizeLinear", encoding, q)
    assert back.dtype == wanted.dtype == np.float32
    assert back.tobytes() == wanted.tobytes()


@settings(max_examples=200, deadline=None)
@given(grids([*ONNX_GRIDS, "i32", "u2", "i2"], narrow=True), tensors())
def test_quantizing_a_point_of_the_grid_changes_nothing(encoding: Encoding, x: np.ndarray) -> None:
    assume(encoding.dtype != "i32")
    with np.errstate(over="ignore"):
        point = encoding.dequantize(encoding.quantize(x))
    assume(np.all(np.isfinite(point)))
    np.testing.assert_array_equal(encoding.dequantize(encoding.quantize(point)), point)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([*ONNX_GRIDS, "i32"]), st.booleans(), st.booleans(), FLOATS, FLOATS)
def test_with_range_covers_the_range_and_zero(dtype: str, symmetric: bool, narrow: bool, a: float, b: float) -> None:
    low, high = min(a, b, 0.0), max(a, b, 0.0)
    encoding = Encoding(dtype, symmetric, None, narrow).with_range(np.array(a).clip(max=b), np.array(b).clip(min=a))
    assert encoding.scale is not None
    assert encoding.zero_point is not None
    scale, zero = float(encoding.scale), int(encoding.zero_point)
    assert scale > 0
    assert encoding.low <= zero <= encoding.high
    assert float(encoding.dequantize(np.array(zero))) == 0.0
    # The scale is rounded to float32 and the zero point to an integer: half a step, and a relative 1e-6.
    slack = (0 if symmetric else 0.5 * scale) + 1e-6 * (high - low) + 1e-38
    assert scale * (encoding.low - zero) <= low + slack
    assert scale * (encoding.high - zero) >= high - slack


@given(st.sampled_from([*ONNX_GRIDS, "i32"]), st.booleans())
def test_a_symmetric_grid_has_its_zero_in_the_middle(dtype: str, narrow: bool) -> None:
    encoding = Encoding(dtype, True, None, narrow).with_range(np.array(-1.0), np.array(3.0))
    assert encoding.zero_point is not None
    assert int(encoding.zero_point) == (0 if dtype[0] == "i" else 2 ** (int(dtype[1:]) - 1))


def test_an_empty_range_has_the_scale_one() -> None:
    encoding = Encoding("i8").with_range(np.zeros(2), np.zeros(2))
    assert encoding.scale is not None
    assert encoding.scale.tolist() == [1.0, 1.0]


def test_a_narrow_grid_has_the_negative_of_each_point() -> None:
    encoding = Encoding("i8", symmetric=True, narrow=True).with_range(np.array(-1.0), np.array(1.0))
    ends = encoding.dequantize(encoding.quantize(np.array([-1.0, 1.0], np.float32)))
    assert (encoding.low, encoding.high, ends.tolist()) == (-127, 127, [-1.0, 1.0])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["u8", "i8", "u4", "i16"]), st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_within_leaves_no_point_outside_the_limits(dtype: str, low: float, high: float) -> None:
    encoding = Encoding(dtype).with_range(np.array(-low), np.array(high))
    assert encoding.scale is not None
    assert encoding.zero_point is not None
    assume(encoding.low < int(encoding.zero_point) < encoding.high)
    # Limits within a thousandth of the grid's ends are the clamp that the grid was made for.
    ends = encoding.dequantize(np.array([encoding.low, encoding.high]))
    limits = (float(np.float32(ends[0] * 0.9995)), float(np.float32(ends[1] * 0.9995)))
    inside = encoding.within(*limits)
    assert inside.scale is not None
    points = inside.dequantize(np.arange(inside.low, inside.high + 1))
    assert limits[0] <= points.min()
    assert points.max() <= limits[1]
    assert float(inside.scale) >= 0.999 * float(encoding.scale)


def test_values_past_the_end_of_the_grid_saturate() -> None:
    x = np.array([3e38, -3e38, np.inf, -np.inf], np.float32)
    for dtype, ends in (("u8", [255, 0, 255, 0]), ("i8", [127, -128, 127, -128])):
        assert Encoding(dtype).with_range(np.array(-1e-30), np.array(1e-30)).quantize(x).tolist() == ends


def test_i32_saturates_at_its_own_ends() -> None:
    q = (
        Encoding("i32", symmetric=True)
        .with_range(np.array(-1.0), np.array(1.0))
        .quantize(np.array([9, -9], np.float32))
    )
    assert q.tolist() == [2**31 - 1, -(2**31)]


def test_within_leaves_a_grid_alone_that_was_not_made_for_the_limit() -> None:
    encoding = Encoding("u8").with_range(np.array(-1.0), np.array(6.0))
    assert encoding.scale is not None
    for limits in ((None, 3.0), (-0.5, None), (None, -1.0), (2.0, None)):
        kept = encoding.within(*limits)
        assert kept.scale is not None
        np.testing.assert_array_equal(kept.scale, encoding.scale)


def test_within_treats_each_channel_on_its_own() -> None:
    top = np.array([5.9999995, 3.0, 6.0])
    encoding = Encoding("i8", True, 0).with_range(-top, top)
    assert encoding.scale is not None
    inside = encoding.within(None, float(np.float32(5.9999995)))
    assert inside.scale is not None
    assert inside.scale[1] == encoding.scale[1]
    assert np.all(inside.scale * np.float32(127) <= np.float32(5.9999995))


def test_within_keeps_a_grid_that_is_inside() -> None:
    encoding = Encoding("u8").with_range(np.array(0.0), np.array(6.0))
    assert encoding.scale is not None
    wide = encoding.within(None, 7.0)
    assert wide.scale is not None
    np.testing.assert_array_equal(wide.scale, encoding.scale)


def test_the_grid_of_a_bias_is_the_product_of_its_factors() -> None:
    x = Encoding("u8").with_range(np.array(0.0), np.array(1.0))
    weight = Encoding("i8", True, 0).with_range(np.array([-1.0, -2.0]), np.array([1.0, 2.0]))
    bias = ProductEncoding(input=x, weight=weight)
    assert bias.scale is not None
    assert x.scale is not None
    assert weight.scale is not None
    np.testing.assert_array_equal(bias.scale, x.scale * weight.scale)
    assert (bias.dtype, bias.axis, bias.calibrated) == ("i32", 0, True)
    assert not ProductEncoding(input=Encoding("u8"), weight=weight).calibrated


def test_a_grid_that_is_not_calibrated_says_so() -> None:
    with pytest.raises(ValueError, match="not calibrated"):
        Encoding("u8").quantize(np.zeros(1, np.float32))


# -- any width, unsigned, blocks, low power, float formats ----------------------------------------------------------


def points(encoding: Encoding) -> np.ndarray:
    """Every value on the grid."""
    return encoding.dequantize(np.arange(encoding.low, encoding.high + 1))


@pytest.mark.parametrize("bits", range(2, 17))
@pytest.mark.parametrize("sign", ["i", "u"])
def test_a_grid_may_have_2_to_16_bits(sign: str, bits: int) -> None:
    encoding = Encoding(f"{sign}{bits}").with_range(np.array(-1.0), np.array(3.0))
    assert encoding.bits == bits
    assert len(points(encoding)) == 2**bits
    x = np.linspace(-2, 4, 999, dtype=np.float32)
    nearest = np.abs(points(encoding)[:, None] - x).min(0)
    np.testing.assert_allclose(np.abs(encoding.dequantize(encoding.quantize(x)) - x), nearest, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("grid", "held"),
    [("i2", "i4"), ("u3", "u4"), ("i5", "i8"), ("u8", "u8"), ("i9", "i16"), ("u16", "u16"), ("i32", "i32")],
)
def test_points_are_held_in_the_next_wider_dtype(grid: str, held: str) -> None:
    encoding = Encoding(grid).with_range(np.array(-1.0), np.array(1.0))
    assert storage(grid) == held
    assert encoding.zero_point is not None
    assert encoding.zero_point.dtype == encoding.quantize(np.zeros(1, np.float32)).dtype
    assert encoding.quantize(np.array([-9.0, 9.0], np.float32)).astype(int).tolist() == [encoding.low, encoding.high]


@pytest.mark.parametrize("dtype", ["i1", "u17", "f32", "i", "int8"])
def test_a_grid_of_another_width_is_refused(dtype: str) -> None:
    with pytest.raises(QirError, match="not an integer dtype"):
        Encoding(dtype)


@given(st.integers(2, 16), st.floats(0.01, 1e4), st.floats(0.01, 1e4))
def test_symmetric_scales_are_the_range_over_the_steps(bits: int, low: float, high: float) -> None:
    ends = np.array(-low), np.array(high)
    top = 2 ** (bits - 1) - 1
    plain = Encoding(f"i{bits}", True).with_range(*ends)
    narrow = Encoding(f"i{bits}", True, None, True).with_range(*ends)
    assert (plain.low, narrow.low, plain.high, narrow.high) == (-top - 1, -top, top, top)
    assert plain.scale == np.float32(max(high / top, low / (top + 1)))
    assert narrow.scale == np.float32(max(high, low) / top)


def test_an_unsigned_symmetric_grid_starts_at_zero_when_its_data_does() -> None:
    empty = Encoding("i8", True, unsigned=True)
    positive = empty.with_range(np.array(0.0), np.array(25.5))
    assert (positive.dtype, positive.low, positive.high) == ("u8", 0, 255)
    assert positive.scale == np.float32(0.1)
    assert positive.zero_point == 0
    negative = positive.with_range(np.array(-12.7), np.array(12.7))
    assert (negative.dtype, negative.low, negative.high) == ("i8", -128, 127)
    assert negative.scale == np.float32(0.1)
    channels = Encoding("i4", True, 0, unsigned=True).with_range(np.array([0.0, -1.0]), np.ones(2))
    assert channels.dtype == "i4"


def test_a_narrow_unsigned_grid_uses_all_of_its_integers() -> None:
    grid = Encoding("i8", True, None, True, unsigned=True).with_range(np.array(0.0), np.array(1.0))
    assert (grid.low, grid.high, grid.with_range(np.array(-1.0), np.array(1.0)).low) == (0, 255, -127)


def test_what_no_grid_can_be_is_refused() -> None:
    for message, make in (
        ("only a symmetric grid", lambda: Encoding("u8", unsigned=True)),
        ("both an axis and a size", lambda: Encoding("i4", True, block_axis=1)),
        ("another axis than the channels", lambda: Encoding("i4", True, 1, block_axis=1, block_size=2)),
        ("positive size", lambda: Encoding("i4", True, block_axis=1, block_size=0)),
        ("no float grid", lambda: FloatEncoding("f32")),
        ("has blocks", lambda: LowPowerEncoding("i4", True, 0)),
        ("two integer grids", lambda: ProductEncoding(input=FloatEncoding("f16"), weight=Encoding("i8"))),
    ):
        with pytest.raises(QirError, match=message):
            make()


def test_blocks_have_a_scale_each() -> None:
    x = np.arange(48, dtype=np.float32).reshape(2, 6, 4)
    empty = Encoding("i4", True, 0, block_axis=1, block_size=3)
    low, high = empty.ranges(x)
    assert low.shape == high.shape == empty.scale_shape(x.shape) == (2, 2, 1)
    encoding = empty.with_range(low, high)
    for channel in range(2):
        for block in range(2):
            part = x[channel, 3 * block : 3 * block + 3]
            alone = Encoding("i4", True).with_range(part.min(), part.max())
            mine = encoding.dequantize(encoding.quantize(x))[channel, 3 * block : 3 * block + 3]
            np.testing.assert_array_equal(mine, alone.dequantize(alone.quantize(part)))


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(QirError, match="do not divide axis 1"):
        Encoding("i4", True, 0, block_axis=1, block_size=4).scale_shape((2, 6))


@pytest.mark.parametrize("axis", [0, 1, 2, None])
def test_rows_hold_the_elements_of_one_scale(axis: int | None) -> None:
    x = np.arange(24).reshape(2, 3, 4)
    encoding = Encoding("i8", True, axis)
    others = tuple(a for a in range(3) if a != axis)
    np.testing.assert_array_equal(
        encoding.rows(x).max(1).reshape(encoding.scale_shape(x.shape)), x.max(others if axis is not None else None)
    )


@settings(deadline=None)
@given(st.integers(1, 8), st.lists(st.floats(0, 100, width=32), min_size=8, max_size=8))
def test_low_power_scales_are_integers_times_one_float(scale_bits: int, tops: list[float]) -> None:
    empty = LowPowerEncoding("i4", True, 0, block_axis=1, block_size=2, scale_bits=scale_bits)
    high = np.array(tops).reshape(2, 4)
    encoding = empty.with_range(-high, high)
    assert isinstance(encoding, LowPowerEncoding)
    scale, channel, block = encoding.scale, encoding.channel_scale, encoding.block_scale
    assert scale is not None
    assert channel is not None
    assert block is not None
    assert channel.shape == (2, 1)
    np.testing.assert_array_equal(scale, block.astype(np.float32) * channel)
    assert 1 <= block.min() <= block.max() == 2**scale_bits
    used = high.max(1) > 1e-30
    np.testing.assert_allclose(channel[used, 0] * 2**scale_bits, high.max(1)[used] / 7, rtol=1e-6)
    wanted = np.clip(np.rint((high / 7) / channel.astype(np.float64)), 1, 2**scale_bits)[used]
    assert np.all(np.abs(block[used] - wanted) <= 1)


@pytest.mark.parametrize(("dtype", "top", "step"), [("f8e4m3", 448.0, 2.0**-9), ("f8e5m2", 57344.0, 2.0**-16)])
def test_float_grids_of_8_bits_scale_and_saturate(dtype: str, top: float, step: float) -> None:
    empty = FloatEncoding(dtype)
    assert (empty.bits, empty.top, empty.calibrated) == (8, top, False)
    encoding = empty.with_range(np.array(-2 * top), np.array(top))
    assert encoding.scale == 2.0
    x = np.array([2 * top, 1e30, np.inf, -np.inf, 2 * step, step * 0.9, 3 * step, 2.0, 2.0 + 2.0**-20], np.float32)
    expected = [2 * top, 2 * top, 2 * top, -2 * top, 2 * step, 0.0, 4 * step, 2.0, 2.0]
    np.testing.assert_array_equal(encoding.dequantize(encoding.quantize(x)), np.array(expected, np.float32))


@settings(deadline=None)
@given(st.sampled_from(["f16", "bf16"]), st.floats(width=32, allow_nan=False))
def test_float_grids_of_16_bits_are_casts(dtype: str, x: float) -> None:
    import torch

    encoding = FloatEncoding(dtype)
    assert encoding.calibrated
    assert encoding.with_range(np.array(-1.0), np.array(1.0)) is encoding
    cast = torch.tensor(x).to({"f16": torch.float16, "bf16": torch.bfloat16}[dtype]).float().numpy()
    np.testing.assert_array_equal(encoding.dequantize(encoding.quantize(np.array(x, np.float32))), cast)


def test_channels_and_blocks_of_8_bit_floats_have_scales() -> None:
    x = np.array([[1.0, 2.0, 3.0, 4.0], [8.0, 8.0, 0.0, 0.0]], np.float32)
    for empty, shape in (
        (FloatEncoding("f8e4m3", axis=0), (2,)),
        (FloatEncoding("f8e4m3", axis=0, block_axis=1, block_size=2), (2, 2)),
    ):
        encoding = empty.with_range(*empty.ranges(x))
        assert encoding.scale is not None
        assert encoding.scale.shape == shape
        assert np.abs(encoding.dequantize(encoding.quantize(x)) - x).max() <= 0.25

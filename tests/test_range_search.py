"""Calibration methods: closed forms, and oracles that try every candidate on real values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qir.calibration import range_search
from qir.calibration.observers import Histogram, MinMax
from qir.calibration.range_search import CLIPPING_PENALTY, TOP, Method, candidates, divergence, noise_in_bins
from qir.encodings.encoding import Encoding, FloatEncoding, LowPowerEncoding
from qir.errors import QirError

RNG = np.random.default_rng(7)
MAX = float(np.finfo(np.float32).max)
SHAPES: dict[str, Callable[[int], np.ndarray]] = {
    "normal": lambda n: RNG.standard_normal(n),
    "relu": lambda n: np.maximum(RNG.standard_normal(n), 0),
    "laplace": lambda n: RNG.laplace(size=n),
    "outliers": lambda n: RNG.standard_t(3, size=n),
    "small negatives": lambda n: np.where((x := 3 * RNG.standard_normal(n)) > 0, x, -0.17 * np.exp(-((x + 0.75) ** 2))),
    "negative": lambda n: -np.abs(RNG.standard_normal(n)) - 1,
}
GRIDS = {
    "u8": Encoding("u8"),
    "i8": Encoding("i8", symmetric=True),
    "strict i8": Encoding("i8", symmetric=True, narrow=True),
    "unsigned": Encoding("u8", symmetric=True, unsigned=True),
    "i4": Encoding("i4", symmetric=True),
    "u4": Encoding("u4"),
    "i2": Encoding("i2", symmetric=True),
    "u16": Encoding("u16"),
}


def data(name: str, count: int = 20_000) -> np.ndarray:
    return SHAPES[name](count).astype(np.float32)


def histogram(grid: Encoding, x: np.ndarray) -> Histogram:
    made = Histogram(grid)
    made.see(x)
    return made


def cost(grid: Encoding, x: np.ndarray, low: float, high: float, penalty: float) -> float:
    """The squared error of real values, clipping errors `penalty` times: element by element, by the grid's own code."""
    fitted = grid.with_range(np.array(low), np.array(high))
    assert fitted.scale is not None
    assert fitted.zero_point is not None
    error = (fitted.dequantize(fitted.quantize(x)).astype(np.float64) - x) ** 2
    ends = (np.array([fitted.low, fitted.high]) - float(fitted.zero_point)) * float(fitted.scale)
    beyond = (x - np.clip(x, *ends)) ** 2
    return float(np.mean(error + (penalty - 1) * beyond))


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("method", "penalty"), [("sqnr", CLIPPING_PENALTY), ("mse", 1.0)])
def test_no_candidate_is_better_on_the_values_themselves(shape: str, grid: str, method: str, penalty: float) -> None:
    x = data(shape)
    seen = histogram(GRIDS[grid], x)
    low, high = Method(method).range(seen)
    assert seen.exponent is not None
    width = 2.0 ** float(seen.exponent[0])
    lows, highs = (ends * width for ends in candidates(GRIDS[grid].symmetric, bool(x.min() < 0), bool(x.max() > 0)))
    lows, highs = np.maximum(lows, -np.abs(x).max()), np.minimum(highs, np.abs(x).max())
    tried = {(float(a), float(b)) for a, b in zip(lows, highs, strict=True)} | {(float(x.min()), float(x.max()))}
    some = sorted(tried)[:: max(1, len(tried) // 40)]
    best = min(cost(GRIDS[grid], x, *ends, penalty) for ends in some)
    assert cost(GRIDS[grid], x, float(low), float(high), penalty) <= best * 1.03


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("penalty", [1.0, CLIPPING_PENALTY])
def test_the_noise_of_a_bin_is_that_of_values_all_over_it(grid: str, penalty: float) -> None:
    fitted = GRIDS[grid].with_range(np.array([0.0 if grid == "unsigned" else -700.0]), np.array([300.0]))
    noise = noise_in_bins(fitted, penalty)[:, 0]
    inside = (np.arange(2000) + 0.5) / 2000
    for bin in (0, 1, 200, TOP - 1, TOP, TOP + 9, 2 * TOP - 1):
        x = (bin - TOP + inside).astype(np.float32)
        plain = Encoding(fitted.dtype, fitted.symmetric, narrow=fitted.narrow, unsigned=fitted.unsigned)
        plain = Encoding(**{**vars(plain), "scale": fitted.scale[0], "zero_point": fitted.zero_point[0]})  # type: ignore[index]
        error = (plain.dequantize(plain.quantize(x)).astype(np.float64) - x) ** 2
        ends = (np.array([plain.low, plain.high]) - float(plain.zero_point)) * float(plain.scale)
        beyond = (x - np.clip(x, *ends)) ** 2
        assert noise[bin] == pytest.approx(float(np.mean(error + (penalty - 1) * beyond)), rel=0.01, abs=1e-5)


def test_fine_steps_make_a_twelfth_of_a_step_squared() -> None:
    fitted = Encoding("u16").with_range(np.array([0.0]), np.array([float(TOP)]))
    assert fitted.scale is not None
    np.testing.assert_allclose(noise_in_bins(fitted, 1.0)[TOP:-1, 0], float(fitted.scale[0]) ** 2 / 12, rtol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("percent", [100.0, 99.99, 99.0, 90.0, 50.0])
def test_percentiles_are_interpolated_quantiles(shape: str, percent: float) -> None:
    """AIMET takes left edges of bins, so that the top is a bin too low (reference §7.3, 46)."""
    x = data(shape)
    seen = histogram(Encoding("u8"), x)
    low, high = Method("percentile", percent).range(seen)
    assert seen.exponent is not None
    width = 2.0 ** float(seen.exponent[0])
    # A quantile between two values far apart is anywhere between them.
    below, above = (np.quantile(x, (100 - percent) / 100, method=method) for method in ("lower", "higher"))
    assert below - width <= low <= above + width
    below, above = (np.quantile(x, percent / 100, method=method) for method in ("lower", "higher"))
    assert below - width <= high <= above + width
    if percent == 100:
        assert (float(low), float(high)) == (float(x.min()), float(x.max()))


def test_the_99th_percentile_of_an_even_ramp_is_99_hundredths() -> None:
    low, high = Method("percentile", 99.0).range(
        histogram(Encoding("u8"), np.linspace(0, 1, 100_000, dtype=np.float32))
    )
    assert (float(low), float(high)) == pytest.approx((0.01, 0.99), abs=1e-4)


def test_entropy_cuts_outliers_and_keeps_even_data() -> None:
    x = data("normal")
    x[0] = 1000
    for grid in (Encoding("i8", symmetric=True), Encoding("u8")):
        _, high = Method("entropy").range(histogram(grid, x))
        assert 2 < float(high) < 200
        even = np.linspace(-1, 1, 50_000, dtype=np.float32)
        low, high = Method("entropy").range(histogram(grid, even))
        assert (float(low), float(high)) == (-1.0, 1.0)


def test_divergence_is_the_sum_over_bins() -> None:
    """Six bins cut to four, on two levels: by hand."""
    magnitudes = np.array([[4.0, 2.0, 0.0, 6.0, 1.0, 3.0]])
    p = np.array([4, 2, 0, 10]) / 16
    q = np.array([3, 3, 0, 6]) / 12
    expected = sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
    assert divergence(magnitudes, 4, np.array([2]))[0] == pytest.approx(expected)


@pytest.mark.parametrize("method", ["min-max", "sqnr", "percentile", "mse", "entropy"])
@settings(max_examples=40, deadline=None)
@example([-1.0])
@given(st.lists(st.floats(-MAX, MAX, width=32) | st.sampled_from([0.0, 1e-45, -1e-30, 1.0]), min_size=1, max_size=20))
def test_a_range_lies_within_what_was_seen(method: str, values: list[float]) -> None:
    x = np.array(values, np.float32)
    for grid in (GRIDS["u8"], GRIDS["i8"], GRIDS["unsigned"], GRIDS["u16"]):
        low, high = Method(method).range(histogram(grid, x))
        assert -np.abs(x).max() <= low <= high <= np.abs(x).max()


@pytest.mark.parametrize("method", ["sqnr", "percentile", "mse", "entropy"])
def test_rows_are_searched_as_if_alone(method: str) -> None:
    shapes = ["normal", "laplace", "outliers", "small negatives"]
    x = np.stack([data(shape, 3000) * 10.0**power for power, shape in enumerate(shapes)]).astype(np.float32)
    for grid in (Encoding("i8", symmetric=True, axis=0), Encoding("u4", axis=0)):
        low, high = Method(method).range(histogram(grid, x))
        for row in range(len(x)):
            alone = histogram(Encoding(grid.dtype, grid.symmetric), x[row])
            assert (low[row], high[row]) == Method(method).range(alone)


def of_weights(method: str, weights: list[np.ndarray], grid: Encoding) -> list[np.ndarray]:
    """The ranges of weights that are known as a whole."""
    ranges = Method(method).ranges(Method(method).observers(weights, grid))
    return [np.concatenate(ends).reshape(grid.scale_shape(weights[0].shape)) for ends in zip(*ranges, strict=True)]


@pytest.mark.parametrize("method", ["min-max", "sqnr", "percentile", "mse", "entropy"])
def test_observers_are_searched_as_if_alone(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on like grids together, a few rows at a time, whatever the signs of what they saw."""
    monkeypatch.setattr(range_search, "ROWS", 5)
    seen: list[MinMax] = [histogram(grid, data(shape, 3000)) for grid in GRIDS.values() for shape in SHAPES]
    seen.append(histogram(FloatEncoding("f8e4m3"), data("normal", 100)))
    seen.append(histogram(Encoding("u8", axis=0), np.outer(np.arange(1, 9), data("relu", 50)).astype(np.float32)))
    seen.append(histogram(GRIDS["u8"], data("laplace")))
    seen.append(MinMax(GRIDS["u8"]))
    seen[-1].see(data("normal", 100))
    for each, ends in zip(seen, Method(method).ranges(seen), strict=True):
        together, alone = (each.encoding.with_range(*found) for found in (ends, Method(method).range(each)))
        np.testing.assert_array_equal(together.scale, alone.scale)
        np.testing.assert_array_equal(together.zero_point, alone.zero_point)


def test_weights_in_slabs_have_the_ranges_of_their_rows() -> None:
    weight = RNG.standard_normal((2500, 24)).astype(np.float32)
    grid = Encoding("i4", symmetric=True, axis=0, block_axis=1, block_size=8)
    low, high = of_weights("mse", [weight], grid)
    assert low.shape == high.shape == (2500, 3)
    alone = of_weights("mse", [weight[2000:2001]], grid)
    assert (low[2000].tolist(), high[2000].tolist()) == (alone[0][0].tolist(), alone[1][0].tolist())
    low_power = LowPowerEncoding("i4", symmetric=True, axis=0, block_axis=1, block_size=8)
    np.testing.assert_array_equal(of_weights("mse", [weight], low_power)[0], low)


def test_one_negative_weight_makes_every_row_signed() -> None:
    weight = np.abs(RNG.standard_normal((1100, 64))).astype(np.float32)
    weight[1050, 0] = -1
    unsigned = Encoding("u4", symmetric=True, axis=0, unsigned=True)
    signed = Encoding("i4", symmetric=True, axis=0)
    found = [grid.with_range(*of_weights("mse", [weight], grid)) for grid in (unsigned, signed)]
    assert [grid.dtype for grid in found] == ["i4", "i4"]
    assert found[0].scale is not None
    assert found[1].scale is not None
    np.testing.assert_array_equal(found[0].scale, found[1].scale)


def test_float_grids_cover_what_was_seen() -> None:
    x = data("outliers")
    for method in ("sqnr", "percentile", "entropy"):
        low, high = Method(method).range(histogram(FloatEncoding("f8e4m3"), x))
        assert (float(low), float(high)) == (float(x.min()), float(x.max()))
        assert of_weights(method, [x], FloatEncoding("f8e4m3"))[1] == x.max()


def test_searching_beats_min_max_on_tails() -> None:
    x = data("laplace")
    for grid in (GRIDS["i4"], GRIDS["u4"], GRIDS["i8"]):
        ends = [Method(name).range(histogram(grid, x)) for name in ("min-max", "sqnr", "mse")]
        noise = [cost(grid, x, float(low), float(high), 1.0) for low, high in ends]
        assert noise[0] > noise[1] >= noise[2]


def test_an_unknown_method_and_percentile_are_refused() -> None:
    with pytest.raises(QirError, match="no calibration method 'magic'"):
        Method("magic")
    for percent in (49.9, 100.1, float("nan")):
        with pytest.raises(QirError, match="percentile"):
            Method("percentile", percent)


def test_weights_are_not_cut_at_percentiles() -> None:
    assert [Method(name).for_weights.name for name in ("percentile", "entropy", "mse")] == ["min-max", "min-max", "mse"]


def test_min_max_needs_no_counts() -> None:
    assert not Method().needs_counts
    seen = MinMax(Encoding("u8"))
    seen.see(np.array([-1.0, 2.0], np.float32))
    assert [float(end) for end in Method().range(seen)] == [-1.0, 2.0]

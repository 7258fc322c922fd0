"""Observers: the state depends on the values that were seen alone, and is the same for numpy and torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qir.backends.torch_observers import TorchHistogram, TorchMinMax
from qir.calibration.observers import BINS, NARROWEST, ZERO_BIN, Histogram, MinMax, NonFiniteError, coarser, exponents
from qir.encodings.encoding import Encoding

MAX = float(np.finfo(np.float32).max)
VALUES = st.floats(-MAX, MAX, width=32) | st.sampled_from(
    [0.0, -0.0, 1.0, -1.0, 0.5, 1024.0, -1024.0, 1e-45, -1e-45, 1e-38, 2.0**-126, MAX, -MAX, 2.0**127, 3e-5]
)
GRIDS = {
    "per tensor": Encoding("u8"),
    "channels first": Encoding("i8", symmetric=True, axis=0),
    "channels second": Encoding("i8", symmetric=True, axis=1),
    "blocks": Encoding("i4", symmetric=True, axis=0, block_axis=1, block_size=2),
    "blocks of the whole": Encoding("i4", symmetric=True, block_axis=0, block_size=3),
}


def tensors(rows: int = 3) -> st.SearchStrategy[np.ndarray]:
    """Batches of `rows` samples of 4 channels."""
    row = st.lists(VALUES, min_size=4, max_size=4)
    return st.lists(row, min_size=rows, max_size=rows).map(lambda rows: np.array(rows, np.float32))


def same(first: MinMax, second: MinMax) -> None:
    left, right = first.state(), second.state()
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], name)
        assert array.dtype == right[name].dtype


def seen(observer: MinMax, arrays: Sequence[np.ndarray]) -> MinMax:
    for array in arrays:
        observer.see(array)
    return observer


def brute_force(values: np.ndarray) -> dict[int, int]:
    """The bins of a vector by exact arithmetic on Python's integers, by k."""
    exponent = int(exponents(values.min(keepdims=True), values.max(keepdims=True))[0])
    counts: dict[int, int] = {}
    for value in values:
        over, under = float(value).as_integer_ratio()
        over, under = (over, under << exponent) if exponent >= 0 else (over << -exponent, under)
        k = -(-over // under)
        counts[k] = counts.get(k, 0) + 1
    return counts


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=40))
def test_a_bin_holds_what_exact_arithmetic_puts_there(values: list[float]) -> None:
    array = np.array(values, np.float32)
    histogram = Histogram(Encoding("u8"))
    histogram.see(array)
    assert histogram.counts is not None
    filled = {int(index) - ZERO_BIN: int(histogram.counts[0, index]) for index in np.flatnonzero(histogram.counts)}
    assert filled == brute_force(array)


@settings(max_examples=150, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=5), st.sampled_from(list(GRIDS)))
def test_order_and_merging_change_nothing(batches: list[np.ndarray], name: str) -> None:
    grid = GRIDS[name]
    one = seen(Histogram(grid), batches)
    same(one, seen(Histogram(grid), batches[::-1]))
    workers = [seen(Histogram(grid), batches[worker::2]) for worker in range(2)]
    merged = Histogram(grid)
    for worker in workers[::-1]:
        merged.merge(worker)
    same(one, merged)


@settings(max_examples=100, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=60), st.integers(1, 17), st.randoms(use_true_random=False))
def test_any_split_of_shuffled_values_has_the_same_state(values: list[float], parts: int, random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one = seen(Histogram(Encoding("u8")), [np.array(values, np.float32)])
    same(one, seen(Histogram(Encoding("u8")), np.array_split(np.array(shuffled, np.float32), parts)))


@settings(max_examples=100, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3), st.sampled_from(list(GRIDS)))
def test_torch_and_numpy_agree(batches: list[np.ndarray], name: str) -> None:
    for numpy_kind, torch_kind in ((MinMax, TorchMinMax), (Histogram, TorchHistogram)):
        ours, theirs = numpy_kind(GRIDS[name]), torch_kind(GRIDS[name])
        for batch in batches:
            ours.see(batch)
            theirs.see(torch.from_numpy(batch))
        same(ours, theirs)


@pytest.mark.parametrize("layout", ["channels last", "transposed", "bfloat16", "float64", "large"])
def test_torch_and_numpy_agree_on_any_layout(layout: str) -> None:
    x = torch.randn(4, 6, 40, 40, generator=torch.Generator().manual_seed(3)).relu()
    match layout:
        case "channels last":
            x = x.to(memory_format=torch.channels_last)
        case "transposed":
            x = x.transpose(0, 3)
        case "bfloat16" | "float64":
            x = x.to(getattr(torch, layout))
        case "large":
            x = x.repeat(8, 1, 2, 1)
    for grid in (Encoding("u8"), Encoding("i8", symmetric=True, axis=1)):
        ours, theirs = Histogram(grid), TorchHistogram(grid)
        ours.see(x.float().contiguous().numpy() if x.dtype is torch.bfloat16 else x.contiguous().numpy())
        theirs.see(x)
        same(ours, theirs)


def test_every_value_is_counted_once() -> None:
    x = np.random.default_rng(1).standard_normal((5, 7, 11)).astype(np.float32)
    histogram = seen(Histogram(Encoding("i8", symmetric=True, axis=1)), [x, 1000 * x, np.zeros_like(x)])
    assert isinstance(histogram, Histogram)
    assert histogram.counts is not None
    assert histogram.counts.sum(1).tolist() == [3 * 55] * 7


def test_channels_keep_their_masses_when_the_range_grows() -> None:
    """AIMET merges channels that are not the first axis flat, and mixes them (reference §7.3, 45)."""
    rng = np.random.default_rng(0)
    first, second = rng.uniform(0, 1, (256, 3)), rng.uniform(0, [1, 10, 100], (256, 3))
    histogram = seen(Histogram(Encoding("u8", axis=1)), [first.astype(np.float32), second.astype(np.float32)])
    assert isinstance(histogram, Histogram)
    assert histogram.counts is not None
    assert histogram.counts.sum(1).tolist() == [512, 512, 512]
    assert histogram.low is not None
    assert histogram.high is not None
    np.testing.assert_array_equal(histogram.high, second.astype(np.float32).max(0))


def test_later_outliers_are_counted() -> None:
    """AIMET drops what lies outside the range of the first batch (42)."""
    histogram = seen(Histogram(Encoding("u8")), [np.ones(10, np.float32), np.full(10, 1e6, np.float32)])
    assert isinstance(histogram, Histogram)
    assert histogram.counts is not None
    assert histogram.counts.sum() == 20
    assert histogram.high is not None
    assert histogram.high.tolist() == [1e6]


def test_elements_weigh_the_same_in_batches_of_any_size() -> None:
    """AIMET weighs batches, so that a last small batch counts too much (43)."""
    x = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    same(seen(Histogram(Encoding("u8")), [x]), seen(Histogram(Encoding("u8")), [x[:999], x[999:]]))


@pytest.mark.parametrize("kind", [MinMax, Histogram])
@pytest.mark.parametrize(("value", "text"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_what_is_not_finite_is_refused_and_leaves_no_trace(kind: type[MinMax], value: float, text: str) -> None:
    """AIMET's min-max becomes NaN silently (47)."""
    observer, x = kind(Encoding("u8", axis=0)), np.ones((2, 3), np.float32)
    observer.see(x)
    before = {name: array.copy() for name, array in observer.state().items()}
    x[1, 2] = value
    with pytest.raises(NonFiniteError, match=text):
        observer.see(x)
    same(observer, kind.from_state(observer.encoding, before))


def test_torch_refuses_what_is_not_finite() -> None:
    for kind in (TorchMinMax, TorchHistogram):
        with pytest.raises(NonFiniteError, match="NaN"):
            kind(Encoding("u8")).see(torch.tensor([1.0, float("nan"), 2.0]))
        with pytest.raises(NonFiniteError, match="infinite"):
            kind(Encoding("u8")).see(torch.tensor([1e300], dtype=torch.float64))


def test_nothing_seen_is_no_state() -> None:
    for kind in (MinMax, Histogram):
        observer = kind(Encoding("u8"))
        observer.see(np.zeros((0, 3), np.float32))
        assert observer.state() == {}
        other = kind(Encoding("u8"))
        other.see(np.ones(3, np.float32))
        other.merge(observer)
        observer.merge(other)
        same(observer, other)
        assert kind.from_state(observer.encoding, {}).state() == {}


@given(st.lists(st.integers(0, 30), min_size=2, max_size=2))
def test_coarser_bins_hold_the_same_values(steps: list[int]) -> None:
    counts = np.random.default_rng(4).integers(0, 9, (2, BINS))
    wide = coarser(counts, np.array(steps))
    for row, step in enumerate(steps):
        k = np.arange(BINS) - ZERO_BIN
        expected = np.bincount(-(-k // 2**step) + ZERO_BIN, counts[row], minlength=BINS)
        np.testing.assert_array_equal(wide[row], expected)


def test_zeros_are_alone_in_their_bin_when_nothing_is_negative() -> None:
    x = np.array([0, 0, 0, 1e-45, 1e-20, 1], np.float32)
    histogram = seen(Histogram(Encoding("u8")), [x])
    assert isinstance(histogram, Histogram)
    assert histogram.counts is not None
    assert histogram.counts[0, ZERO_BIN] == 3


def test_zeros_have_the_narrowest_bins() -> None:
    assert exponents(np.zeros(1, np.float32), np.zeros(1, np.float32)).tolist() == [NARROWEST]

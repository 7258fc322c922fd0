"""Arithmetic of sizes: text, values, and nothing that is executed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qir.errors import QirError
from qir.size_expressions import evaluate, holds, names_in, parsed, written

SIZES = {"n": 6, "m": 4}


@pytest.mark.parametrize(("text", "value"), [
    ("n", 6), ("2*n + 1", 13), ("n % 4 == 2", True), ("Eq(Mod(n, 2), 0)", True), ("FloorDiv(n, 4)", 1),
    ("-n < 3 <= m", True),
    ("Max(n, m) - Min(n, m)", 2), ("not n == m and (n > 1 or m > 10)", True), ("(n - m)**2", 4), ("Ne(n, m)", True),
])  # fmt: skip
def test_the_value_is_that_of_the_text(text: str, value: Any) -> None:
    assert evaluate(parsed(text), SIZES) == value


@pytest.mark.parametrize("text", ["", "n n", "__import__('os')", "n.real", "f(n)", "[n]", "lambda: n", "'n'", "1.5",
                                  "n if m else 1", "(" * 5000])  # fmt: skip
def test_what_is_no_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(QirError, match="no arithmetic of sizes"):
        parsed(text)


LEAVES = st.one_of(st.sampled_from(sorted(SIZES)), st.integers(0, 9))
BINARY = st.sampled_from(["add", "sub", "mult", "eq", "noteq", "lt", "lte", "gt", "gte", "and", "or", "min", "max"])


@settings(deadline=None)
@given(
    st.recursive(
        LEAVES, lambda part: st.one_of(st.tuples(BINARY, part, part), st.tuples(st.just("not"), part)), max_leaves=8
    )
)
def test_text_round_trips(expression: Any) -> None:
    again = parsed(written(expression))
    assert evaluate(again, SIZES) == evaluate(expression, SIZES)
    assert names_in(again) == names_in(expression) <= SIZES.keys()


def test_a_condition_that_divides_by_nothing_does_not_hold() -> None:
    assert holds(parsed("n % m == 2"), SIZES)
    assert not holds(parsed("n % (m - 4) == 2"), SIZES)

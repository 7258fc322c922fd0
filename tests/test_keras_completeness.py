"""Every public layer and function of Keras is lowered, which a call shows, or listed with the reason why it is not."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import keras
import pytest

from qir.frontends.keras_opaque import ACTIVATIONS as OPAQUE_ACTIVATIONS
from qir.frontends.keras_opaque import LAYERS as OPAQUE_LAYERS
from qir.frontends.keras_opaque import OPS as OPAQUE_OPS
from qir.frontends.keras_table import lowers
from tests.lowered_keras_layers import LAYERS
from tests.lowered_keras_ops import ACTIVATIONS, CALLS

INSIDE = {"LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells"}
"""Layers that are called by others, whose calls show them."""


def functions() -> Iterator[str]:
    """The names of `keras.ops`, those of `keras.ops.image` behind it."""
    for name in dir(keras.ops):
        if name[0] != "_" and callable(getattr(keras.ops, name)):
            yield name
    yield from (f"image.{name}" for name in dir(keras.ops.image) if name[0] != "_")


def layers() -> Iterator[tuple[str, type]]:
    for name in dir(keras.layers):
        kind = getattr(keras.layers, name)
        if isinstance(kind, type):
            yield name, kind


def called(kind: type) -> bool:
    """Whether a layer is called in the tests, by this name or another of its class."""
    return any(cases or name in INSIDE for name, cases in LAYERS.items() if getattr(keras.layers, name) is kind)


def test_every_function_is_lowered_or_opaque_for_a_reason() -> None:
    assert not [name for name in functions() if name not in CALLS and name not in OPAQUE_OPS]


def test_every_activation_is_lowered_or_opaque_for_a_reason() -> None:
    names = [name for name in dir(keras.activations) if name[0] != "_"]
    assert not [name for name in names if name not in ACTIVATIONS and name not in OPAQUE_ACTIVATIONS]


def test_every_layer_is_lowered_or_opaque_for_a_reason() -> None:
    assert not [name for name, kind in layers() if not called(kind) and name not in OPAQUE_LAYERS]


@pytest.mark.parametrize(("lowered", "opaque"), [(CALLS, OPAQUE_OPS), (ACTIVATIONS, OPAQUE_ACTIVATIONS),
                                                 (LAYERS, OPAQUE_LAYERS)])  # fmt: skip
def test_nothing_is_both(lowered: dict[str, Any], opaque: dict[str, str]) -> None:
    assert not set(lowered) & set(opaque)


def test_no_entry_is_stale() -> None:
    assert not set(CALLS) - set(functions())
    assert not set(OPAQUE_OPS) - set(functions())
    assert not {*LAYERS, *OPAQUE_LAYERS} - {name for name, _ in layers()}


def test_every_lowering_is_called() -> None:
    shown = {attrgetter(name)(keras.ops) for name in CALLS} | {getattr(keras.activations, name) for name in ACTIVATIONS}
    shown |= {kind for _, kind in layers() if called(kind)}
    outside = {getattr(keras.ops, name) for name in ("arange", "empty_like", "imag", "ones", "zeros")}
    assert not set(lowers.table) - shown - outside

"""The loops of Keras's recurrent layers, followed step by step, and tensors whose size is known when a model runs.

Keras leaves both to its backends, which can not run on symbolic tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import keras
from keras.src import backend
from keras.src import ops as inner_ops

from qir.frontends.keras_patches import replaced
from qir.frontends.keras_sizes import Size, holds_size


class _Filled(keras.Operation):  # type: ignore[misc]
    """A tensor that holds one number, of a shape with sizes that are computed."""

    def __init__(self, shape: Sequence[Any], dtype: Any = None) -> None:
        super().__init__()
        self.shape, self.dtype = tuple(shape), keras.backend.standardize_dtype(dtype or keras.config.floatx())

    def call(self, *sizes: Any) -> Any:
        """Never called: the operation is recorded."""
        raise NotImplementedError

    def compute_output_spec(self, *sizes: Any) -> keras.KerasTensor:
        """What is known about the result."""
        return keras.KerasTensor([None if isinstance(size, Size) else size for size in self.shape], self.dtype)


class Zeros(_Filled):
    """`keras.ops.zeros`."""


class Ones(_Filled):
    """`keras.ops.ones`."""


def _filled(kind: type[_Filled], plain: Callable[..., Any], shape: Any, dtype: Any = None) -> Any:
    sizes = shape if isinstance(shape, list | tuple) else (shape,)
    if not holds_size(sizes):
        return plain(shape, dtype)
    return kind(sizes, dtype).symbolic_call(*(size for size in sizes if isinstance(size, Size)))


def rnn(step_function: Callable[..., Any], inputs: Any, initial_states: Any, go_backwards: bool = False,
        mask: Any = None, constants: Any = None, unroll: bool = False, input_length: Any = None,
        time_major: bool = False, zero_output_for_mask: bool = False,
        return_all_outputs: bool = True) -> tuple[Any, Any, Any]:  # fmt: skip
    """The last output, all outputs and the last states of a loop over the second axis, written step by step.

    Where the mask is false, the output and the states of the step before stay. Raises NotImplementedError where the
    number of steps is not known.
    """
    flat = keras.tree.flatten(inputs)
    count = flat[0].shape[1]
    if not isinstance(count, int) or time_major:
        raise NotImplementedError("a loop of unknown length")
    places = range(count - 1, -1, -1) if go_backwards else range(count)
    states, outputs, kept = tuple(initial_states), list[Any](), list[Any]()
    for place in places:
        step = keras.tree.map_structure(lambda tensor, place=place: tensor[:, place], inputs)
        output, new = step_function(step, (*states, *(constants or ())))
        if mask is not None:
            shown = keras.ops.cast(mask[:, place], "bool")
            before = outputs[-1] if outputs else keras.ops.zeros_like(output)
            output = _where(shown, output, before)
            pairs = zip(keras.tree.flatten(new), keras.tree.flatten(states), strict=True)
            new = keras.tree.pack_sequence_as(new, [_where(shown, *pair) for pair in pairs])
            kept.append(shown)
        states = tuple(new)
        outputs.append(output)
    if mask is not None and zero_output_for_mask:
        outputs = [_where(shown, output, keras.ops.zeros_like(output))
                   for shown, output in zip(kept, outputs, strict=True)]  # fmt: skip
    every = keras.ops.stack(outputs if return_all_outputs else outputs[-1:], axis=1)
    return outputs[-1], every, states


def _where(mask: Any, x: Any, other: Any) -> Any:
    """Row by row, one tensor or the other."""
    while len(mask.shape) < len(x.shape):
        mask = keras.ops.expand_dims(mask, -1)
    return keras.ops.where(mask, x, other)


def _not_whole(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError("a loop as one kernel of a backend")


class _Followed:
    """A module of Keras's backend, whose functions are those of `keras.ops` for symbolic tensors."""

    def __init__(self, module: Any, symbolic: Any) -> None:
        self._module, self._symbolic = module, symbolic

    def __getattr__(self, name: str) -> Any:
        plain, symbolic = getattr(self._module, name), getattr(self._symbolic, name, None)
        if symbolic is None or isinstance(plain, type):
            return plain
        vars(self)[name] = _either(plain, symbolic)
        return vars(self)[name]


def _either(plain: Callable[..., Any], symbolic: Callable[..., Any]) -> Callable[..., Any]:
    """The symbolic function where a tensor is symbolic; the plain one where the symbolic one itself calls it."""
    running: list[None] = []

    def called(*args: Any, **kwargs: Any) -> Any:
        leaves = keras.tree.flatten((args, kwargs))
        if running or not any(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
            return plain(*args, **kwargs)
        running.append(None)
        try:
            return symbolic(*args, **kwargs)
        finally:
            running.pop()

    return called


@contextmanager
def followed_loops() -> Iterator[None]:
    """Inside, loops of Keras's layers are written step by step, and calls of its backend are those of `keras.ops`."""
    own = import_module(f"keras.src.backend.{keras.backend.backend()}")
    with ExitStack() as stack:
        for home in dict.fromkeys((backend, own)):
            stack.enter_context(replaced(home, "rnn", rnn))
            for name in ("lstm", "gru", "bidirectional_lstm", "bidirectional_gru"):
                if hasattr(home, name):
                    stack.enter_context(replaced(home, name, _not_whole))
            for name in ("cast", "convert_to_tensor", "shape"):
                plain, symbolic = getattr(home, name), getattr(keras.ops, name)
                stack.enter_context(replaced(home, name, _either(plain, symbolic)))
            for name, symbolic in (("core", keras.ops), ("numpy", keras.ops), ("nn", keras.ops), ("math", keras.ops),
                                   ("linalg", keras.ops), ("image", keras.ops.image)):  # fmt: skip
                stack.enter_context(replaced(home, name, _Followed(getattr(home, name), symbolic)))
        for home in (keras.ops, inner_ops):
            stack.enter_context(replaced(home, "zeros", partial(_filled, Zeros, home.zeros)))
            stack.enter_context(replaced(home, "ones", partial(_filled, Ones, home.ones)))
        yield

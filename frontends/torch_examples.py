"""The types that the values of a traced model have on its example inputs, where no lowering tells."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode

from qir.errors import QirError
from qir.frontends.torch_attention import InTraining
from qir.frontends.torch_lowerings import DTYPES, type_of_tensor
from qir.frontends.torch_program import quiet
from qir.frontends.torch_state import untouched
from qir.frontends.torch_trace import Trace
from qir.frontends.torch_training import TrainingFlag
from qir.graph import Value
from qir.types import UNKNOWN, Dim, ScalarType, SequenceType, TensorType, Type

Recorded = dict[str, Any]


@dataclass
class ExampleTypes:
    """Runs the traced calls on the examples, once, when it is first asked; on tensors without memory if it can."""

    traced: Trace
    inputs: Sequence[Any] | None
    batch: str | None

    def of_input(self, number: int) -> Type:
        """The type of an argument of forward: axis 0 is the batch, where all examples agree on its size."""
        if self.inputs is None:
            return UNKNOWN
        if number >= len(self.inputs):
            raise QirError(f"the model has more inputs than the {len(self.inputs)} example inputs", stage="import")
        example = self.inputs[number]
        if not isinstance(example, torch.Tensor):
            return UNKNOWN
        type = type_of_tensor(example)
        if self._length is not None and type.shape:
            return TensorType(type.dtype, (self.batch, *type.shape[1:]))
        return type

    def tell(self, node: fx.Node, result: Any) -> None:
        """Give the results of a call whose types are not known those that they have on the examples.

        Sizes that are not the same for a batch of another length are no numbers. A list that an opaque call returns
        gets the type of its first item.
        """
        if self.inputs is not None and any(map(_is_unknown, _leaves(result))):
            once, twice = self._runs
            _tell(result, self._agreed(once.get(node.name), twice.get(node.name)))

    @cached_property
    def _length(self) -> int | None:
        """The length of the batch; None when it is no symbol."""
        sizes = {x.shape[0] for x in self.inputs or () if isinstance(x, torch.Tensor) and x.ndim}
        return sizes.pop() if self.batch is not None and len(sizes) == 1 else None

    @cached_property
    def _runs(self) -> tuple[Recorded, Recorded]:
        """What the calls return for the examples, and for a batch that is twice as long."""
        assert self.inputs is not None
        with untouched(self.traced.root), quiet(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            for module in self.traced.root.modules():
                module.training = False
            once = self._recorded(self.inputs, True) or self._recorded(self.inputs, False)
            return once, once if self._length is None else self._recorded(list(map(_doubled, self.inputs)), True)

    def _recorded(self, inputs: Sequence[Any], fake: bool) -> Recorded:
        recorder = _Recorder(self.traced)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext() as mode:
                recorder.run(*(_given(example, mode) for example in inputs))
        except Exception:  # whatever a call raises on a tensor without memory, or for another batch
            return {} if fake else recorder.types
        return recorder.types

    def _agreed(self, once: Any, twice: Any) -> Any:
        """What both runs say."""
        if isinstance(once, list):
            others = twice if isinstance(twice, list) and len(twice) == len(once) else [None] * len(once)
            return [self._agreed(a, b) for a, b in zip(once, others, strict=True)]
        if not isinstance(once, TensorType) or once.shape is None:
            return once or UNKNOWN
        sizes: Sequence[Dim] = [None] * len(once.shape)
        if isinstance(twice, TensorType) and twice.shape is not None and len(twice.shape) == len(once.shape):
            sizes = twice.shape
        return TensorType(once.dtype, tuple(map(self._size, once.shape, sizes)))

    def _size(self, once: Any, twice: Any) -> Dim:
        if once == twice:
            return once  # type: ignore[no-any-return]
        return self.batch if once == self._length and twice == 2 * once else None


class _Recorder(fx.Interpreter):
    """Notes the type of what each call returns."""

    def __init__(self, traced: Trace) -> None:
        super().__init__(traced.root, graph=traced.graph)
        self.traced = traced
        self.types: Recorded = {}

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        self.types[n.name] = _type_of(result)
        return result

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self.traced.attribute(str(target))

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> Any:
        return fx.node.map_aggregate(
            super().fetch_args_kwargs_from_env(n),
            lambda leaf: 0 if isinstance(leaf, TrainingFlag | InTraining) else leaf,
        )


def _leaves(result: Any) -> list[Value]:
    if isinstance(result, list | tuple):
        return [leaf for item in result for leaf in _leaves(item)]
    return [result] if isinstance(result, Value) else []


def _is_unknown(value: Value) -> bool:
    return isinstance(value.type, TensorType) and (value.type.dtype is None or value.type.shape is None)


def _tell(result: Any, types: Any) -> None:
    if isinstance(result, list | tuple) and isinstance(types, list) and len(result) == len(types):
        for item, type in zip(result, types, strict=True):
            _tell(item, type)
    elif isinstance(result, Value) and _is_unknown(result) and types != UNKNOWN:
        while isinstance(types, list) and types:
            types = SequenceType(types[0]) if not isinstance(types[0], list) else types[0]
        result.type = types or UNKNOWN


def _given(example: Any, mode: Any) -> Any:
    if mode is not None and isinstance(example, torch.Tensor):
        return mode.from_tensor(example)
    return deepcopy(example)


def _doubled(example: Any) -> Any:
    return torch.cat([example, example]) if isinstance(example, torch.Tensor) and example.ndim else example


def _type_of(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return TensorType(DTYPES.get(value.dtype), tuple(map(int, value.shape)))
    if isinstance(value, bool | int | float):
        return ScalarType(type(value).__name__)
    if isinstance(value, tuple | list):
        return [_type_of(item) for item in value]
    return UNKNOWN

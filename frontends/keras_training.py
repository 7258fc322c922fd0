"""What a Keras model does in training, beside what it does in inference, as one list of calls."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

import keras
import numpy as np

from qir.errors import QirError
from qir.frontends.keras_sizes import Size
from qir.frontends.keras_trace import Call, Trace


class TrainingChoice(keras.Operation):  # type: ignore[misc]
    """One of two tensors: the first in inference, the second in training."""

    def call(self, inference: Any, training: Any) -> Any:
        """Only layers know the mode; the operation stands for one."""
        raise NotImplementedError

    def compute_output_spec(self, inference: Any, training: Any) -> keras.KerasTensor:
        """That of the tensor in inference."""
        return keras.KerasTensor(inference.shape, inference.dtype)


def joined(inference: Trace, training: Trace) -> Trace:
    """The calls of both runs of one model on the same symbolic inputs, those that are in both once.

    The argument `training` is left out of calls that follow the mode, and kept where it is the same in both runs. Where
    a tensor depends on the mode, a `TrainingChoice` takes one of the two.
    """
    return _Joining(inference, training).run()


@dataclass
class _Joining:
    inference: Trace
    training: Trace
    calls: list[Call] = field(default_factory=list)
    same: dict[int, Any] = field(default_factory=dict)
    """The tensor of the run in inference for one of the run in training, by identity."""

    def __post_init__(self) -> None:
        self.held = {**self.inference.held, **self.training.held}
        self.choices: dict[tuple[int, int], keras.KerasTensor] = {}

    def run(self) -> Trace:
        before, now = self.inference.calls, self.training.calls
        matcher = SequenceMatcher(None, list(map(_key, before)), list(map(_key, now)), autojunk=False)
        for kind, first, end, start, stop in matcher.get_opcodes():
            if kind == "equal":
                for call, other in zip(before[first:end], now[start:stop], strict=True):
                    self._both(call, other)
            else:
                self.calls += before[first:end]
                for call in now[start:stop]:
                    args, kwargs = keras.tree.map_structure(lambda x: self.same.get(id(x), x), (call.args, call.kwargs))
                    self.calls.append(replace(call, args=args, kwargs=_without_mode(kwargs)))
        outputs = self._choice(None, self.inference.outputs, self.training.outputs)
        return replace(self.inference, outputs=outputs, calls=self.calls, held=self.held)

    def _both(self, call: Call, other: Call) -> None:
        """Note a call of both runs."""
        kwargs, others = _without_mode(call.kwargs), _without_mode(other.kwargs)
        args, kwargs = self._choice(call, (call.args, kwargs), (other.args, others))
        modes = call.kwargs.get("training"), other.kwargs.get("training")
        if modes in ((True, True), (False, False)):
            kwargs = {**kwargs, "training": modes[0]}
        self.calls.append(replace(call, args=args, kwargs=kwargs))
        for mine, its in zip(keras.tree.flatten(call.outputs), keras.tree.flatten(other.outputs), strict=True):
            self.same[id(its)] = mine

    def _choice(self, call: Call | None, inference: Any, training: Any) -> Any:
        """The nest of what both runs have, with a choice where they differ. Raises QirError where there can be none."""
        flat, other = keras.tree.flatten(inference), keras.tree.flatten(training)
        if len(flat) != len(other):
            raise _differs(call)
        chosen = [self._one(call, mine, its) for mine, its in zip(flat, other, strict=True)]
        return keras.tree.pack_sequence_as(inference, chosen)

    def _one(self, call: Call | None, mine: Any, its: Any) -> Any:
        its = self.same.get(id(its), its)
        if self._equal(mine, its):
            return mine
        if not (isinstance(mine, keras.KerasTensor) and isinstance(its, keras.KerasTensor)) or isinstance(mine, Size):
            raise _differs(call)
        if (id(mine), id(its)) not in self.choices:
            operation = TrainingChoice()
            result = operation.compute_output_spec(mine, its)
            self.choices[id(mine), id(its)] = result
            where = call or self.calls[-1]
            self.calls.append(Call(operation, (mine, its), {}, result, "", where.loc))
        return self.choices[id(mine), id(its)]

    def _equal(self, mine: Any, its: Any) -> bool:
        if mine is its:
            return True
        if isinstance(mine, Size) and isinstance(its, Size):
            pairs = zip(mine.operands, its.operands, strict=False)
            same = all(self._equal(one, self.same.get(id(two), two)) for one, two in pairs)
            return same and (mine.op, mine.attrs) == (its.op, its.attrs)
        if id(mine) in self.held and id(its) in self.held:
            one, two = self.held[id(mine)], self.held[id(its)]
            return one is two or (isinstance(one, np.ndarray) and isinstance(two, np.ndarray)
                                  and np.array_equal(one, two))  # fmt: skip
        symbolic = isinstance(mine, keras.KerasTensor) or isinstance(its, keras.KerasTensor)
        return not symbolic and _plain(mine) == _plain(its)


def _plain(value: Any) -> Any:
    """A value that `==` compares to one truth."""
    return keras.ops.convert_to_numpy(value).tolist() if keras.ops.is_tensor(value) else value


def _key(call: Call) -> Any:
    """What two calls have in common that may be one and the same."""
    if isinstance(call.operation, keras.Layer):
        return id(call.operation)
    fixed = {name: value for name, value in vars(call.operation).items() if name != "name" and name[0] != "_"}
    return type(call.operation), call.loc, str({name: value for name, value in fixed.items() if _is_plain(value)})


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or (
        isinstance(value, list | tuple) and all(map(_is_plain, value)))  # fmt: skip


def _without_mode(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "training"}


def _differs(call: Call | None) -> QirError:
    where = "" if call is None else f" of {call.operation.name}"
    return QirError(
        f"an argument{where} is another in training than in inference, or in every run", stage="import",
        snippet=None if call is None else f"{call.loc}\n    {call.loc.source.strip()}",
        help="keep the layer that makes this call whole: modules_to_exclude=[…]",
    )  # fmt: skip

"""How a torch model takes its arguments, as a graph keeps it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qir.attributes import Port
from qir.errors import QirError
from qir.size_expressions import Expression

_PLAIN = (bool, int, float, str)  # torch.compile can not follow `bool | int`


@dataclass(frozen=True)
class Fixed:
    """An argument that is a constant: a Python number, a string or None."""

    name: str
    value: Any

    def check(self, given: Any) -> None:
        """Raise QirError unless an argument is this constant."""
        plain = given is None or isinstance(given, _PLAIN)
        if not plain or given != self.value:
            what = repr(given) if plain else f"a {type(given).__name__}"
            raise QirError(f"{self.name} is {self.value!r} in the prepared model, and was given {what}",
                           help=f"prepare it with example_inputs, or concrete_args={{{self.name!r}: …}}")  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """What holds of the inputs: for each its sizes, expressions over names, and conditions over the same names.

    An input that is a number has a name in the place of its sizes, and one of which nothing is known has None.
    """

    of_inputs: tuple[tuple[Expression, ...] | str | None, ...]
    conditions: tuple[Expression, ...] = ()


@dataclass(frozen=True)
class TorchSignature:
    """The leaves of the arguments in order: a `Port` for each input of the graph, and every other is `Fixed`.

    `spec` is torch's tree of the positional and keyword arguments, and `names` are the parameters of forward; without
    it each leaf is a parameter, and those that are fixed after the last input may be left out. `sizes` are there for a
    graph that was recorded of a run, and say what sizes it is right for.
    """

    leaves: tuple[Port | Fixed, ...]
    names: tuple[str, ...] = ()
    spec: Any = None
    sizes: Sizes | None = None

    @property
    def fixed(self) -> dict[int, Fixed]:
        """The constants by the numbers of their leaves."""
        return {number: leaf for number, leaf in enumerate(self.leaves) if isinstance(leaf, Fixed)}

    def inputs(self, arguments: Sequence[Any]) -> Sequence[Any]:
        """The arguments that are inputs of the graph. Raises QirError where a constant is not what it is fixed to."""
        if not self.fixed or len(arguments) <= len(self.leaves) - len(self.fixed):
            return arguments
        for number, leaf in self.fixed.items():
            if number < len(arguments):
                leaf.check(arguments[number])
        return [argument for number, argument in enumerate(arguments) if number not in self.fixed]

    def named_inputs(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The same of arguments by name."""
        fixed = {leaf.name: leaf for leaf in self.fixed.values()}
        for name in fixed.keys() & arguments.keys():
            fixed[name].check(arguments[name])
        return {name: argument for name, argument in arguments.items() if name not in fixed}

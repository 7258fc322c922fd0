"""Arithmetic of the sizes of tensors, as text in Python's or sympy's form: `2*n`, `n % 2 == 0`, `Eq(Mod(n, 2), 0)`.

A parsed expression is a number, the name of a size, or a tuple of an operator's name and its parts.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from qir.errors import QirError

Expression = Any

_OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mult": operator.mul, "div": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "usub": operator.neg,
    "eq": operator.eq, "noteq": operator.ne, "lt": operator.lt, "lte": operator.le, "gt": operator.gt,
    "gte": operator.ge, "not": operator.not_, "and": lambda *parts: all(parts), "or": lambda *parts: any(parts),
    "min": min, "max": max,
}  # fmt: skip
_FUNCTIONS = {
    "Mod": "mod", "PythonMod": "mod", "FloorDiv": "floordiv", "CleanDiv": "floordiv", "IntTrueDiv": "div", "Min": "min",
    "Max": "max", "min": "min", "max": "max", "Eq": "eq", "Ne": "noteq", "And": "and", "Or": "or", "Not": "not",
}  # fmt: skip
_SIGNS = {
    "add": "+", "sub": "-", "mult": "*", "div": "/", "floordiv": "//", "mod": "%", "pow": "**", "eq": "==",
    "noteq": "!=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "and": "and", "or": "or",
}  # fmt: skip
_PREFIXES = {"usub": "-", "not": "not "}


def parsed(text: str) -> Expression:
    """The expression that a text is. Raises QirError for anything but arithmetic, nothing of which is executed."""
    try:
        return _read(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise QirError(f"{text!r} is no arithmetic of sizes") from error


def _read(part: ast.expr) -> Expression:
    match part:
        case ast.Constant(bool() | int() as number):
            return number
        case ast.Name(name):
            return name
        case ast.BinOp(left, op, right):
            return _operation(type(op).__name__, left, right)
        case ast.UnaryOp(ast.USub() | ast.Not() as op, operand):
            return _operation(type(op).__name__, operand)
        case ast.BoolOp(op, values):
            return _operation(type(op).__name__, *values)
        case ast.Compare(left, ops, others):
            pairs = zip([left, *others], ops, others, strict=False)
            found = [_operation(type(op).__name__, a, b) for a, op, b in pairs]
            return found[0] if len(found) == 1 else ("and", *found)
        case ast.Call(ast.Name(name), arguments, []) if name in _FUNCTIONS:
            return _operation(_FUNCTIONS[name], *arguments)
    raise ValueError(ast.unparse(part))


def _operation(name: str, *parts: ast.expr) -> Expression:
    if name.lower() not in _OPERATORS:
        raise ValueError(name)
    return (name.lower(), *map(_read, parts))


def evaluate(expression: Expression, sizes: Mapping[str, Any]) -> Any:
    """What the expression is for these sizes. Raises KeyError for a name that is none of them."""
    if isinstance(expression, tuple):
        return _OPERATORS[expression[0]](*[evaluate(part, sizes) for part in expression[1:]])
    return sizes[expression] if isinstance(expression, str) else expression


def holds(condition: Expression, sizes: Mapping[str, Any]) -> bool:
    """Whether a condition is true for these sizes; one that divides by nothing is not."""
    try:
        return bool(evaluate(condition, sizes))
    except ZeroDivisionError:
        return False


def names_in(expression: Expression) -> set[str]:
    """The names of the sizes that it reads."""
    if isinstance(expression, tuple):
        return set().union(*map(names_in, expression[1:]))
    return {expression} if isinstance(expression, str) else set()


def renamed(expression: Expression, names: Mapping[str, str]) -> Expression:
    """The expression with other names for the sizes, those that have one."""
    if isinstance(expression, tuple):
        return (expression[0], *(renamed(part, names) for part in expression[1:]))
    return names.get(expression, expression) if isinstance(expression, str) else expression


def written(expression: Expression) -> str:
    """The text of an expression. `parsed(written(e)) == e`."""
    if not isinstance(expression, tuple):
        return str(expression)
    name, *parts = expression
    if name in ("min", "max"):
        return f"{name}({', '.join(map(written, parts))})"
    inner = [f"({written(part)})" if isinstance(part, tuple) else written(part) for part in parts]
    return f" {_SIGNS[name]} ".join(inner) if name in _SIGNS else f"{_PREFIXES[name]}{inner[0]}"

"""Nests of tuples, lists, dicts and slices, as arguments of calls are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def map_nested(part: Any, leaf: Callable[[Any], Any]) -> Any:
    """A nest of tuples, lists, dicts and slices with `leaf` of each leaf."""
    match part:
        case tuple():
            return tuple(map_nested(item, leaf) for item in part)
        case list():
            return [map_nested(item, leaf) for item in part]
        case dict():
            return {key: map_nested(item, leaf) for key, item in part.items()}
        case slice():
            return slice(*(map_nested(item, leaf) for item in (part.start, part.stop, part.step)))
    return leaf(part)

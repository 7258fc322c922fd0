"""Recording a model that does not notice it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from qir.graph import Graph

_QUESTIONS = ("is_exporting", "is_compiling", "is_dynamo_compiling")


def unnoticed(read: Callable[[], Graph]) -> Graph:
    """What `read` returns, where functions of torch.compiler answer the model that it is neither exported nor compiled.

    A model that asks may compute other bits while it is recorded: transformers' models make masks that they leave out
    otherwise.
    """
    before = {name: getattr(torch.compiler, name) for name in _QUESTIONS}
    try:
        for name in _QUESTIONS:
            setattr(torch.compiler, name, _no)
        return read()
    finally:
        for name, question in before.items():
            setattr(torch.compiler, name, question)


def _no() -> bool:
    return False

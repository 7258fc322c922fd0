"""Every registered pass shows in its docstring what it does, and does it."""

from __future__ import annotations

import pytest

from qir.registry import pass_named, pass_names
from qir.testing import check_docstring


@pytest.mark.parametrize("name", [name for name in pass_names() if not name.startswith("test-")])
def test_a_pass_does_what_its_docstring_shows(name: str) -> None:
    kind = pass_named(name)
    assert kind is not None
    check_docstring(kind)
